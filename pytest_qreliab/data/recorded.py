"""Outputs recorded elsewhere: their samples as image sets, and the rows of each sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from pytest_qreliab.config.benchmark import RECORDED, Benchmark
from pytest_qreliab.config.set_names import CALIBRATION, IN_DISTRIBUTION, OOD
from pytest_qreliab.config.sources import Recorded
from pytest_qreliab.data import shared_images
from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.data.recording import RecordedSet, Recording
from pytest_qreliab.data.wording import counted, first_few
from pytest_qreliab.errors import InputError
from pytest_qreliab.hashing import array_digest
from pytest_qreliab.metrics.names import NEAR_FAR, SetName
from pytest_qreliab.statistics.arrays import IntArray


def load(name: str, folder: Path | None = None) -> Recording:
    """Load the outputs of `recorded:PATH`.

    Args:
        name: The path, with its prefix.
        folder: Where a relative path starts, by default the working directory.

    Raises:
        InputError: The file cannot be used.
    """
    return Recording.load((folder or Path.cwd()) / Path(name.removeprefix(RECORDED)).expanduser())


def load_dataset(benchmark: Benchmark) -> Dataset:
    """Return the data of a benchmark whose in-distribution source is a file of recorded outputs.

    Raises:
        InputError: The file cannot be used. The message has file and line.
    """
    source = benchmark.definition.in_distribution
    assert isinstance(source, Recorded)
    at = (IN_DISTRIBUTION, "path")
    try:
        recording = Recording.load(benchmark.path(source.path, at))
        if IN_DISTRIBUTION not in recording.sets:
            raise InputError(f"{source.path} holds no set {IN_DISTRIBUTION}; there are {', '.join(recording.sets)}")
    except InputError as error:
        where = f"{benchmark.where(at)}: " if benchmark.document.places else ""
        raise InputError(f"{where}{error}") from None
    sets = {name: image_set(recorded) for name, recorded in recording.sets.items()}
    sets[IN_DISTRIBUTION] = sets[IN_DISTRIBUTION].sampled(source.limit, benchmark.definition.seed)
    warnings = [*recording.warnings, *(f"{benchmark.name}: {text}" for text in _doubts(recording, sets))]
    ood = {name: SetName.parse(name) for name in sets if name.startswith(OOD)}
    return Dataset(
        classes=tuple(recording.classes),
        templates=(),
        in_distribution=sets.pop(IN_DISTRIBUTION),
        calibration=sets.pop(CALIBRATION, None),
        ood={of.name: sets.pop(name) for name, of in ood.items()},
        near=frozenset(of.name for of in ood.values() if of.group == NEAR_FAR[0]),
        labelled=sets,
        recorded=True,
        warnings=tuple(warnings),
    )


def _doubts(recording: Recording, sets: Mapping[str, ImageSet]) -> Iterator[str]:
    """Yield what a reader should know of the samples: classes without any, and images that are in two sets."""
    empty = sorted(set(range(len(recording.classes))) - set(sets[IN_DISTRIBUTION].known_labels.tolist()))
    if empty:
        shown = first_few([repr(recording.classes[label]) for label in empty])
        count = f"{len(empty):,} of {counted(len(recording.classes), 'class')}"
        yield f"{IN_DISTRIBUTION}: {count} without samples: {shown}"
    if recording.kind == "image_features":  # different images may well have the same probabilities
        yield from map(str, shared_images.find(sets, lambda images: list(map(images.identify, range(len(images))))))


def image_set(recorded: RecordedSet) -> ImageSet:
    """Return recorded samples as an image set without images, which are told by their ids and rows."""

    def load(index: int) -> Image.Image:
        raise InputError(f"sample {recorded.ids[index]!r} of {recorded.name} was recorded: there is no image")

    def content(index: int) -> str:
        return array_digest(recorded.values[index])

    return ImageSet(
        name=recorded.name,
        ids=list(recorded.ids),
        load=load,
        labels=recorded.labels,
        classes=recorded.among,
        content=content,
    )


def match_rows(name: str, recorded: RecordedSet, images: ImageSet) -> IntArray:
    """Return the rows of a recorded set that hold the samples of an image set.

    Args:
        name: What to call the recorded set in messages.
        recorded: The recorded outputs.
        images: The image set, n samples.

    Returns:
        int64 (n,).

    Raises:
        InputError: Samples are missing, or their labels are others.
    """
    try:
        rows = recorded.rows(images.ids)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    if recorded.labels is not None and images.labels is not None:
        differ = np.flatnonzero(recorded.labels[rows] != images.labels)
        if len(differ):
            first = int(differ[0])
            raise InputError(
                f"{name}: {len(differ)} of {len(images)} labels of {images.name} are not the benchmark's; the first, "
                f"of {images.ids[first]!r}, is {recorded.labels[rows[first]]} and should be {images.labels[first]}"
            )
    return rows
