"""What becomes of each gate of a thresholds file: it is judged, refused, or skipped as the file says."""

import re
from functools import cache

import numpy as np
import pytest

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.config.cases import expand
from pytest_qreliab.config.settings import resolve
from pytest_qreliab.config.thresholds import Thresholds
from pytest_qreliab.data import loading
from pytest_qreliab.data.recording import Recording
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.planning.case_gates import resolve_gates
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.evaluation.planning.make_plan import make_plan as plan_of_settings
from pytest_qreliab.evaluation.planning.parse_settings import parse_settings
from pytest_qreliab.metrics import registry

PARTS = {
    "negatives": "negatives: [apple, chair]\n",
    "calibration": "calibration: {source: digits, part: train, limit: 100}\n",
    "shift": "covariate_shift: {printed: {source: printed-digits, limit: 40}}\n",
    "corruption": "corruptions: {kinds: [fog], severities: [3], limit: 40}\n",
    "spurious": "spurious:\n  common: {source: digits, part: test, colour: common, limit: 40}\n"
    "  counter: {source: digits, part: test, colour: counter, limit: 40}\n",
    "ood": "ood:\n  near: {letters: {source: letters, limit: 40}}\n"
    "  far: {photos: {source: photo-patches, limit: 40}}\n",
}
HEAD = """\
version: 1
classes: [zero, one, two, three, four, five, six, seven, eight, nine]
in_distribution: {source: digits, part: test, limit: 60}
"""
LACKS = {
    "everything": (),
    **{f"no {part}": (part,) for part in PARTS},
    "images alone": tuple(PARTS),
}
RECORDED = {
    "features": {"kind": "image_features", "scale": 100.0},
    "logits": {"kind": "logits", "scale": 100.0},
    "logits without scale": {"kind": "logits", "scale": None},
    "probabilities": {"kind": "probabilities", "scale": 100.0},
    "probabilities without scale": {"kind": "probabilities", "scale": None},
    "logits of one set": {"kind": "logits", "scale": None, "sets": ("in_distribution",)},
}
PER_SET = (
    *("recall.nine", "shift.nll.printed", "corruption.ece.fog", "corruption.ece.fog.3", "spurious.accuracy.common"),
    *("ood.fpr95.msp.letters", "ood.fpr95.msp.near", "spectral.high_band_energy.2", "spectral.cka.text"),
)
WRONG = (
    *("recall.9", "shift.nll.print", "corruption.ece.snow", "corruption.ece.fog.4", "spurious.accuracy.night"),
    *("ood.fpr95.msp.lettres", "ood.auroc.msp.photo", "spectral.high_band_energy.5"),
)
LIMITS = {"higher": "max_drop", "lower": "max_rise", "neither": "max_change"}


