"""Load the image sets and prompts that a benchmark's definition asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.config.set_names import (
    CALIBRATION,
    CAPTIONS,
    CORRUPTION,
    IN_DISTRIBUTION,
    OOD,
    SHIFT,
    SPURIOUS,
    corruption_cell,
)
from pytest_qreliab.config.sources import HeldOut, Recorded
from pytest_qreliab.data import recorded, shared_images
from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.data.images import Corruption, ImageSet
from pytest_qreliab.data.labels import Classes, load_classes, load_negatives, load_templates
from pytest_qreliab.data.opening import open_sets
from pytest_qreliab.data.wording import counted, first_few
from pytest_qreliab.errors import InputError
from pytest_qreliab.metrics.names import SetName


def load(benchmark: Benchmark) -> Dataset:
    """Return the data of a benchmark: its images are listed, but not decoded.

    Raises:
        InputError: Data are missing or do not fit. The message has a line for every problem, with file and line.
    """
    if isinstance(benchmark.definition.in_distribution, Recorded):
        return recorded.load_dataset(benchmark)
    classes = load_classes(benchmark)
    problems: dict[str, None] = {}
    whole: dict[str, ImageSet] = {}
    for wanted, images in open_sets(benchmark, classes):
        if isinstance(images, InputError):
            problems[str(images)] = None
        else:
            whole[wanted.name] = images
    if problems:
        if len(problems) > 1 and any(wanted.source.origin for wanted in benchmark.sources()):
            problems[
                f"what there is and what is missing: qreliab check {benchmark.document.path.stem}; to leave a set out, "
                "extend the benchmark in a file of your own and set it to null there"
            ] = None
        raise InputError("\n".join(problems))
    return assemble(benchmark, classes, whole)


def assemble(benchmark: Benchmark, classes: Classes, whole: Mapping[str, ImageSet]) -> Dataset:
    """Return the data of a benchmark.

    Args:
        benchmark: The benchmark.
        classes: Its classes.
        whole: All images of each of its sets, by full name.

    Raises:
        InputError: Prompts or image sets do not fit. The message has file and line.
    """
    templates = load_templates(benchmark)
    seed, limits = benchmark.definition.seed, {wanted.name: wanted.source.limit for wanted in benchmark.sources()}
    # The limits of the in-distribution images and of corruption grids are applied later, to what is left for them.
    sets = {
        name: images if name.startswith((IN_DISTRIBUTION, CORRUPTION)) else images.sampled(limits[name], seed)
        for name, images in whole.items()
    }
    inside = _measured_on(benchmark, sets)
    found = Dataset(
        classes=classes.names,
        templates=tuple(templates),
        in_distribution=inside,
        calibration=sets.get(CALIBRATION),
        captions=sets.get(CAPTIONS),
        ood={SetName.parse(name).name: images for name, images in sets.items() if name.startswith(OOD)},
        near=frozenset(benchmark.definition.ood.near),
        negatives=load_negatives(benchmark, classes.names),
        labelled=_labelled_sets(benchmark, sets, inside),
        preprocessing=benchmark.definition.preprocessing,
        warnings=tuple(warnings_of(benchmark, classes, whole)),
    )
    shared = tuple(shared_images.find(found.sets, shared_images.by_file))
    warnings = (*found.warnings, *(f"{benchmark.name}: {images}" for images in shared))
    return replace(found, shared=shared, warnings=warnings)


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


def warnings_of(benchmark: Benchmark, classes: Classes, whole: Mapping[str, ImageSet]) -> Iterator[str]:
    """Yield what a reader should know: what sources leave out unasked, and classes without images."""
    sets_by_text: dict[str, list[str]] = {}  # the cells of a corruption grid share theirs
    for name, images in whole.items():
        for left_out in images.left_out:
            if not left_out.on_request:
                sets_by_text.setdefault(left_out.text, []).append(name)
    for text, names in sets_by_text.items():
        yield f"{benchmark.name}: {first_few(names)}: {text}"
    origins = dict.fromkeys(images.origin for images in whole.values() if images.origin is not None)
    yield from (f"{benchmark.name}: {origin.warning}" for origin in origins if origin.warning)
    inside = whole.get(IN_DISTRIBUTION)
    if inside is not None:
        empty = sorted(set(range(len(classes.names))) - set(inside.known_labels.tolist()))
        if empty:
            shown = first_few([repr(classes.names[label]) for label in empty])
            count = f"{len(empty):,} of {counted(len(classes.names), 'class')}"
            yield f"{benchmark.name}: {IN_DISTRIBUTION}: {count} without images: {shown}"
