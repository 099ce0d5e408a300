"""Class names, templates and labels of a benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pytest_qreliab.config.benchmark import Benchmark, check_templates
from pytest_qreliab.config.document import Location
from pytest_qreliab.config.set_names import CALIBRATION, IN_DISTRIBUTION
from pytest_qreliab.config.sources import AnyLabelled, AnySource, ImageFolder
from pytest_qreliab.data import class_names
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.data.sources import listing
from pytest_qreliab.errors import InputError, unknown
from pytest_qreliab.statistics.arrays import IntArray


@dataclass(frozen=True)
class Classes:
    """The classes of a benchmark, in label order."""

    keys: tuple[str, ...]
    names: tuple[str, ...]

    def index(self, by: str) -> dict[str, int]:
        """Return the labels by what a source writes for them: the `key`, the `name` or the `index` of the class."""
        written = {"key": self.keys, "name": self.names, "index": tuple(map(str, range(len(self.keys))))}[by]
        return {text: label for label, text in reversed(list(enumerate(written)))}


def source_hint(source: AnySource) -> str:
    """Return the end of a message that says where the data come from."""
    parts = [f"{label} {text}" for label, text in (("from", source.origin), ("laid out as", source.layout)) if text]
    return f" ({'; '.join(parts)})" if parts else ""


def load_classes(benchmark: Benchmark) -> Classes:
    """Return the classes that the file lists, or those that the in-distribution folders are called by.

    Raises:
        InputError: There are no classes. The message has file and line.
    """
    given, where = benchmark.definition.classes, benchmark.where(("classes",))
    if given is None:
        return _classes_of_folders(benchmark)
    if isinstance(given, list):
        return Classes(tuple(given), tuple(given))
    if isinstance(given, str):
        try:
            given = class_names.read_classes(given, benchmark.path(given, ("classes",)))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    return Classes(tuple(given), tuple(given.values()))


def _classes_of_folders(benchmark: Benchmark) -> Classes:
    source, at = benchmark.definition.in_distribution, (IN_DISTRIBUTION, "path")
    if not isinstance(source, ImageFolder) or listing.labelled_by(source) != "key":
        where = benchmark.where(("classes",))
        raise InputError(f"{where}: give `classes:`, the names in label order; only folders name their own classes")
    try:
        folder = benchmark.path(source.path, at)
        names = tuple(dict.fromkeys(listing.list_items(source, lambda text: folder, labelled=True).labels or ()))
        if len(names) < 2:
            raise InputError(f"{folder} holds one class; two are needed")
    except InputError as error:
        raise InputError(f"{benchmark.where(at)}: {error}{source_hint(source)}") from None
    return Classes(names, names)


def load_templates(benchmark: Benchmark) -> list[str]:
    """Return the templates that the file lists or refers to.

    Raises:
        InputError: They cannot be read, or one has not one place for the name. The message has file and line.
    """
    given = benchmark.definition.templates
    if isinstance(given, list):
        return given
    try:
        templates = class_names.read_templates(given, benchmark.path(given, ("templates",)))
        check_templates(templates)
    except ValueError as error:
        raise InputError(f"{benchmark.where(('templates',))}: {error}") from None
    return templates


def load_negatives(benchmark: Benchmark, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the negative labels.

    Raises:
        InputError: One is a class, or is given twice, whatever its capitals. The message has file and line.
    """
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


@dataclass(frozen=True, kw_only=True)
class LabelReader:
    """The reader of what one source writes as labels."""

    benchmark: Benchmark
    classes: Classes
    source: AnyLabelled
    at: Location  # of the source in the file

    def label(self, images: ImageSet, written: Sequence[str] | None) -> ImageSet:
        """Return the images with their labels, without those of other classes than the source names.

        Args:
            images: All images of the source.
            written: What it writes for each. Calibration images may do without, or have labels of no class.

        Raises:
            InputError: Images have a label of no class, or classes have no folder. The message has file and line.
        """
        candidates = self._candidates()
        if written is None:
            return images
        if isinstance(self.source, ImageFolder):
            self._check_folders(self.source, set(written), candidates)
        by = listing.labelled_by(self.source)
        index = self.classes.index(by)
        foreign = Counter(label for label in written if label not in index)
        if foreign and images.name == CALIBRATION:
            return images
        if foreign:
            hint = unknown(f"class {by}", foreign.most_common(1)[0][0], index)
            raise InputError(
                f"{self.benchmark.where(self.at)}: {sum(foreign.values())} of {len(written)} images have a label of no "
                f"class: {hint}"
            )
        labels = np.array([index[label] for label in written], dtype=np.int64)
        images = replace(images, labels=labels, classes=candidates)
        if candidates is None:
            return images
        rows = np.flatnonzero(np.isin(labels, candidates))
        if not len(rows):
            where = self.benchmark.where((*self.at, "classes"))
            raise InputError(f"{where}: the set holds no image of these classes")
        return images.take(rows)

    def _candidates(self) -> IntArray | None:
        """Return the only classes that a prediction on the set may name; None for all."""
        given, where = self.source.classes, self.benchmark.where((*self.at, "classes"))
        if given is None:
            return None
        if self.at in ((IN_DISTRIBUTION,), (CALIBRATION,)):
            raise InputError(f"{where}: which classes there are is said by the benchmark's own `classes:`")
        if isinstance(given, str):
            try:
                given = list(class_names.read_classes(given, self.benchmark.path(given, (*self.at, "classes"))))
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
        index = self.classes.index("key")
        for key in given:
            if key not in index:
                raise InputError(f"{where}: {unknown('class key', key, index)}")
        if len(set(given)) < 2:
            raise InputError(f"{where}: give at least two classes")
        return np.array(sorted({index[key] for key in given}), dtype=np.int64)

    def _check_folders(self, source: ImageFolder, folders: set[str], candidates: IntArray | None) -> None:
        """Raise InputError if a class has no folder or a folder no class, which does not matter for calibration."""
        if self.at == (CALIBRATION,):
            return
        index = self.classes.index(listing.labelled_by(source))
        needed = [folder for folder, label in index.items() if candidates is None or label in candidates]
        missing = [] if source.partial else sorted(set(needed) - folders)
        extra = sorted(folders - set(index))
        if missing or extra:
            parts = [f"no folder for {', '.join(missing[:5])}{_more(missing)}"] if missing else []
            parts += [f"no class for the folders {', '.join(extra[:5])}{_more(extra)}"] if extra else []
            where = self.benchmark.where(("classes",) if self.at == (IN_DISTRIBUTION,) else (*self.at, "path"))
            folder = self.benchmark.path(source.path, (*self.at, "path"))
            raise InputError(f"{where}: classes and folders of {folder} differ: {'; '.join(parts)}")


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 5} more" if len(names) > 5 else ""
