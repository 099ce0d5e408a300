"""From a benchmark's definition to its image sets and prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.config.document import Location
from pytest_qreliab.config.sources import AnyLabelled, AnySource, HeldOut, Recorded
from pytest_qreliab.data.dataset import CALIBRATION, CORRUPTION, IN_DISTRIBUTION, OOD, SHIFT, SPURIOUS, Dataset
from pytest_qreliab.data.images import Corruption, ImageSet
from pytest_qreliab.data.labels import Classes, classes_of, load_negatives, load_templates, source_hint, with_labels
from pytest_qreliab.data.sources import listing
from pytest_qreliab.errors import InputError


def load(benchmark: Benchmark) -> Dataset:
    """The image sets, listed but not decoded.

    Raises InputError with all that is missing or does not fit, each with its file and line.
    """
    definition = benchmark.definition
    if isinstance(definition.in_distribution, Recorded):
        from pytest_qreliab.data import recorded

        return recorded.data(benchmark)
    classes, templates = classes_of(benchmark), load_templates(benchmark)
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


def _assembled(
    benchmark: Benchmark, classes: Classes, templates: Sequence[str], found: Mapping[str, ImageSet]
) -> Dataset:
    definition, seed = benchmark.definition, benchmark.definition.seed
    inside, calibration = found[IN_DISTRIBUTION], found.get(CALIBRATION)
    if isinstance(definition.calibration, HeldOut) and calibration is not None:
        taken = set(calibration.ids)
        rest = np.array([index for index, known in enumerate(inside.ids) if known not in taken], dtype=np.int64)
        inside = inside.take(rest)
    inside = inside.sampled(definition.in_distribution.limit, seed)
    labelled = {name: images for name, images in found.items() if name.startswith((SHIFT, SPURIOUS, CORRUPTION))}
    corruptions = definition.corruptions
    if corruptions is not None and corruptions.source is None:
        some = inside.sampled(corruptions.limit, seed)
        for kind, severity in corruptions.cells:
            name = f"{CORRUPTION}{kind}.{severity}"
            cell = replace(some, name=name, corruption=Corruption(kind, severity, seed))
            labelled[cell.name] = cell
    elif corruptions is not None:
        labelled.update(_same_images(benchmark, labelled, corruptions.limit))
    return Dataset(
        classes.names,
        tuple(templates),
        inside,
        calibration,
        {name.split(".", 2)[2]: images for name, images in found.items() if name.startswith(OOD)},
        frozenset(definition.ood.near),
        load_negatives(benchmark, classes.names),
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
    return {name: images.sampled(limit, benchmark.definition.seed) for name, images in cells.items()}


def _checked(labels: npt.NDArray[np.int64] | None) -> npt.NDArray[np.int64]:
    assert labels is not None
    return labels


@dataclass(frozen=True)
class Availability:
    """What is there of one image set: how many images, of `expected`, where that is known; or what is wrong."""

    name: str
    images: int
    expected: int | None
    problem: str


def availability(benchmark: Benchmark) -> list[Availability]:
    """What is there of every image set, without a look into the images. Raises InputError where classes are unknown."""
    if isinstance(benchmark.definition.in_distribution, Recorded):
        return [Availability(name, len(images), None, "") for name, images in load(benchmark).sets.items()]
    return [
        Availability(name, 0, source.size, str(opened))
        if isinstance(opened, InputError)
        else Availability(name, len(opened), source.size, "")
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
        return inside.sampled(source.limit, seed)
    assert not isinstance(source, Recorded)
    labelled = isinstance(source, AnyLabelled) and not name.startswith(OOD)
    if not labelled and isinstance(source, AnyLabelled) and (source.classes is not None or source.partial):
        raise InputError(f"{benchmark.where(at)}: an OOD set has no classes: leave out `classes` and `partial`")
    needed = labelled and (name != CALIBRATION or listing.offers_labels(source))
    try:
        found = listing.items(source, lambda text: benchmark.path(text, _written(source, text, at)), needed)
    except InputError as error:
        raise InputError(f"{_where(benchmark, at)}: {error}{source_hint(source)}") from None
    images = ImageSet(name, found.ids, found.load, content=found.content)
    if labelled:
        assert isinstance(source, AnyLabelled)
        images = with_labels(benchmark, classes, images, found, source, at)
    whole = name == IN_DISTRIBUTION or name.startswith(CORRUPTION)
    return images if whole else images.sampled(source.limit, seed)


def _written(source: AnySource, text: str, at: Location) -> Location:
    """Where a path of the source is written, which may be in another file than the rest of it."""
    return (*at, next((key for key, value in source.model_dump().items() if value == text), "path"))


def _where(benchmark: Benchmark, at: Location) -> str:
    """The line of the path, if one is written."""
    return next(
        (benchmark.where((*at, key)) for key in ("path", "root", "name") if (*at, key) in benchmark.document.places),
        benchmark.where(at),
    )
