"""Class names, templates and labels of a benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pytest_qreliab.config.benchmark import Benchmark, check_templates
from pytest_qreliab.config.document import Location
from pytest_qreliab.config.set_names import CALIBRATION, IN_DISTRIBUTION
from pytest_qreliab.config.sources import AnyCaptions, AnyLabelled, AnySource, ImageFolder
from pytest_qreliab.config.text_forms import as_on_disk, composed
from pytest_qreliab.data import class_names
from pytest_qreliab.data.images import ImageSet, LeftOut
from pytest_qreliab.data.sources import listing
from pytest_qreliab.data.wording import counted, first_few
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


def source_hint(source: AnySource | AnyCaptions) -> str:
    """Return the end of a message that says where the data come from."""
    parts = [f"{label} {text}" for label, text in (("from", source.origin), ("laid out as", source.layout)) if text]
    return f" ({'; '.join(parts)})" if parts else ""


def load_classes(benchmark: Benchmark) -> Classes:
    """Return the classes that the file lists, or those that the in-distribution folders are called by.

    Raises:
        InputError: There are no classes. The message has file and line.
    """
    given = benchmark.definition.classes
    if given is None:
        given = _names_of_folders(benchmark)
    if isinstance(given, list):
        given = {name: name for name in given}
    elif isinstance(given, str):
        given = _read_classes(benchmark, given, ("classes",))
    names = {composed(key): composed(name) for key, name in given.items()}
    if len(names) < len(given):
        raise InputError(f"{benchmark.where(('classes',))}: a class is given twice, in two Unicode forms")
    if benchmark.definition.class_keys is not None:
        at = ("class_keys",)
        names = {key: names[key] for key in _known_keys(benchmark, benchmark.definition.class_keys, names, at)}
    return Classes(tuple(names), tuple(names.values()))


def _read_classes(benchmark: Benchmark, name: str, at: Location) -> dict[str, str]:
    """Return the classes of a file or of a built-in set; raise InputError with file and line."""
    try:
        return class_names.read_classes(name, as_on_disk(benchmark.path(name, at)))
    except InputError as error:
        raise InputError(f"{benchmark.where(at)}: {error}") from None


def _known_keys(
    benchmark: Benchmark, given: Sequence[str] | str, known: Collection[str], at: Location
) -> dict[str, None]:
    """Return the keys of classes, at least two, that are listed, in a file, or those of a built-in set."""
    keys = list(_read_classes(benchmark, given, at)) if isinstance(given, str) else given
    chosen = dict.fromkeys(map(composed, keys))
    for key in chosen:
        if key not in known:
            raise InputError(f"{benchmark.where(at)}: {unknown('class key', key, known)}")
    if len(chosen) < 2:
        raise InputError(f"{benchmark.where(at)}: give at least two classes")
    return chosen


def _names_of_folders(benchmark: Benchmark) -> list[str]:
    source, at = benchmark.definition.in_distribution, (IN_DISTRIBUTION, "path")
    if not isinstance(source, ImageFolder) or listing.labelled_by(source) != "key":
        where = benchmark.where(("classes",))
        raise InputError(f"{where}: give `classes:`, the names in label order; only folders name their own classes")
    try:
        folder = as_on_disk(benchmark.path(source.path, at))
        labels = listing.list_items(source, lambda text: folder, labelled=True).labels or ()
        names = list(dict.fromkeys(map(composed, labels)))
        if len(names) < 2:
            raise InputError(f"{folder} holds one class; two are needed")
    except InputError as error:
        raise InputError(f"{benchmark.where(at)}: {error}{source_hint(source)}") from None
    return names


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
            if images.name != CALIBRATION:
                raise InputError(f"{self.benchmark.where(self.at)}: the images have no labels")
            return images
        written = [composed(label) for label in written]
        if isinstance(self.source, ImageFolder):
            self._check_folders(self.source, set(written), candidates)
        by = listing.labelled_by(self.source)
        index = self.classes.index(by)
        foreign = Counter(label for label in written if label not in index)
        if foreign and self.source.other_labels == "skip":
            images, written = self._without(images, written, foreign)
        elif foreign and images.name == CALIBRATION:
            return self._unlabelled(images, foreign)
        elif foreign:
            label = foreign.most_common(1)[0][0]
            raise InputError(
                f"{self.benchmark.where(self.at)}: {sum(foreign.values())} of {len(written)} images have a label of no "
                f"class: {unknown(f'class {by}', label, index)}; to leave such images out, add other_labels: skip"
            )
        labels = np.array([index[label] for label in written], dtype=np.int64)
        images = replace(images, labels=labels, classes=candidates)
        if candidates is None:
            return images
        rows = np.flatnonzero(np.isin(labels, candidates))
        if not len(rows):
            where = self.benchmark.where((*self.at, "classes"))
            raise InputError(f"{where}: the set holds no image of these classes")
        if others := len(labels) - len(rows):
            text = LeftOut(f"{counted(others, 'image')} that `classes` leaves out", on_request=True)
            images = replace(images, left_out=(*images.left_out, text))
        return images.take(rows)

    def _without(
        self, images: ImageSet, written: Sequence[str], foreign: Counter[str]
    ) -> tuple[ImageSet, Sequence[str]]:
        """Return the images, and their labels, without those whose label is that of no class."""
        rows = [row for row, label in enumerate(written) if label not in foreign]
        if not rows:
            raise InputError(
                f"{self.benchmark.where(self.at)}: no image has the label of a class; there is {first_few([*foreign])}"
            )
        text = f"{counted(foreign.total(), 'image')} left out, with labels of no class: {first_few([*foreign])}"
        images = replace(images.take(np.array(rows, dtype=np.int64)), left_out=(*images.left_out, LeftOut(text)))
        return images, [written[row] for row in rows]

    def _unlabelled(self, images: ImageSet, foreign: Counter[str]) -> ImageSet:
        """Return calibration images without labels, and say so if only some have the label of no class."""
        if foreign.total() == len(images):
            return images
        count = f"{foreign.total():,} of {counted(len(images), 'image')}"
        text = f"{count} with a label of no class, so that none of the labels is used: {first_few([*foreign])}"
        return replace(images, left_out=(*images.left_out, LeftOut(text)))

    def _candidates(self) -> IntArray | None:
        """Return the only classes that a prediction on the set may name; None for all."""
        given, where = self.source.classes, self.benchmark.where((*self.at, "classes"))
        if given is None:
            return None
        if self.at in ((IN_DISTRIBUTION,), (CALIBRATION,)):
            raise InputError(f"{where}: which classes there are is said by the benchmark's own `classes:`")
        index = self.classes.index("key")
        keys = _known_keys(self.benchmark, given, index, (*self.at, "classes"))
        return np.array(sorted(index[key] for key in keys), dtype=np.int64)

    def _check_folders(self, source: ImageFolder, folders: set[str], candidates: IntArray | None) -> None:
        """Raise InputError if a class has no folder or a folder no class, which does not matter for calibration."""
        if self.at == (CALIBRATION,):
            return
        index = self.classes.index(listing.labelled_by(source))
        needed = [folder for folder, label in index.items() if candidates is None or label in candidates]
        missing = [] if source.partial else sorted(set(needed) - folders)
        extra = [] if source.other_labels == "skip" else sorted(folders - set(index))
        if missing or extra:
            parts = [f"no folder for {first_few(missing)}"] if missing else []
            parts += [f"no class for the folders {first_few(extra)}"] if extra else []
            where = self.benchmark.where(("classes",) if self.at == (IN_DISTRIBUTION,) else (*self.at, "path"))
            folder = self.benchmark.path(source.path, (*self.at, "path"))
            raise InputError(f"{where}: classes and folders of {folder} differ: {'; '.join(parts)}")
