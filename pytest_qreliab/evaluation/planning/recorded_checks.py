"""Check recorded outputs against the cases and gates of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from pytest_qreliab.config.cases import Bits, Case
from pytest_qreliab.config.set_names import CALIBRATION, IN_DISTRIBUTION
from pytest_qreliab.config.thresholds import Gate
from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.data.recorded import match_rows
from pytest_qreliab.data.recording import Recording
from pytest_qreliab.errors import InputError
from pytest_qreliab.metrics import registry
from pytest_qreliab.metrics.definitions import Need, Source
from pytest_qreliab.quantizers.recipe import Quantizer

FULL = Bits(32)  # stands for the bits of outputs that do not tell them
# These need the inside of a model, or other images or prompts than those recorded.
UNRECORDED: frozenset[Need] = frozenset({"local", "negatives", "blocks", "penultimate", "gratings", "weights"})


def refuse_to_load(name: str) -> NoReturn:
    """Raise InputError, because outputs have no model that could be loaded."""
    raise InputError(
        f"{name} holds outputs, no model: what is quantized must be recorded as well (recorded:PATH as the quantizer), "
        "or the file has to say which model it is of (Recording(model=...))"
    )


def make_quantizer(recording: Recording) -> Quantizer:
    """Return the quantizer whose outputs were recorded, with nothing known but its bits."""
    bits = FULL if recording.bits is None else Bits.parse(recording.bits)
    assert isinstance(bits, Bits)
    return Quantizer(
        name="recorded", help="recorded", function="", needs="nothing", read_bits=lambda parameters, scope: bits
    )


def check_case(case: Case, recordings: Mapping[str, Recording], data: Dataset, rescale: bool) -> None:
    """Check that recorded outputs, case and benchmark go together, whatever image sets are gated.

    Args:
        case: The case to check.
        recordings: Recorded outputs, by the name of the model or quantizer.
        data: The data of the case's benchmark.
        rescale: Whether the logit scale is refitted.

    Raises:
        InputError: A model is missing that has to run, or the classes differ.
    """
    given = {name: recordings[name] for name in (case.build.model, case.build.quantizer) if name in recordings}
    if data.recorded and len(given) < 2 and case.build.model != case.build.quantizer:
        raise InputError(
            f"{case.id}: the benchmark {case.benchmark!r} holds recorded samples and no images, so that both the model "
            "and the quantizer must be recorded:PATH"
        )
    model = recordings.get(case.build.model)
    if rescale and model is not None:
        raise InputError(f"{case.id}: +rescale needs the model; gate rescaled.NAME, which takes recorded outputs too")
    if model is not None and model.model is None and case.build.quantizer not in recordings:
        refuse_to_load(case.build.model)
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
    """Check that the samples of a case's gates were recorded.

    Args:
        gates: The gates of the case that can be measured.
        case: The case to check.
        recordings: Recorded outputs, by the name of the model or quantizer.
        data: The data of the case's benchmark.

    Raises:
        InputError: Samples are missing or have other labels.
    """
    needed: dict[str, str] = {}
    for gate in gates:
        sets = [IN_DISTRIBUTION, *registry.image_sets(gate.metric, data.sets)]
        if registry.lookup(gate.metric).needs & {"labels", "calibration"}:
            sets.append(CALIBRATION)
        needed.update({name: gate.metric for name in sets if name not in needed})
    for name in (case.build.model, case.build.quantizer):
        if name not in recordings:
            continue
        for image_set, metric in needed.items():
            if image_set not in recordings[name].sets:
                raise InputError(f"{name} lacks the set {image_set} of {case.benchmark}, which {metric} is measured on")
            match_rows(name, recordings[name].sets[image_set], data.sets[image_set])


def recording_without(metric: str, case: Case, recordings: Mapping[str, Recording]) -> str | None:
    """Return the first of a case's recorded outputs that cannot tell a metric, whatever its samples.

    Args:
        metric: The name of a metric.
        case: The case that it is measured on.
        recordings: Recorded outputs, by the name of the model or quantizer.

    Returns:
        The name of the outputs, None if all can tell it.
    """
    for name in (case.build.model, case.build.quantizer):
        if name in recordings and not _recordable(recordings[name], metric):
            return name
    return None


def _recordable(recording: Recording, name: str) -> bool:
    metric = registry.lookup(name)
    return not metric.needs & UNRECORDED and metric.reads <= _sources(recording)


def _sources(recording: Recording) -> frozenset[Source]:
    """Return what metrics can read of recorded outputs."""
    if recording.kind == "image_features":
        return frozenset({"logits", "cosines", "features"})
    logits: frozenset[Source] = frozenset({"logits"} if recording.kind == "logits" else ())
    return logits if recording.logit_scale is None else logits | {"cosines"}
