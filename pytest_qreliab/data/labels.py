"""Class names, templates and labels of a benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pytest_qreliab.config.benchmark import Benchmark, check_templates
from pytest_qreliab.config.document import Location
from pytest_qreliab.config.sources import AnyLabelled, AnySource, ImageFolder
from pytest_qreliab.data import class_names
from pytest_qreliab.data.dataset import CALIBRATION, IN_DISTRIBUTION
from pytest_qreliab.data.images import ImageSet, Items
from pytest_qreliab.data.sources import listing
from pytest_qreliab.errors import InputError, unknown


@dataclass(frozen=True)
class Classes:
    """The classes of a benchmark, in label order."""

    keys: tuple[str, ...]
    names: tuple[str, ...]

    def index(self, by: str) -> dict[str, int]:
        """Labels by what a source writes for them."""
        written = {"key": self.keys, "name": self.names, "index": tuple(map(str, range(len(self.keys))))}[by]
        return {text: label for label, text in reversed(list(enumerate(written)))}


def source_hint(source: AnySource) -> str:
    """Where the data can be had, for the end of a message."""
    parts = [f"{label} {text}" for label, text in (("from", source.origin), ("laid out as", source.layout)) if text]
    return f" ({'; '.join(parts)})" if parts else ""


def classes_of(benchmark: Benchmark) -> Classes:
    """The classes as the file gives them, or as the folders of the in-distribution set are called.

    Raises InputError with file and line.
    """
    given, source = benchmark.definition.classes, benchmark.definition.in_distribution
    where = benchmark.where(("classes",))
    if given is None:
        if not isinstance(source, ImageFolder) or listing.labelled_by(source) != "key":
            raise InputError(f"{where}: give `classes:`, the names in label order; only folders name their own classes")
        at: Location = (IN_DISTRIBUTION, "path")
        try:
            folder = benchmark.path(source.path, at)
            names = list(dict.fromkeys(listing.items(source, lambda text: folder, True).labels or ()))
            if len(names) < 2:
                raise InputError(f"{folder} holds one class; two are needed")
        except InputError as error:
            raise InputError(f"{benchmark.where(at)}: {error}{source_hint(source)}") from None
        return Classes(tuple(names), tuple(names))
    if isinstance(given, list):
        return Classes(tuple(given), tuple(given))
    if isinstance(given, str):
        try:
            given = class_names.classes(given, benchmark.path(given, ("classes",)))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    return Classes(tuple(given), tuple(given.values()))


def load_templates(benchmark: Benchmark) -> list[str]:
    given = benchmark.definition.templates
    if isinstance(given, list):
        return given
    try:
        templates = class_names.templates(given, benchmark.path(given, ("templates",)))
        check_templates(templates)
    except ValueError as error:
        raise InputError(f"{benchmark.where(('templates',))}: {error}") from None
    return templates


def load_negatives(benchmark: Benchmark, classes: Sequence[str]) -> tuple[str, ...]:
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


def with_labels(
    benchmark: Benchmark, classes: Classes, images: ImageSet, found: Items, source: AnyLabelled, at: Location
) -> ImageSet:
    """The images with the labels that their source gives them, of the classes that are told apart on them."""
    written = found.labels
    by = listing.labelled_by(source)
    index = classes.index(by)
    among = _among(benchmark, classes, source, at)
    if written is None:
        return images  # calibration images need no labels
    if isinstance(source, ImageFolder):
        _check_folders(benchmark, classes, set(written), source, at, among)
    unknown_labels = Counter(label for label in written if label not in index)
    if unknown_labels and images.name == CALIBRATION:
        return images
    if unknown_labels:
        (first, _), count = unknown_labels.most_common(1)[0], sum(unknown_labels.values())
        hint = unknown(f"class {by}", first, index)
        raise InputError(f"{benchmark.where(at)}: {count} of {len(written)} images have a label of no class: {hint}")
    labels = np.array([index[label] for label in written], dtype=np.int64)
    images = replace(images, labels=labels, classes=among)
    if among is None:
        return images
    of_these = np.flatnonzero(np.isin(labels, among))
    if not len(of_these):
        raise InputError(f"{benchmark.where((*at, 'classes'))}: the set holds no image of these classes")
    return images.take(of_these)


def _among(benchmark: Benchmark, classes: Classes, source: AnyLabelled, at: Location) -> npt.NDArray[np.int64] | None:
    """The classes that are told apart on a set; None for all."""
    given, where = source.classes, benchmark.where((*at, "classes"))
    if given is None:
        return None
    if at in ((IN_DISTRIBUTION,), (CALIBRATION,)):
        raise InputError(f"{where}: which classes there are is said by the benchmark's own `classes:`")
    if isinstance(given, str):
        try:
            given = list(class_names.classes(given, benchmark.path(given, (*at, "classes"))))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    index = classes.index("key")
    for key in given:
        if key not in index:
            raise InputError(f"{where}: {unknown('class key', key, index)}")
    if len(set(given)) < 2:
        raise InputError(f"{where}: give at least two classes")
    return np.array(sorted({index[key] for key in given}), dtype=np.int64)


def _check_folders(
    benchmark: Benchmark,
    classes: Classes,
    folders: set[str],
    source: ImageFolder,
    at: Location,
    among: npt.NDArray[np.int64] | None,
) -> None:
    """Raise InputError where folders lack a class, or classes, which is no harm in calibration images, a folder."""
    if at == (CALIBRATION,):
        return
    index = classes.index(listing.labelled_by(source))
    needed = [folder for folder, label in index.items() if among is None or label in among]
    missing = [] if source.partial else sorted(set(needed) - folders)
    extra = sorted(folders - set(index))
    if missing or extra:
        parts = [f"no folder for {', '.join(missing[:5])}{_more(missing)}"] if missing else []
        parts += [f"no class for the folders {', '.join(extra[:5])}{_more(extra)}"] if extra else []
        where = benchmark.where(("classes",) if at == (IN_DISTRIBUTION,) else (*at, "path"))
        raise InputError(
            f"{where}: classes and folders of {benchmark.path(source.path, (*at, 'path'))} differ: {'; '.join(parts)}"
        )


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 5} more" if len(names) > 5 else ""
