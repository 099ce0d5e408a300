"""From a benchmark's definition to its image sets and prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pytest_qreliab.config.benchmark import Benchmark, Preprocessing, check_templates
from pytest_qreliab.config.document import Location
from pytest_qreliab.config.sources import AnyLabelled, AnySource, HeldOut, ImageFolder, Recorded
from pytest_qreliab.data import class_names
from pytest_qreliab.data.images import Corruption, ImageSet, Items
from pytest_qreliab.data.sources import listing
from pytest_qreliab.errors import InputError, unknown

IN_DISTRIBUTION, CALIBRATION = "in_distribution", "calibration"
SHIFT, CORRUPTION, SPURIOUS, OOD = "shift.", "corruption.", "spurious.", "ood."


@dataclass(frozen=True)
class Data:
    """What a benchmark measures on: class names in label order, templates, and image sets.

    `near` names the OOD sets that are near, the others are far; `labelled` are the further sets with classes: shifted
    (`shift.SET`), corrupted (`corruption.KIND.SEVERITY`) and with a spurious cue (`spurious.SET`). `negatives` are
    labels that are none of the classes. Of `recorded` samples there are no images.
    """

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    in_distribution: ImageSet
    calibration: ImageSet | None
    ood: Mapping[str, ImageSet]
    near: frozenset[str] = frozenset()
    negatives: tuple[str, ...] = ()
    labelled: Mapping[str, ImageSet] = field(default_factory=dict)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    recorded: bool = False

    def captions(self, label: int) -> list[str]:
        """Every template of a class."""
        return self.filled(self.classes[label])

    def filled(self, word: str) -> list[str]:
        """Every template with the word in its place."""
        return [template.replace("{}", word) for template in self.templates]

    @cached_property
    def sets(self) -> dict[str, ImageSet]:
        """Every image set under its full name, the calibration images last."""
        of_ood = {f"{OOD}{'near' if name in self.near else 'far'}.{name}": found for name, found in self.ood.items()}
        found = {IN_DISTRIBUTION: self.in_distribution, **self.labelled, **of_ood}
        return found if self.calibration is None else {**found, CALIBRATION: self.calibration}


@dataclass(frozen=True)
class Classes:
    """The classes of a benchmark, in label order."""

    keys: tuple[str, ...]
    names: tuple[str, ...]

    def index(self, by: str) -> dict[str, int]:
        """Labels by what a source writes for them."""
        written = {"key": self.keys, "name": self.names, "index": tuple(map(str, range(len(self.keys))))}[by]
        return {text: label for label, text in reversed(list(enumerate(written)))}


def load(benchmark: Benchmark) -> Data:
    """The image sets, listed but not decoded.

    Raises InputError with all that is missing or does not fit, each with its file and line.
    """
    definition = benchmark.definition
    if isinstance(definition.in_distribution, Recorded):
        from pytest_qreliab.data import recorded

        return recorded.data(benchmark)
    classes, templates = classes_of(benchmark), _templates(benchmark)
    problems: dict[str, None] = {}
    found: dict[str, ImageSet] = {}
    for name, _, opened in _opened(benchmark, classes):
        if isinstance(opened, InputError):
            problems[str(opened)] = None
        else:
            found[name] = opened
    if problems:
        if len(problems) > 1 and any(source.origin for _, source, _ in benchmark.sources()):
            problems[
                f"what there is and what is missing: qreliab check {benchmark.document.path.stem}; to leave a set out, "
                "extend the benchmark in a file of your own and set it to null there"
            ] = None
        raise InputError("\n".join(problems))
    return _assembled(benchmark, classes, templates, found)


def _assembled(benchmark: Benchmark, classes: Classes, templates: Sequence[str], found: Mapping[str, ImageSet]) -> Data:
    definition, seed = benchmark.definition, benchmark.definition.seed
    inside, calibration = found[IN_DISTRIBUTION], found.get(CALIBRATION)
    if isinstance(definition.calibration, HeldOut) and calibration is not None:
        taken = set(calibration.ids)
        rest = np.array([index for index, known in enumerate(inside.ids) if known not in taken], dtype=np.int64)
        inside = inside.take(rest)
    inside = inside.drawn(definition.in_distribution.limit, seed)
    labelled = {name: images for name, images in found.items() if name.startswith((SHIFT, SPURIOUS, CORRUPTION))}
    corruptions = definition.corruptions
    if corruptions is not None and corruptions.source is None:
        some = inside.drawn(corruptions.limit, seed)
        for kind, severity in corruptions.cells:
            name = f"{CORRUPTION}{kind}.{severity}"
            cell = replace(some, name=name, corruption=Corruption(kind, severity, seed))
            labelled[cell.name] = cell
    elif corruptions is not None:
        labelled.update(_same_images(benchmark, labelled, corruptions.limit))
    return Data(
        classes.names,
        tuple(templates),
        inside,
        calibration,
        {name.split(".", 2)[2]: images for name, images in found.items() if name.startswith(OOD)},
        frozenset(definition.ood.near),
        _negatives(benchmark, classes.names),
        labelled,
        definition.preprocessing,
    )


def _same_images(benchmark: Benchmark, labelled: Mapping[str, ImageSet], limit: int | None) -> dict[str, ImageSet]:
    """The cells of a published grid, of each at most `limit` images. Raises InputError where their images differ."""
    cells = {name: images for name, images in labelled.items() if name.startswith(CORRUPTION)}
    first = next(iter(cells.values()))
    for name, images in cells.items():
        if not np.array_equal(_checked(images.labels), _checked(first.labels)):
            raise InputError(
                f"{benchmark.where(('corruptions', 'source'))}: {name} has other images than {first.name}: "
                f"{len(images)} and {len(first)}, or other labels; the same ones in the same order are needed"
            )
    return {name: images.drawn(limit, benchmark.definition.seed) for name, images in cells.items()}


def _checked(labels: npt.NDArray[np.int64] | None) -> npt.NDArray[np.int64]:
    assert labels is not None
    return labels


@dataclass(frozen=True)
class Presence:
    """What is there of one image set: how many images, of `expected`, where that is known; or what is wrong."""

    name: str
    images: int
    expected: int | None
    problem: str


def presence(benchmark: Benchmark) -> list[Presence]:
    """What is there of every image set, without a look into the images. Raises InputError where classes are unknown."""
    if isinstance(benchmark.definition.in_distribution, Recorded):
        return [Presence(name, len(images), None, "") for name, images in load(benchmark).sets.items()]
    return [
        Presence(name, 0, source.size, str(opened))
        if isinstance(opened, InputError)
        else Presence(name, len(opened), source.size, "")
        for name, source, opened in _opened(benchmark, classes_of(benchmark), whole=True)
    ]


def _opened(
    benchmark: Benchmark, classes: Classes, *, whole: bool = False
) -> Iterator[tuple[str, AnySource | HeldOut | Recorded, ImageSet | InputError]]:
    """Every image set with its source, or what is wrong with it; `whole` leaves the limits out."""
    inside: ImageSet | None = None
    for name, source, at in benchmark.sources():
        if whole and not isinstance(source, HeldOut):
            source = source.model_copy(update={"limit": None})
        try:
            found: ImageSet | InputError = _image_set(benchmark, classes, name, source, at, inside)
        except InputError as error:
            found = error
        if name == IN_DISTRIBUTION and isinstance(found, ImageSet):
            inside = found
        yield name, source, found


def _image_set(
    benchmark: Benchmark,
    classes: Classes,
    name: str,
    source: AnySource | HeldOut | Recorded,
    at: Location,
    inside: ImageSet | None,
) -> ImageSet:
    """One image set of the benchmark; calibration images that are held out are drawn from `inside`.

    The in-distribution set comes whole, whatever its limit, and so do the cells of a published corruption grid.
    Raises InputError with file and line.
    """
    seed = benchmark.definition.seed
    if isinstance(source, HeldOut):
        if inside is None:
            raise InputError(f"{benchmark.where(at)}: there are no in-distribution images to hold out")
        if source.limit >= len(inside):
            raise InputError(
                f"{benchmark.where((*at, 'limit'))}: {source.limit} images to hold out of {len(inside)}: none are left"
            )
        return inside.drawn(source.limit, seed)
    assert not isinstance(source, Recorded)
    labelled = isinstance(source, AnyLabelled) and not name.startswith(OOD)
    if not labelled and isinstance(source, AnyLabelled) and (source.classes is not None or source.partial):
        raise InputError(f"{benchmark.where(at)}: an OOD set has no classes: leave out `classes` and `partial`")
    needed = labelled and (name != CALIBRATION or listing.offers_labels(source))
    try:
        found = listing.items(source, lambda text: benchmark.path(text, _written(source, text, at)), needed)
    except InputError as error:
        raise InputError(f"{_where(benchmark, at)}: {error}{_mend(source)}") from None
    images = ImageSet(name, found.ids, found.load, content=found.content)
    if labelled:
        assert isinstance(source, AnyLabelled)
        images = _labelled(benchmark, classes, images, found, source, at)
    whole = name == IN_DISTRIBUTION or name.startswith(CORRUPTION)
    return images if whole else images.drawn(source.limit, seed)


def _written(source: AnySource, text: str, at: Location) -> Location:
    """Where a path of the source is written, which may be in another file than the rest of it."""
    return (*at, next((key for key, value in source.model_dump().items() if value == text), "path"))


def _where(benchmark: Benchmark, at: Location) -> str:
    """The line of the path, if one is written."""
    return next(
        (benchmark.where((*at, key)) for key in ("path", "root", "name") if (*at, key) in benchmark.document.places),
        benchmark.where(at),
    )


def _mend(source: AnySource) -> str:
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
            raise InputError(f"{benchmark.where(at)}: {error}{_mend(source)}") from None
        return Classes(tuple(names), tuple(names))
    if isinstance(given, list):
        return Classes(tuple(given), tuple(given))
    if isinstance(given, str):
        try:
            given = class_names.classes(given, benchmark.path(given, ("classes",)))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    return Classes(tuple(given), tuple(given.values()))


def _templates(benchmark: Benchmark) -> list[str]:
    given = benchmark.definition.templates
    if isinstance(given, list):
        return given
    try:
        templates = class_names.templates(given, benchmark.path(given, ("templates",)))
        check_templates(templates)
    except ValueError as error:
        raise InputError(f"{benchmark.where(('templates',))}: {error}") from None
    return templates


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


def _labelled(
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
