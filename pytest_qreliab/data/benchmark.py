"""From a benchmark's definition to its image sets and prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
    """What a benchmark measures on: class names in label order, templates, and image sets."""

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    in_distribution: ImageSet
    calibration: ImageSet | None
    ood: Mapping[str, ImageSet]

    def prompts(self) -> list[str]:
        """Every template of the first class, then of the second, and so on."""
        return [template.replace("{}", name) for name in self.classes for template in self.templates]


def load(benchmark: Benchmark) -> Data:
    """The image sets, listed but not decoded. Raises InputError, with file and line, for what is not there."""
    definition = benchmark.definition
    classes, in_distribution = _labelled(benchmark, definition.in_distribution)
    calibration = definition.calibration
    near = set(definition.ood.near)
    return Data(
        classes,
        tuple(definition.templates),
        in_distribution,
        None if calibration is None else _open(benchmark, "calibration", calibration, ("calibration",)),
        {
            name: _open(benchmark, name, source, ("ood", "near" if name in near else "far", name))
            for name, source in benchmark.ood_sets.items()
        },
    )


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
    paths = [path for folder in named for path in found[folder]]
    labels = np.repeat(np.arange(len(named), dtype=np.int64), [len(found[folder]) for folder in named])
    images = ImageSet("in-distribution", len(paths), lambda i: folders.load(paths[i]), labels)
    return tuple(named.values()), images.limited(source.limit)


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
