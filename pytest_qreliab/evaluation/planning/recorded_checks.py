"""Check recorded outputs against the cases and gates of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from pytest_qreliab.config.cases import Bits, Case
from pytest_qreliab.config.thresholds import Gate
from pytest_qreliab.data.dataset import CALIBRATION, IN_DISTRIBUTION, Dataset
from pytest_qreliab.data.recorded import rows
from pytest_qreliab.data.recording import Recording
from pytest_qreliab.errors import InputError
from pytest_qreliab.metrics import registry
from pytest_qreliab.quantizers.recipe import Quantizer

FULL = Bits(32)  # of outputs that do not say how many bits made them
# What is seen inside of a model, or with other images or prompts than those recorded.
UNRECORDED: frozenset[registry.Need] = frozenset({"local", "negatives", "blocks", "penultimate", "gratings", "weights"})


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


def check(case: Case, recordings: Mapping[str, Recording], data: Dataset, rescale: bool) -> None:
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


def check_sets(gates: Sequence[Gate], case: Case, recordings: Mapping[str, Recording], data: Dataset) -> None:
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


def recording_without(metric: str, case: Case, recordings: Mapping[str, Recording]) -> str | None:
    """The first of a case's recorded outputs that a metric cannot be had from, whatever the samples; None for none."""
    for name in (case.build.model, case.build.quantizer):
        if name in recordings and not _recordable(recordings[name], metric):
            return name
    return None


def _recordable(recording: Recording, metric: str) -> bool:
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
