"""Find out how much of a benchmark's data is there, and how much of it a run would measure on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pytest_qreliab.config.benchmark import Benchmark, SetSource
from pytest_qreliab.config.set_names import CALIBRATION, CORRUPTION, IN_DISTRIBUTION
from pytest_qreliab.config.sources import HeldOut, Recorded
from pytest_qreliab.data import loading
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.data.labels import load_classes
from pytest_qreliab.data.opening import open_sets
from pytest_qreliab.data.wording import counted
from pytest_qreliab.errors import InputError

SHOWN = 3  # cells of a corruption grid with problems


@dataclass(frozen=True, kw_only=True)
class Availability:
    """How much of an image set is there."""

    name: str
    images: int = 0  # how many a run measures on; 0 if there is a problem
    found: int | None = None  # how many there are, if that is known
    expected: int | None = None  # how many there should be, if that is known
    left_out: tuple[str, ...] = ()  # what the benchmark leaves out on request
    problem: str = ""  # empty if there is none


@dataclass(frozen=True, kw_only=True)
class Availabilities:
    """The image sets of a benchmark, as far as they are there."""

    sets: list[Availability]
    warnings: tuple[str, ...]  # what a reader of the results should know


def check(benchmark: Benchmark) -> Availabilities:
    """Return how much of every image set is there and is measured on, without a look into the images.

    Raises:
        InputError: Classes, prompts or sets do not fit. The message has file and line.
    """
    if isinstance(benchmark.definition.in_distribution, Recorded):
        data = loading.load(benchmark)
        sets = [Availability(name=name, images=len(images)) for name, images in data.sets.items()]
        return Availabilities(sets=sets, warnings=data.warnings)
    classes = load_classes(benchmark)
    opened = list(open_sets(benchmark, classes))
    whole = {wanted.name: images for wanted, images in opened if not isinstance(images, InputError)}
    calibration = benchmark.definition.calibration
    held_out = len(whole[CALIBRATION]) if CALIBRATION in whole and isinstance(calibration, HeldOut) else 0
    found = [_availability(benchmark, wanted, images, held_out) for wanted, images in opened]
    if len(whole) < len(opened):
        return Availabilities(sets=_grid(found), warnings=tuple(loading.warnings_of(benchmark, classes, whole)))
    data = loading.assemble(benchmark, classes, whole)
    known = {wanted.name for wanted, _ in opened}
    found += [Availability(name=name, images=len(data.sets[name])) for name in data.sets if name not in known]
    return Availabilities(sets=_grid(found), warnings=data.warnings)


def _availability(
    benchmark: Benchmark, wanted: SetSource, images: ImageSet | InputError, held_out: int
) -> Availability:
    """Return how much of a set is there, and how much of that is measured on."""
    if isinstance(images, InputError):
        return Availability(name=wanted.name, problem=str(images))
    left_out = [left.text for left in images.left_out if left.on_request]
    measured, limit = len(images), wanted.source.limit
    if wanted.name == IN_DISTRIBUTION and held_out:
        measured -= held_out
        left_out.append(f"{held_out:,} held out for calibration")
    if wanted.name.startswith(CORRUPTION) and benchmark.definition.corruptions is not None:
        limit = benchmark.definition.corruptions.limit
    if limit is not None and limit < measured:
        left_out.append(f"{measured - limit:,} over the limit")
        measured = limit
    return Availability(
        name=wanted.name, images=measured, found=len(images), expected=wanted.source.size, left_out=tuple(left_out)
    )


def _grid(found: list[Availability]) -> list[Availability]:
    """Return the sets with one entry for all cells of a corruption grid that are alike."""
    cells = [one for one in found if one.name.startswith(CORRUPTION)]
    if not cells:
        return found
    first = next((at for at, one in enumerate(found) if one.name.startswith(CORRUPTION)))
    missing = [one for one in cells if one.problem]
    alike: dict[Availability, int] = {}
    for one in cells:
        if not one.problem:
            same = replace(one, name="")
            alike[same] = alike.get(same, 0) + 1
    entries = [replace(same, name=f"corruption, each of {counted(count, 'cell')}") for same, count in alike.items()]
    entries += missing[:SHOWN]
    if len(missing) > SHOWN:
        entries.append(Availability(name="corruption", problem=f"{counted(len(missing) - SHOWN, 'cell')} more"))
    others = [one for one in found if not one.name.startswith(CORRUPTION)]
    return [*others[:first], *entries, *others[first:]]
