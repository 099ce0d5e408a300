"""Images in folders: one folder per class, one flat folder, or wherever a pattern says.

Each file of a class folder that is not hidden is a sample, an error, or said to be left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pytest_qreliab.config.text_forms import composed
from pytest_qreliab.data import decode
from pytest_qreliab.data.images import Items, LeftOut
from pytest_qreliab.data.sources.suffixes import is_hidden, is_image, not_images
from pytest_qreliab.data.wording import counted, first_few
from pytest_qreliab.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Content:
    """The names of all that lies directly in a folder and is not hidden, in order."""

    images: list[str]
    folders: list[str]
    others: list[str]  # files without the suffix of an image
    dangling: list[str]  # links to nothing


def list_labelled(folder: Path, pattern: str | None = None, *, partial: bool = False) -> Items:
    """List labelled images; their ids are their paths within the folder.

    Args:
        folder: A folder with one folder of images per class, which are labelled by its name.
        pattern: Another layout, a path within `folder` with `*` for any name, `**` for any folders or none, and
            `{label}` for the label.
        partial: Whether class folders may be empty.

    Raises:
        InputError: There are no images, images lie deeper than in class folders, or links lead to nothing.
    """
    if pattern is not None:
        return _list_matching(folder, pattern)
    top = _content(folder)
    _refuse_dangling(folder, top.dangling)
    if not top.folders:
        raise InputError(
            f"{folder} holds no class folders, one for each class, with images in them; "
            "for images without classes use source: flat-folder"
        )
    inside = {name: _content(folder / name) for name in top.folders}
    _refuse_dangling(folder, [f"{name}/{link}" for name, found in inside.items() for link in found.dangling])
    _refuse_deep(folder, inside)
    empty = [name for name, found in inside.items() if not found.images]
    if empty and not partial:
        instead = _instead(inside[empty[0]])
        raise InputError(f"{folder / empty[0]} holds no images{instead}; to allow empty folders, add partial: true")
    paths = [f"{name}/{image}" for name, found in inside.items() for image in found.images]
    labels = [name for name, found in inside.items() for _ in found.images]
    others = [f"{name}/{other}" for name, found in inside.items() for other in found.others]
    asked = [LeftOut(f"{counted(len(empty), 'class folder')} without images", on_request=True)] if empty else []
    left_out = (*_elsewhere(top.images, "beside the class folders"), *_said(others), *asked)
    return _items(folder, paths, labels, left_out)


def list_unlabelled(folder: Path) -> Items:
    """List the images directly in a folder.

    Raises:
        InputError: There are none, or links lead to nothing.
    """
    found = _content(folder)
    _refuse_dangling(folder, found.dangling)
    deeper = _images_below(folder, found.folders)
    if not found.images:
        hint = "; its images lie in folders: use source: image-folder" if found.folders else _instead(found)
        raise InputError(f"{folder} holds no images{hint}")
    left_out = (*_elsewhere(deeper, "in folders within the folder"), *_said(found.others))
    return _items(folder, found.images, None, left_out)


def load_image(path: Path) -> Image.Image:
    """Decode an image file.

    Raises:
        InputError: The file is truncated or no image.
    """
    return decode.image(path, str(path))


def _list_matching(folder: Path, pattern: str) -> Items:
    """List the images below a folder whose paths match the pattern, labelled by what stands in place of `{label}`."""
    written = re.compile(_expression(composed(pattern)))
    paths: list[str] = []
    labels: list[str] = []
    unlike: list[str] = []
    others: list[str] = []
    dangling: list[str] = []
    for within, found in _walk(folder):
        for name in found.images:
            path = f"{within}{name}"
            if matched := written.fullmatch(composed(path)):
                paths.append(path)
                labels.append(matched[1])
            else:
                unlike.append(path)
        others += [path for name in found.others if written.fullmatch(composed(path := f"{within}{name}"))]
        dangling += [path for name in found.dangling if written.fullmatch(composed(path := f"{within}{name}"))]
    _refuse_dangling(folder, dangling)
    if not paths:
        hint = f"; there is {unlike[0]}" if unlike else ""
        raise InputError(f"{folder} holds no images that lie as {pattern}{hint}")
    asked = LeftOut(f"{counted(len(unlike), 'image')} that the pattern leaves out", on_request=True)
    return _items(folder, paths, labels, (*_said(others), *([asked] if unlike else [])))


def _expression(pattern: str) -> str:
    """Return a pattern as a regular expression."""
    parts = {"**/": "(?:[^/]+/)*", "*": "[^/]*", "{label}": "([^/]+?)"}
    return "".join(parts.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*|\{label\})", pattern))


def _content(folder: Path) -> Content:
    """Return what lies directly in a folder, and nothing hidden, as `.DS_Store` and `._1.jpg` are."""
    images, folders, others, dangling = [], [], [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if entry.is_symlink() and not Path(entry.path).exists():
                    dangling.append(entry.name)
                elif entry.is_dir():
                    folders.append(entry.name)
                elif is_image(entry.name):
                    images.append(entry.name)
                else:
                    others.append(entry.name)
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be read: {error.strerror}") from None
    for names in (images, folders, others, dangling):
        names.sort(key=composed)  # the same order on every machine
    return Content(images=images, folders=folders, others=others, dangling=dangling)


def _walk(folder: Path, within: str = "", above: frozenset[str] = frozenset()) -> Iterator[tuple[str, Content]]:
    """Yield the content of a folder and of all folders below it, each with its path within the first.

    Links are followed, but not to a folder that they lie in.
    """
    here = os.path.realpath(folder)
    if here in above:
        return
    found = _content(folder)
    yield within, found
    for name in found.folders:
        yield from _walk(folder / name, f"{within}{name}/", above | {here})


def _images_below(folder: Path, names: list[str]) -> list[str]:
    """Return the paths of all images within some folders, which are given by their paths within `folder`."""
    paths: list[str] = []
    for name in names:
        above = frozenset(os.path.realpath(parent) for parent in (folder, (folder / name).parent))
        for within, found in _walk(folder / name, f"{name}/", above):
            paths += [f"{within}{image}" for image in found.images]
    return paths


def _refuse_deep(folder: Path, inside: dict[str, Content]) -> None:
    """Raise InputError if images lie in folders within class folders."""
    deep = _images_below(folder, [f"{name}/{below}" for name, found in inside.items() for below in found.folders])
    if deep:
        some_direct = any(found.images for found in inside.values())
        depths = {path.count("/") for path in deep} | ({1} if some_direct else set())
        pattern = "{label}" + ("/*" * depths.pop() if len(depths) == 1 else "/**/*")
        otherwise = '; to leave them out, pattern: "{label}/*"' if some_direct else ""
        raise InputError(
            f"{folder}: {counted(len(deep), 'image')} in folders within class folders, the first: {deep[0]}; to take "
            f'them, add pattern: "{pattern}"{otherwise}'
        )


def _refuse_dangling(folder: Path, paths: list[str]) -> None:
    if paths:
        raise InputError(
            f"{folder}: {counted(len(paths), 'file')} not there, but only links to nothing, the first: {paths[0]}; "
            "fetch the files, as with `git annex get` or `dvc pull`"
        )


def _instead(found: Content) -> str:
    return f"; it holds {first_few(found.others)}" if found.others else ""


def _elsewhere(images: list[str], where: str) -> list[LeftOut]:
    """Return what is said of images that lie elsewhere than the source takes them from."""
    return [LeftOut(f"{counted(len(images), 'image')} left out, {where}: {first_few(images)}")] if images else []


def _said(others: list[str]) -> list[LeftOut]:
    return [not_images(others)] if others else []


def _items(folder: Path, paths: list[str], labels: list[str] | None, left_out: tuple[LeftOut, ...]) -> Items:
    ids = [composed(path) for path in paths]
    if len(set(ids)) < len(ids):
        twice = next(name for position, name in enumerate(ids) if name in ids[:position])
        raise InputError(f"{folder}: two files are called {twice}, in two Unicode forms; rename one")
    files = [folder / path for path in paths]
    return Items(
        ids=ids, load=lambda i: load_image(files[i]), labels=labels, content=files.__getitem__, left_out=left_out
    )
