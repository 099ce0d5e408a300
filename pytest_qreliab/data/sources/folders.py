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


def list_files(folder: Path) -> list[Path]:
    """Return the image files directly in a folder, by name.

    Raises:
        InputError: There are none.
    """
    files = sorted(
        path
        for path in _entries(folder)
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not files:
        inside = [path.name for path in _entries(folder) if path.is_dir()]
        hint = "; its images lie in folders: use source: image-folder" if inside else ""
        raise InputError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}){hint}")
    return files


def list_files_by_class(folder: Path) -> dict[str, list[Path]]:
    """Return the image files of each class folder in a folder, by name.

    Raises:
        InputError: There are no class folders, or one holds no images.
    """
    classes = sorted(path for path in _entries(folder) if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise InputError(
            f"{folder} holds no class folders, one for each class, with images in them; "
            "for images without classes use source: flat-folder"
        )
    return {path.name: list_files(path) for path in classes}


def list_labelled(folder: Path, pattern: str | None = None) -> Items:
    """List labelled images; their ids are their paths within the folder.

    Args:
        folder: A folder with one folder of images per class, which are labelled by its name.
        pattern: Another layout, a path within `folder` with `*` for any name and `{label}` for the label.

    Raises:
        InputError: There are no images.
    """
    if pattern is None:
        by_class = list_files_by_class(folder)
        labelled = [(name, path) for name, paths in by_class.items() for path in paths]
    else:
        labelled = _matching(folder, pattern)
    paths = [path for _, path in labelled]
    return Items(
        ids=_ids(folder, paths),
        load=lambda i: load_image(paths[i]),
        labels=[name for name, _ in labelled],
        content=paths.__getitem__,
    )


def list_unlabelled(folder: Path) -> Items:
    """List the images directly in a folder.

    Raises:
        InputError: There are none.
    """
    paths = list_files(folder)
    return Items(ids=_ids(folder, paths), load=lambda i: load_image(paths[i]), content=paths.__getitem__)


def _matching(folder: Path, pattern: str) -> list[tuple[str, Path]]:
    """Return the images below `folder` whose paths match the pattern, with what stands in place of `{label}`."""
    written = re.escape(pattern).replace(r"\*", "[^/]*").replace(r"\{label\}", "([^/]+?)")
    labelled: list[tuple[str, Path]] = []
    others: list[Path] = []
    _entries(folder)  # os.walk is silent about a folder that cannot be read
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                matched = re.fullmatch(written, path.relative_to(folder).as_posix())
                if matched:
                    labelled.append((matched[1], path))
                else:
                    others.append(path)
    if not labelled:
        hint = f"; there is {others[0].relative_to(folder)}" if others else ""
        raise InputError(f"{folder} holds no images that lie as {pattern}{hint}")
    return labelled


def _ids(folder: Path, paths: list[Path]) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def load_image(path: Path) -> Image.Image:
    """Decode an image file.

    Raises:
        InputError: The file is truncated or no image.
    """
    return decode.image(path, str(path))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be read: {error.strerror}") from None
