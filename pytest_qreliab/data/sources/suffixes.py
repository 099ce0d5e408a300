"""Which files are images, by the suffixes of their names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from pytest_qreliab.data.images import LeftOut
from pytest_qreliab.data.wording import counted, first_few

# Known without a look into Pillow, which imports all its formats for it.
COMMON = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# What Windows, macOS and storage devices put into folders of images.
_OF_SYSTEMS = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir"})
# What Pillow opens and cannot decode by itself, and what is a video, a page or a table rather than an image.
_NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})


def is_image(name: str) -> bool:
    """Return whether a file's name ends in the suffix of an image that Pillow reads."""
    stem, dot, end = name.rpartition(".")
    suffix = f"{dot}{end}".lower()
    return bool(stem) and (suffix in COMMON or suffix in _readable())


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is no part of a data set, such as `.git`, `._1.jpg` or `Thumbs.db`."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def not_images(names: Sequence[str]) -> LeftOut:
    """Say that files are left out, as they have no suffix of an image."""
    count = counted(len(names), "file")
    return LeftOut(f"{count} left out, without the suffix of an image that Pillow reads: {first_few(names)}")


@cache
def _readable() -> frozenset[str]:
    """Return the suffixes of all formats that the installed Pillow decodes."""
    from PIL import Image

    formats = Image.registered_extensions()
    return frozenset(suffix for suffix, name in formats.items() if name in Image.OPEN and name not in _NOT_DECODED)
