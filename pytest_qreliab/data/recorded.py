"""Outputs recorded elsewhere, in the place of a model: their samples as image sets, and their embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from PIL import Image

from pytest_qreliab.config.benchmark import RECORDED, Benchmark
from pytest_qreliab.config.cases import Bits, Case
from pytest_qreliab.config.sources import Recorded
from pytest_qreliab.config.thresholds import Gate
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.data.loading import CALIBRATION, IN_DISTRIBUTION, OOD, Data
from pytest_qreliab.data.recording import RecordedSet, Recording
from pytest_qreliab.errors import InputError
from pytest_qreliab.metrics import registry
from pytest_qreliab.quantizers import Quantizer

FULL = Bits(32)  # of outputs that do not say how many bits made them
# What is seen inside of a model, or with other images or prompts than those recorded.
UNRECORDED: frozenset[registry.Need] = frozenset({"local", "negatives", "blocks", "penultimate", "gratings", "weights"})


def load(name: str, folder: Path | None = None) -> Recording:
    """The outputs of `recorded:PATH`, relative to `folder`. Raises InputError for a file that cannot be used."""
    return Recording.load((folder or Path.cwd()) / Path(name.removeprefix(RECORDED)).expanduser())


def no_model(name: str) -> NoReturn:
    """Raise InputError: of outputs there is no model to load."""
    raise InputError(
        f"{name} holds outputs, no model: what is quantized must be recorded as well (recorded:PATH as the quantizer), "
        "or the file has to say which model it is of (Recording(model=...))"
    )


def quantizer(recording: Recording) -> Quantizer:
    """The quantizer whose outputs were recorded, of which nothing is known but the bits."""
    bits = FULL if recording.bits is None else Bits.parse(recording.bits)
    assert isinstance(bits, Bits)
    return Quantizer("recorded", "recorded", "", needs="nothing", read_bits=lambda parameters, scope: bits)


def data(benchmark: Benchmark) -> Data:
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
    return Data(
        tuple(recording.classes),
        (),
        sets.pop(IN_DISTRIBUTION).drawn(limit, seed),
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


def check(case: Case, recordings: Mapping[str, Recording], data: Data, rescale: bool) -> None:
    """Raise InputError where recorded outputs and benchmark do not go together, as far as that is no matter of sets."""
    given = {name: recordings[name] for name in (case.build.model, case.build.quantizer) if name in recordings}
    if data.recorded and len(given) < 2 and case.build.model != case.build.quantizer:
        raise InputError(
            f"{case.id}: the benchmark {case.benchmark!r} holds recorded samples and no images, so that both the model "
            "and the quantizer must be recorded:PATH"
        )
    if rescale and case.build.model in recordings:
        raise InputError(f"{case.id}: +rescale needs the model; gate rescaled.NAME, which takes recorded outputs too")
    live = case.build.quantizer not in recordings
    if live and case.build.model in recordings and recordings[case.build.model].model is None:
        no_model(case.build.model)
    for name, recording in given.items():
        if tuple(recording.classes) != data.classes:
            differing = next(
                (pair for pair in zip(recording.classes, data.classes, strict=False) if pair[0] != pair[1]),
                (f"{len(recording.classes)} classes", f"{len(data.classes)} classes"),
            )
            raise InputError(
                f"{name}: its classes are not those of {case.benchmark}: {differing[0]!r} is {differing[1]!r} there; "
                f"the same names in the same order are needed, or --qreliab-benchmarks={name}"
            )


def check_sets(gates: Sequence[Gate], case: Case, recordings: Mapping[str, Recording], data: Data) -> None:
    """Raise InputError where the samples of a case's gates are not among those recorded, or have other labels."""
    needed: dict[str, str] = {}
    for gate in gates:
        sets = [IN_DISTRIBUTION, *registry.image_sets(gate.metric, data.sets)]
        if registry.lookup(gate.metric).needs & {"labels", "calibration"}:
            sets.append(CALIBRATION)
        needed.update({of: gate.metric for of in sets if of not in needed})
    for name in (case.build.model, case.build.quantizer):
        if name not in recordings:
            continue
        for of, metric in needed.items():
            if of not in recordings[name].sets:
                raise InputError(f"{name} lacks the set {of} of {case.benchmark}, which {metric} is measured on")
            rows(name, recordings[name].sets[of], data.sets[of])


def cannot_tell(metric: str, case: Case, recordings: Mapping[str, Recording]) -> str | None:
    """The first of a case's recorded outputs that a metric cannot be had from, whatever the samples; None for none."""
    for name in (case.build.model, case.build.quantizer):
        if name in recordings and not _tells(recordings[name], metric):
            return name
    return None


def _tells(recording: Recording, metric: str) -> bool:
    needs = registry.lookup(metric).needs
    parts = registry.canonical(metric).split(".")
    if metric == "spectral.high_band_energy" or needs & UNRECORDED:
        return False
    if recording.kind == "image_features":
        return True
    if metric.startswith("spectral.") or (parts[0] == "ood" and parts[2] in ("knn", "mahalanobis")):
        return False
    if parts[0] == "ood" and parts[2] == "mcm":
        return recording.logit_scale is not None
    return parts[0] != "ood" or recording.kind == "logits" or parts[2] not in ("energy", "maxlogit")


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
