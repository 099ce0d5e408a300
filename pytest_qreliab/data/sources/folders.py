"""Images in folders: one folder per class, or one flat folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from PIL import Image

from pytest_qreliab.data import decode
from pytest_qreliab.data.images import Items
from pytest_qreliab.errors import InputError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def images(folder: Path) -> list[Path]:
    """The image files directly in `folder`, by name. Raises InputError when there are none."""
    found = sorted(
        path
        for path in _entries(folder)
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        inside = [path.name for path in _entries(folder) if path.is_dir()]
        hint = "; its images lie in folders: use source: image-folder" if inside else ""
        raise InputError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}){hint}")
    return found


def images_by_class(folder: Path) -> dict[str, list[Path]]:
    """The image files of each class folder in `folder`, by name. Raises InputError when there are none."""
    classes = sorted(path for path in _entries(folder) if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise InputError(
            f"{folder} holds no class folders, one for each class, with images in them; "
            "for images without classes use source: flat-folder"
        )
    return {path.name: images(path) for path in classes}


def by_class(folder: Path, pattern: str | None = None) -> Items:
    """The images of all class folders, labelled by the folder's name; or those that lie as the pattern says.

    Raises InputError when there are none.
    """
    if pattern is None:
        found = [(name, path) for name, paths in images_by_class(folder).items() for path in paths]
    else:
        found = _matching(folder, pattern)
    paths = [path for _, path in found]
    return Items(_ids(folder, paths), lambda i: load(paths[i]), [name for name, _ in found], paths.__getitem__)


def flat(folder: Path) -> Items:
    """The images in a folder without classes. Raises InputError when there are none."""
    paths = images(folder)
    return Items(_ids(folder, paths), lambda i: load(paths[i]), content=paths.__getitem__)


def _matching(folder: Path, pattern: str) -> list[tuple[str, Path]]:
    """The images below `folder` whose paths are as the pattern says, with what stands in the place of `{label}`."""
    written = re.escape(pattern).replace(r"\*", "[^/]*").replace(r"\{label\}", "([^/]+?)")
    found: list[tuple[str, Path]] = []
    others: list[Path] = []
    _entries(folder)  # os.walk is silent about a folder that cannot be read
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                matched = re.fullmatch(written, path.relative_to(folder).as_posix())
                if matched:
                    found.append((matched[1], path))
                else:
                    others.append(path)
    if not found:
        there = f"; there is {others[0].relative_to(folder)}" if others else ""
        raise InputError(f"{folder} holds no images that lie as {pattern}{there}")
    return found


def _ids(folder: Path, paths: list[Path]) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def load(path: Path) -> Image.Image:
    """The decoded image: see `decode.image`. Raises InputError for a file that is truncated or no image."""
    return decode.image(path, str(path))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be read: {error.strerror}") from None
