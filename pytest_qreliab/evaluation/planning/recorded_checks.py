"""Check recorded outputs against the cases and gates of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from pytest_qreliab.config.cases import Case
from pytest_qreliab.config.formats import UNKNOWN, Format
from pytest_qreliab.config.set_names import CALIBRATION, IN_DISTRIBUTION
from pytest_qreliab.config.thresholds import Gate
from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.data.recorded import match_rows
from pytest_qreliab.data.recording import Recording
from pytest_qreliab.errors import InputError
from pytest_qreliab.hashing import file_digest
from pytest_qreliab.metrics import registry
from pytest_qreliab.metrics.definitions import Need, Source
from pytest_qreliab.models.description import ModelDescription
from pytest_qreliab.quantizers.parameters import Parameters
from pytest_qreliab.quantizers.recipe import Quantizer, Recipe

# These need the inside of a model, or other images or prompts than those recorded.
UNRECORDED: frozenset[Need] = frozenset({"local", "negatives", "blocks", "penultimate", "gratings", "weights"})


def refuse_to_load(name: str) -> NoReturn:
    """Raise InputError, because outputs have no model that could be loaded."""
    raise InputError(
        f"{name} holds outputs, no model: what is quantized must be recorded as well (recorded:PATH as the quantizer), "
        "or the file has to say which model it is of (Recording(model=...))"
    )


def describe(recording: Recording, model: Callable[[], ModelDescription]) -> ModelDescription:
    """Describe recorded outputs in the place of a full-precision model.

    Args:
        recording: The outputs, read from a file.
        model: Describes the model that they name, if they name one.
    """
    named = model()
    facts = {**named.facts, "recorded": recording.kind, "outputs": _named_file(recording)}
    if recording.logit_scale is not None:
        facts["recorded logit scale"] = f"{recording.logit_scale:g}"
    return ModelDescription(facts=facts, warnings=named.warnings)


class RecordedOutputs(Parameters):
    """The parameters of a recorded quantizer: they tell its outputs from those of others."""

    outputs: str  # the name of the file, and its digest


def make_recipe(name: str, recording: Recording) -> Recipe:
    """Return the recipe of the quantizer whose outputs were recorded, with nothing known but its bits."""
    bits = UNKNOWN if recording.bits is None else Format.recorded(recording.bits)
    quantizer = Quantizer(
        name="recorded", help="recorded", function="", needs="nothing", read_bits=lambda parameters, scope: bits
    )
    return Recipe(name=name, quantizer=quantizer, parameters=RecordedOutputs(outputs=_named_file(recording)))


def _named_file(recording: Recording) -> str:
    """Return the name and the digest of the file that outputs were read from."""
    return "" if recording.path is None else f"{recording.path.name} {file_digest(recording.path)[:8]}"


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


def lack_of_outputs(metric: str, case: Case, recordings: Mapping[str, Recording], data: Dataset) -> str:
    """Say what recorded outputs lack to tell a metric.

    Args:
        metric: The name of a metric that the benchmark has the data for.
        case: The case that it is measured on.
        recordings: Recorded outputs, by the name of the model or quantizer.
        data: The data of the case's benchmark.

    Returns:
        What is missing and how to mend it; empty if nothing is.
    """
    for name in (case.build.model, case.build.quantizer):
        if name not in recordings:
            continue
        if lack := _lack_of_kind(recordings[name], metric):
            return f"{name} {lack}"
        for image_set in _sets_of(metric, data):
            if image_set not in recordings[name].sets:
                return f"{name} lacks the set {image_set} of {case.benchmark}; record it"
    return ""


def check_samples(gates: Sequence[Gate], case: Case, recordings: Mapping[str, Recording], data: Dataset) -> None:
    """Check that the samples of a case's gates were recorded.

    Args:
        gates: The gates of the case that are judged.
        case: The case to check.
        recordings: Recorded outputs, by the name of the model or quantizer.
        data: The data of the case's benchmark.

    Raises:
        InputError: Samples are missing or have other labels.
    """
    needed = dict.fromkeys(name for gate in gates for name in _sets_of(gate.metric, data))
    for name in (case.build.model, case.build.quantizer):
        if name in recordings:
            for image_set in needed:
                match_rows(name, recordings[name].sets[image_set], data.sets[image_set])


def _sets_of(metric: str, data: Dataset) -> list[str]:
    """Return the full names of a metric's image sets."""
    sets = [IN_DISTRIBUTION, *registry.image_sets(metric, data.sets)]
    return [*sets, CALIBRATION] if registry.lookup(metric).needs & {"labels", "calibration"} else sets


def _lack_of_kind(recording: Recording, metric: str) -> str:
    """Say why such outputs cannot tell a metric, if they cannot."""
    wanted = registry.lookup(metric)
    if wanted.needs & UNRECORDED or "patches" in wanted.reads:
        return "holds outputs, and this takes the model itself"
    missing = wanted.reads - _sources(recording)
    if not missing:
        return ""
    if missing == {"cosines"}:
        mend = ["record logit_scale"]
        others = [name for name in registry.with_other_scores(metric) if _is_read_off(recording, name)]
        mend += [f"gate {' or '.join(others)}"] if others else []
        return f"holds {recording.kind} without their logit_scale, which this needs; {', or '.join(mend)}"
    kind = "image_features" if "features" in missing else "logits"
    return f"holds {recording.kind}; this needs {kind}: record those"


def _is_read_off(recording: Recording, metric: str) -> bool:
    """Return whether outputs tell a metric without anything that is prepared for it."""
    wanted = registry.lookup(metric)
    return not wanted.needs and wanted.reads <= _sources(recording)


def _sources(recording: Recording) -> frozenset[Source]:
    """Return what metrics can read of recorded outputs."""
    if recording.kind == "image_features":
        return frozenset({"logits", "cosines", "features"})
    logits: frozenset[Source] = frozenset({"logits"} if recording.kind == "logits" else ())
    return logits if recording.logit_scale is None else logits | {"cosines"}
