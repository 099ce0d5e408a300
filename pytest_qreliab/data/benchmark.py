"""From a benchmark's definition to its image sets and prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from pytest_qreliab.config.benchmark import (
    Benchmark,
    Digits,
    FlatFolder,
    ImageFolder,
    Letters,
    PhotoPatches,
    Source,
)
from pytest_qreliab.config.document import Location
from pytest_qreliab.data import embedded, folders
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.errors import InputError

Found = TypeVar("Found")


@dataclass(frozen=True)
class Data:
    """What a benchmark measures on: class names in label order, templates, and image sets.

    `near` names the OOD sets that are near, the others are far; `negatives` are labels that are none of the classes.
    """

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    in_distribution: ImageSet
    calibration: ImageSet | None
    ood: Mapping[str, ImageSet]
    near: frozenset[str] = frozenset()
    negatives: tuple[str, ...] = ()

    def captions(self, label: int) -> list[str]:
        """Every template of a class."""
        return self.filled(self.classes[label])

    def filled(self, word: str) -> list[str]:
        """Every template with the word in its place."""
        return [template.replace("{}", word) for template in self.templates]


def load(benchmark: Benchmark) -> Data:
    """The image sets, listed but not decoded. Raises InputError, with file and line, for what is not there."""
    definition = benchmark.definition
    classes, in_distribution = _labelled(benchmark, definition.in_distribution)
    calibration = definition.calibration
    near = frozenset(definition.ood.near)
    return Data(
        classes,
        tuple(definition.templates),
        in_distribution,
        None if calibration is None else _calibration(benchmark, calibration, definition.in_distribution),
        {
            name: _open(benchmark, name, source, ("ood", "near" if name in near else "far", name))
            for name, source in benchmark.ood_sets.items()
        },
        near,
        _negatives(benchmark, classes),
    )


def _negatives(benchmark: Benchmark, classes: Sequence[str]) -> tuple[str, ...]:
    """The negative labels; that one is a class, or is given twice, is an error whatever its capitals."""
    names = {name.strip().casefold() for name in classes}
    seen: set[str] = set()
    words = benchmark.definition.negatives or []
    for index, word in enumerate(words):
        plain = word.strip().casefold()
        if plain in names or plain in seen:
            why = "is a class of the benchmark" if plain in names else "is given twice"
            where = benchmark.where(("negatives", index))
            raise InputError(f"{where}: the negative label {word!r} {why}; take it out")
        seen.add(plain)
    return tuple(words)


def _labelled(benchmark: Benchmark, source: Digits | ImageFolder) -> tuple[tuple[str, ...], ImageSet]:
    given = benchmark.definition.classes
    if isinstance(source, Digits):
        if not isinstance(given, list) or len(given) != 10:
            raise InputError(f"{benchmark.where(('classes',))}: the digits need a list of ten class names")
        return tuple(given), embedded.digits(source.part).limited(source.limit)
    at = ("in_distribution", "path")
    found = _located(benchmark, at, lambda: folders.images_by_class(benchmark.folder(source)))
    named = given if isinstance(given, dict) else {name: name for name in given or found}
    missing, extra = sorted(named.keys() - found.keys()), sorted(found.keys() - named.keys())
    if missing or extra:
        parts = [f"no folder for {', '.join(missing[:5])}"] if missing else []
        parts += [f"no class for the folders {', '.join(extra[:5])}"] if extra else []
        raise InputError(
            f"{benchmark.where(('classes',))}: classes and folders of {benchmark.folder(source)} differ: "
            + "; ".join(parts)
        )
    if len(named) < 2:
        raise InputError(f"{benchmark.where(at)}: {benchmark.folder(source)} holds one class; two are needed")
    images = _by_class("in-distribution", found, list(named), list(named))
    return tuple(named.values()), images.limited(source.limit)


def _calibration(benchmark: Benchmark, source: Source, in_distribution: Digits | ImageFolder) -> ImageSet:
    """The calibration images, labelled where their source has the classes of the in-distribution set."""
    images = _open(benchmark, "calibration", source, ("calibration",))
    if isinstance(source, Digits) and isinstance(in_distribution, Digits):
        return replace(embedded.digits(source.part), name="calibration").limited(source.limit)
    if isinstance(source, ImageFolder) and isinstance(in_distribution, ImageFolder):
        given = benchmark.definition.classes
        folder_names = list(given or folders.images_by_class(benchmark.folder(in_distribution)))
        found = folders.images_by_class(benchmark.folder(source))
        if set(found) <= set(folder_names):
            return _by_class(
                "calibration", found, [name for name in folder_names if name in found], folder_names
            ).limited(source.limit)
    return images


def _by_class(name: str, found: Mapping[str, list[Path]], order: Sequence[str], classes: Sequence[str]) -> ImageSet:
    """The images of the folders in `order`, labelled by each folder's place among `classes`."""
    paths = [path for folder in order for path in found[folder]]
    places = np.array([classes.index(folder) for folder in order], dtype=np.int64)
    labels = np.repeat(places, [len(found[folder]) for folder in order])
    return ImageSet(name, len(paths), lambda i: folders.load(paths[i]), labels)


def _open(benchmark: Benchmark, name: str, source: Source, at: Location) -> ImageSet:
    match source:
        case Digits():
            images = embedded.digits(source.part)
        case Letters():
            images = embedded.letters()
        case PhotoPatches():
            images = embedded.photo_patches()
        case ImageFolder() | FlatFolder():
            paths = _located(benchmark, (*at, "path"), lambda: _paths(benchmark, source))
            images = ImageSet(name, len(paths), lambda i: folders.load(paths[i]))
    return ImageSet(name, len(images), images.load).limited(source.limit)


def _paths(benchmark: Benchmark, source: ImageFolder | FlatFolder) -> list[Path]:
    folder = benchmark.folder(source)
    if isinstance(source, FlatFolder):
        return folders.images(folder)
    return [path for paths in folders.images_by_class(folder).values() for path in paths]


def _located(benchmark: Benchmark, at: Location, read: Callable[[], Found]) -> Found:
    try:
        return read()
    except InputError as error:
        raise InputError(f"{benchmark.where(at)}: {error}") from None
