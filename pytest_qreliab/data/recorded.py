"""Outputs recorded elsewhere, in the place of a model: their samples as image sets, and their embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pytest_qreliab.config.benchmark import RECORDED, Benchmark
from pytest_qreliab.config.sources import Recorded
from pytest_qreliab.data.dataset import CALIBRATION, IN_DISTRIBUTION, OOD, Dataset
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.data.recording import RecordedSet, Recording
from pytest_qreliab.errors import InputError


def load(name: str, folder: Path | None = None) -> Recording:
    """The outputs of `recorded:PATH`, relative to `folder`. Raises InputError for a file that cannot be used."""
    return Recording.load((folder or Path.cwd()) / Path(name.removeprefix(RECORDED)).expanduser())


def data(benchmark: Benchmark) -> Dataset:
    """A benchmark of what a file of recorded outputs holds. Raises InputError with file and line."""
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
    seed, limit = benchmark.definition.seed, source.limit
    sets = {name: _image_set(name, found) for name, found in recording.sets.items()}
    return Dataset(
        tuple(recording.classes),
        (),
        sets.pop(IN_DISTRIBUTION).sampled(limit, seed),
        sets.pop(CALIBRATION, None),
        {name.split(".", 2)[2]: images for name, images in sets.items() if name.startswith(OOD)},
        frozenset(name.split(".", 2)[2] for name in sets if name.startswith(f"{OOD}near.")),
        (),
        {name: images for name, images in sets.items() if not name.startswith(OOD)},
        recorded=True,
    )


def _image_set(name: str, found: RecordedSet) -> ImageSet:
    def load(index: int) -> Image.Image:
        raise InputError(f"sample {found.ids[index]!r} of {name} was recorded: there is no image")

    return ImageSet(name, list(found.ids), load, found.labels, found.among)


def rows(name: str, found: RecordedSet, images: ImageSet) -> npt.NDArray[np.int64]:
    """Where the samples of an image set are among those recorded. Raises InputError for missing ones, other labels."""
    try:
        places = found.rows(images.ids)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    if found.labels is not None and images.labels is not None:
        differ = np.flatnonzero(found.labels[places] != images.labels)
        if len(differ):
            first = int(differ[0])
            raise InputError(
                f"{name}: {len(differ)} of {len(images)} labels of {images.name} are not the benchmark's; the first, "
                f"of {images.ids[first]!r}, is {found.labels[places[first]]} and should be {images.labels[first]}"
            )
    return places