def record(data, path, *, kind, scale, sets=None):
    """Record random outputs for all sets of a benchmark, or for some."""
    rng, width = np.random.default_rng(0), len(data.classes)
    text = rng.normal(size=(width, 16)) if kind == "image_features" else None
    recording = Recording(data.classes, scale, text)
    for name, images in data.sets.items():
        if sets is None or name in sets:
            values = rng.normal(size=(len(images), 16 if kind == "image_features" else width))
            if kind == "probabilities":
                values = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
            recording.add(name, list(images.ids), labels=images.labels, **{kind: values})
    recording.save(path)
    return f"recorded:{path}"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Settings by the shape of the benchmark, and of recorded outputs."""
    folder = tmp_path_factory.mktemp("shapes")
    found = {}
    for name, lacks in LACKS.items():
        path = folder / f"{name.replace(' ', '-')}.yaml"
        path.write_text(HEAD + "".join(text for part, text in PARTS.items() if part not in lacks))
        found[name] = {"benchmarks": str(path), "bits": "w8"}
    (full,) = settings_of(found["everything"])[1].values()
    for name, given in RECORDED.items():
        of = record(full, folder / f"{name.replace(' ', '-')}.npz", **given)
        found[f"{name}, on images"] = {**found["everything"], "models": of, "quantizers": of}
        found[name] = {"benchmarks": of, "models": of, "quantizers": of}
    return found


@cache
def data_of(path):
    return loading.load(Benchmark.load(path))


def settings_of(given):
    parsed = parse_settings(resolve(lambda ini: given.get(ini.removeprefix("qreliab_")), lambda ini: None), Catalog())
    return parsed, {name: data_of(given["benchmarks"]) for name in parsed.benchmarks}


SHAPES = [*LACKS, *RECORDED, *(f"{name}, on images" for name in RECORDED)]


def gates_of(given, thresholds):
    """The gates of the only case of some settings."""
    parsed, data = settings_of(given)
    (case,) = expand(parsed.models, parsed.quantizations, parsed.benchmarks)
    return resolve_gates({case: Thresholds.load(str(thresholds))}, parsed, data, with_drift=False)[case]


def gates_file(names, more=""):
    return "".join(f"{name}: {{{LIMITS[registry.lookup(name).better]}: 1.0e+9{more}}}\n" for name in names)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_gate_vanishes_whatever_the_metric_and_the_benchmark(shapes, write_thresholds, shape):
    names = [*registry.names(), *PER_SET, *WRONG]

    def resolved(text):
        return gates_of(shapes[shape], write_thresholds(text))

    found = resolved(gates_file(names, ", where_missing: skip"))
    judged = [gate.metric for gate in found.judged]
    assert sorted([*judged, *found.skipped]) == sorted(names)
    assert {"accuracy", "ece", "kl", "recall.nine"} <= {*judged}
    assert found.skipped.keys() >= {*WRONG}
    if shape == "everything":
        assert found.skipped.keys() == {*WRONG}
    assert [gate.metric for gate in resolved(gates_file(judged)).judged] == judged
    with pytest.raises(InputError) as refused:
        resolved(gates_file(names))
    lines = str(refused.value).splitlines()
    for line, (name, reason) in zip(lines, found.skipped.items(), strict=True):
        where = rf"\S*limits\.yaml:{3 + names.index(name)}"
        said = rf"{where}: {re.escape(name)} cannot be judged: {re.escape(reason)}; or write `where_missing: skip`.*"
        assert re.fullmatch(said, line)


@pytest.mark.parametrize("shape", ["everything", "images alone", *RECORDED])
def test_what_is_planned_gets_a_verdict(shapes, make_plan, write_thresholds, shape):
    from pytest_qreliab.evaluation.evaluator import Evaluator

    names = [*registry.names(), *PER_SET]
    limits = write_thresholds(gates_file(names, ", where_missing: skip"))
    plan = make_plan(**shapes[shape], thresholds=str(limits))
    (case,) = plan.cases
    result = Evaluator(plan).result(case)
    judged = {verdict.gate.metric for verdict in result.verdicts}
    assert judged | result.skipped.keys() == set(names)
    assert not judged & result.skipped.keys()
    # What runs here shows all that its benchmark has images for, and random outputs are judged as well.
    assert result.skipped == plan.skipped[case]
    assert not [verdict.problem for verdict in result.verdicts if verdict.problem]


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("recall.9: {max_drop: 1}", "no class '9' (label 9 is 'nine'); valid: eight, five"),
        ("recall.nin: {min: 0.1}", "no class 'nin'; did you mean 'nine'?; valid: eight"),
        ("recall.nin: {max_drop: 1, max_drift: 1}", "no class 'nin'; did you mean 'nine'?"),
        ("ood.auroc.msp.lettres: {max_drop: 1}", "no ood images 'lettres'; did you mean 'letters'?; valid: far, lett"),
        ("shift.accuracy.print: {max_drop: 1}", "no shift images 'print'; did you mean 'printed'?; valid: printed"),
        ("corruption.ece.fgo.3: {max_rise: 1}", "no corruption images 'fgo.3'; did you mean 'fog.3'?; valid: 3, fog"),
        ("corruption.ece.4: {max_rise: 1}", "no corruption images '4'; valid: 3, fog, fog.3"),
        ("spurious.accuracy.conter: {max_drop: 1}", "no spurious images 'conter'; did you mean 'counter'?"),
    ],
)
def test_a_wrong_part_of_a_name_is_told_with_the_nearest_right_one(shapes, write_thresholds, gate, said):
    for text in (gate, f"accuracy: {{max_drop: 1}}\n{gate}"):
        with pytest.raises(InputError) as refused:
            gates_of(shapes["everything"], write_thresholds(text))
        line = 3 + text.count("\n")
        assert re.search(rf"limits\.yaml:{line}: \S+ cannot be judged: benchmark 'everything' has ", str(refused.value))
        assert said in str(refused.value)


def test_a_block_that_the_model_has_not_is_told_before_the_run(shapes, write_thresholds):
    gates = "spectral.high_band_energy.4: {max_change: 1}\nspectral.map_error.5: {max_rise: 1}"
    with pytest.raises(InputError) as refused:
        gates_of(shapes["images alone"], write_thresholds(gates))
    (line,) = str(refused.value).splitlines()
    said = "spectral.map_error.5 cannot be judged: the image tower of tiny-digits has no block 5; valid: 1 to 4; or"
    assert re.search(rf"limits\.yaml:4: {re.escape(said)}", line)


def test_an_override_is_checked_where_it_holds(shapes, make_plan, write_thresholds):
    limits = write_thresholds("accuracy: {max_drop: 1}\n")
    limits.write_text(
        f"{limits.read_text()}overrides: [{{match: {{bits: w4}}, gates: {{recall.nin: {{max_drop: 1}}}}}}]\n"
    )
    given = {**shapes["everything"], "thresholds": str(limits)}
    assert make_plan(**given).gates
    with pytest.raises(InputError, match=r"limits\.yaml:4: recall.nin cannot be judged"):
        make_plan(**{**given, "bits": "w8,w4"})


def test_classes_with_dots_in_their_names(shapes, make_plan, write_thresholds, tmp_path):
    path = tmp_path / "dots.yaml"
    path.write_text(HEAD.replace("nine", "n.i.ne"))
    given = {"benchmarks": str(path), "bits": "w8"}
    plan = make_plan(**given, thresholds=str(write_thresholds("recall.n.i.ne: {max_drop: 1}")))
    assert [gate.metric for gate in plan.gates[plan.cases[0]]] == ["recall.n.i.ne"]
    with pytest.raises(InputError, match=r"no class 'n\.ine'; did you mean 'n\.i\.ne'\?"):
        make_plan(**given, thresholds=str(write_thresholds("recall.n.ine: {max_drop: 1}")))


def test_a_class_without_samples_is_told(shapes, make_plan, write_thresholds, tmp_path):
    path = tmp_path / "few.yaml"
    path.write_text(HEAD.replace("limit: 60", "limit: 60").replace("nine]", "nine, ten]"))
    gate = "accuracy: {max_drop: 1}\nrecall.ten: {max_drop: 1%s}"
    given = {"benchmarks": str(path), "bits": "w8"}
    said = "none of the 60 in-distribution samples of benchmark 'few' is of the class 'ten'"
    with pytest.raises(InputError, match=rf"limits\.yaml:4: recall.ten cannot be judged: {said}"):
        make_plan(**given, thresholds=str(write_thresholds(gate % "")))
    plan = make_plan(**given, thresholds=str(write_thresholds(gate % ", where_missing: skip")))
    assert plan.skipped[plan.cases[0]] == {"recall.ten": said}


def test_a_gate_of_one_benchmark_among_several(shapes, make_plan, write_thresholds):
    given = {"benchmarks": f"{shapes['everything']['benchmarks']},{shapes['no ood']['benchmarks']}", "bits": "w8"}
    plain = write_thresholds("accuracy: {max_drop: 1}\nood.auroc: {max_drop: 1}")
    with pytest.raises(
        InputError, match=r"limits\.yaml:4: ood.auroc .* 'no-ood' has no ood images; add `ood:` to .*no-ood"
    ) as refused:
        make_plan(**given, thresholds=str(plain))
    assert str(refused.value).endswith(
        "beside its limit, or have it under `overrides:` for the benchmarks that it is of"
    )
    override = "version: 1\ngates: {accuracy: {max_drop: 1}}\noverrides:\n  - match: {benchmark: everything}\n"
    plain.write_text(f"{override}    gates: {{ood.auroc: {{max_drop: 1}}}}\n")
    plan = make_plan(**given, thresholds=str(plain))
    assert [len(plan.gates[case]) for case in plan.cases] == [2, 1]
    assert not any(plan.skipped.values())


def test_every_gate_that_cannot_be_judged_is_told_at_once(shapes, make_plan, write_thresholds):
    limits = write_thresholds("recall.9: {max_drop: 1}\nshift.nll: {max_rise: 1}\nood.auroc: {max_drop: 1}")
    with pytest.raises(InputError) as refused:
        make_plan(**{**shapes["images alone"], "bits": "w8,w4"}, thresholds=str(limits))
    lines = str(refused.value).splitlines()
    assert [re.search(r"limits\.yaml:(\d): (\S+) ", line).groups() for line in lines] == [
        ("3", "recall.9"), ("4", "shift.nll"), ("5", "ood.auroc"),
    ]  # fmt: skip


def test_a_case_of_which_nothing_can_be_judged_is_refused(shapes, make_plan, write_thresholds):
    limits = write_thresholds("ood.auroc: {max_drop: 1, where_missing: skip}")
    with pytest.raises(InputError, match=r"limits\.yaml:2: none of the gates can be judged for .*: ood.auroc: benchm"):
        make_plan(**shapes["no ood"], thresholds=str(limits))


def test_a_metric_with_no_limit_but_on_the_drift_needs_a_snapshot(shapes, write_thresholds):
    limits = write_thresholds("accuracy: {max_drop: 1, max_drift: 1}\nece: {max_drift: 1}")
    given = {**shapes["images alone"], "thresholds": str(limits)}
    settings = resolve(lambda ini: given.get(ini.removeprefix("qreliab_")), lambda ini: None)
    with pytest.raises(InputError, match=r"limits\.yaml:4: ece .*max_drift, which needs --qreliab-snapshot=DIR"):
        plan_of_settings(settings, Catalog())
    plan = plan_of_settings(settings, Catalog(), with_drift=True)
    assert [gate.metric for gate in plan.drift[plan.cases[0]]] == ["accuracy", "ece"]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_default_thresholds_go_with_every_shape(shapes, shape):
    found = gates_of(shapes[shape], "default")
    judged = {gate.metric for gate in found.judged}
    assert {"accuracy", "balanced_accuracy", "nll", "ece", "confidence_gap"} <= judged
    assert len(judged) + len(found.skipped) == 14
    assert bool(found.skipped) == (shape not in ("everything", "no negatives", "no calibration"))


def test_recorded_logits_without_a_scale_name_their_remedies(shapes, write_thresholds):
    limits = write_thresholds("accuracy: {max_drop: 1}\nood.auroc: {max_drop: 0.02}")
    with pytest.raises(InputError) as refused:
        gates_of(shapes["logits without scale"], limits)
    assert re.search(
        r"limits\.yaml:4: ood\.auroc cannot be judged: recorded:\S+ holds logits without their logit_scale, which this "
        r"needs; record logit_scale, or gate ood\.auroc\.msp or ood\.auroc\.maxlogit or ood\.auroc\.energy; or write",
        str(refused.value),
    )


@pytest.mark.parametrize(
    ("shape", "metric", "reason"),
    [
        ("logits of one set", "rescaled.nll", "there are no calibration images; record them as calibration"),
        ("logits of one set", "shift.nll", "has no shift images; record them as shift.NAME"),
        ("features", "ood.auroc.neglabel", "holds outputs, and this takes the model itself"),
    ],
)
def test_what_a_recording_lacks_is_to_be_recorded_if_it_can_be(shapes, write_thresholds, shape, metric, reason):
    gates = gates_file(["accuracy"]) + gates_file([metric], ", where_missing: skip")
    assert gates_of(shapes[shape], write_thresholds(gates)).skipped[metric].endswith(reason)


def test_labels_that_a_recording_lacks_are_to_be_recorded(tmp_path, write_thresholds):
    recording = Recording(["cat", "dog"], 10.0)
    recording.add("in_distribution", range(4), labels=[0, 1, 0, 1], logits=np.eye(2)[[0, 1, 0, 1]] * 3)
    recording.add("calibration", range(4), logits=np.eye(2)[[0, 1, 0, 1]] * 3)
    path = f"recorded:{recording.save(tmp_path / 'r.npz')}"
    with pytest.raises(InputError, match="it needs calibration images with labels; record them; or write"):
        gates_of(
            dict.fromkeys(("benchmarks", "models", "quantizers"), path), write_thresholds("rescaled.nll: {max: 9}")
        )
