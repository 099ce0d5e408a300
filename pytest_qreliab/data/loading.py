"""Load the image sets and prompts that a benchmark's definition asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from pytest_qreliab.config.benchmark import Benchmark, SetSource
from pytest_qreliab.config.document import Location
from pytest_qreliab.config.set_names import (
    CALIBRATION,
    CORRUPTION,
    IN_DISTRIBUTION,
    OOD,
    SHIFT,
    SPURIOUS,
    corruption_cell,
)
from pytest_qreliab.config.sources import AnyLabelled, AnySource, HeldOut, Recorded
from pytest_qreliab.data import recorded
from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.data.images import Corruption, ImageSet
from pytest_qreliab.data.labels import Classes, LabelReader, load_classes, load_negatives, load_templates, source_hint
from pytest_qreliab.data.sources import listing
from pytest_qreliab.errors import InputError
from pytest_qreliab.metrics.names import SetName


def load(benchmark: Benchmark) -> Dataset:
    """Return the data of a benchmark: its images are listed, but not decoded.

    Raises:
        InputError: Data are missing or do not fit. The message has a line for every problem, with file and line.
    """
    if isinstance(benchmark.definition.in_distribution, Recorded):
        return recorded.load_dataset(benchmark)
    classes, templates = load_classes(benchmark), load_templates(benchmark)
    problems: dict[str, None] = {}
    sets: dict[str, ImageSet] = {}
    for wanted, images in _open_sets(benchmark, classes):
        if isinstance(images, InputError):
            problems[str(images)] = None
        else:
            sets[wanted.name] = images
    if problems:
        if len(problems) > 1 and any(wanted.source.origin for wanted in benchmark.sources()):
            problems[
                f"what there is and what is missing: qreliab check {benchmark.document.path.stem}; to leave a set out, "
                "extend the benchmark in a file of your own and set it to null there"
            ] = None
        raise InputError("\n".join(problems))
    inside = _measured_on(benchmark, sets)
    return Dataset(
        classes=classes.names,
        templates=tuple(templates),
        in_distribution=inside,
        calibration=sets.get(CALIBRATION),
        ood={SetName.parse(name).name: images for name, images in sets.items() if name.startswith(OOD)},
        near=frozenset(benchmark.definition.ood.near),
        negatives=load_negatives(benchmark, classes.names),
        labelled=_labelled_sets(benchmark, sets, inside),
        preprocessing=benchmark.definition.preprocessing,
    )


def _measured_on(benchmark: Benchmark, sets: Mapping[str, ImageSet]) -> ImageSet:
    """Return the in-distribution images, without those held out for calibration, down to the limit."""
    inside, definition = sets[IN_DISTRIBUTION], benchmark.definition
    if isinstance(definition.calibration, HeldOut) and CALIBRATION in sets:
        held_out = set(sets[CALIBRATION].ids)
        rest = np.array([row for row, identity in enumerate(inside.ids) if identity not in held_out], dtype=np.int64)
        inside = inside.take(rest)
    return inside.sampled(definition.in_distribution.limit, definition.seed)


def _labelled_sets(benchmark: Benchmark, sets: Mapping[str, ImageSet], inside: ImageSet) -> dict[str, ImageSet]:
    """Return the shifted, spurious and corrupted sets by full name; corruptions are made of `inside` or published."""
    seed, corruptions = benchmark.definition.seed, benchmark.definition.corruptions
    labelled = {name: images for name, images in sets.items() if name.startswith((SHIFT, SPURIOUS, CORRUPTION))}
    if corruptions is None:
        return labelled
    if corruptions.source is not None:
        return labelled | _same_images(benchmark, labelled, corruptions.limit)
    some = inside.sampled(corruptions.limit, seed)
    for kind, severity in corruptions.cells:
        name = corruption_cell(kind, severity)
        labelled[name] = replace(some, name=name, corruption=Corruption(kind, severity, seed))
    return labelled


def _same_images(benchmark: Benchmark, labelled: Mapping[str, ImageSet], limit: int | None) -> dict[str, ImageSet]:
    """Return the cells of a published grid, at most `limit` images of each; raise InputError if their images differ."""
    cells = {name: images for name, images in labelled.items() if name.startswith(CORRUPTION)}
    first = next(iter(cells.values()))
    for name, images in cells.items():
        if not np.array_equal(images.known_labels, first.known_labels):
            raise InputError(
                f"{benchmark.where(('corruptions', 'source'))}: {name} has other images than {first.name}: "
                f"{len(images)} and {len(first)}, or other labels; the same ones in the same order are needed"
            )
    return {name: images.sampled(limit, benchmark.definition.seed) for name, images in cells.items()}


@dataclass(frozen=True, kw_only=True)
class Availability:
    """How much of an image set is there."""

    name: str
    images: int  # how many there are
    expected: int | None  # how many there should be; None if that is not known
    problem: str  # empty if there is none


def check_availability(benchmark: Benchmark) -> list[Availability]:
    """Return how much of every image set is there, without a look into the images.

    Raises:
        InputError: The classes are not known. The message has file and line.
    """
    if isinstance(benchmark.definition.in_distribution, Recorded):
        sets = load(benchmark).sets
        return [Availability(name=name, images=len(sets[name]), expected=None, problem="") for name in sets]
    return [
        Availability(
            name=wanted.name,
            images=0 if isinstance(images, InputError) else len(images),
            expected=wanted.source.size,
            problem=str(images) if isinstance(images, InputError) else "",
        )
        for wanted, images in _open_sets(benchmark, load_classes(benchmark), whole=True)
    ]


def _open_sets(
    benchmark: Benchmark, classes: Classes, *, whole: bool = False
) -> Iterator[tuple[SetSource, ImageSet | InputError]]:
    """Yield the images of every set, or what is wrong with it; `whole` leaves the limits out."""
    inside: ImageSet | None = None
    for wanted in benchmark.sources():
        if whole and not isinstance(wanted.source, HeldOut):
            wanted = wanted._replace(source=wanted.source.model_copy(update={"limit": None}))
        try:
            images = _open_set(benchmark, classes, wanted, inside)
        except InputError as error:
            yield wanted, error
            continue
        if wanted.name == IN_DISTRIBUTION:
            inside = images
        yield wanted, images


def _open_set(benchmark: Benchmark, classes: Classes, wanted: SetSource, inside: ImageSet | None) -> ImageSet:
    """Return one image set of the benchmark; calibration images that are held out are drawn from `inside`.

    The in-distribution set comes whole, whatever its limit, and so do the cells of a published corruption grid.
    """
    name, source, at = wanted
    seed = benchmark.definition.seed
    if isinstance(source, HeldOut):
        return _held_out(benchmark, source, at, inside)
    assert not isinstance(source, Recorded)  # a benchmark of recorded samples opens no image set
    is_ood = name.startswith(OOD)
    reader: LabelReader | None = None
    if isinstance(source, AnyLabelled):
        if not is_ood:
            reader = LabelReader(benchmark=benchmark, classes=classes, source=source, at=at)
        elif source.classes is not None or source.partial:
            raise InputError(f"{benchmark.where(at)}: an OOD set has no classes: leave out `classes` and `partial`")
    labelled = reader is not None and (name != CALIBRATION or listing.offers_labels(source))
    try:
        items = listing.list_items(
            source, lambda text: benchmark.path(text, _location_of(source, text, at)), labelled=labelled
        )
    except InputError as error:
        raise InputError(f"{_where(benchmark, at)}: {error}{source_hint(source)}") from None
    images = ImageSet(name=name, ids=items.ids, load=items.load, content=items.content)
    if reader is not None:
        images = reader.label(images, items.labels)
    is_whole = name == IN_DISTRIBUTION or name.startswith(CORRUPTION)
    return images if is_whole else images.sampled(source.limit, seed)


def _held_out(benchmark: Benchmark, source: HeldOut, at: Location, inside: ImageSet | None) -> ImageSet:
    if inside is None:
        raise InputError(f"{benchmark.where(at)}: there are no in-distribution images to hold out")
    if source.limit >= len(inside):
        raise InputError(
            f"{benchmark.where((*at, 'limit'))}: {source.limit} images to hold out of {len(inside)}: none are left"
        )
    return inside.sampled(source.limit, benchmark.definition.seed)


def _location_of(source: AnySource, text: str, at: Location) -> Location:
    """Return where a path of the source is written, which may be in another file than the rest of it."""
    return (*at, next((key for key, value in source.model_dump().items() if value == text), "path"))


def _where(benchmark: Benchmark, at: Location) -> str:
    """Return file and line of the source's path, or of the source if no path is written."""
    return next(
        (benchmark.where((*at, key)) for key in ("path", "root", "name") if (*at, key) in benchmark.document.places),
        benchmark.where(at),
    )
