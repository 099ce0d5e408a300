"""From embeddings to verdicts: measurement, comparison, gates, evaluator."""

import dataclasses
import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, roc_auc_score

from pytest_qreliab.cases import Bits, Build, Case
from pytest_qreliab.comparison import Change, compare
from pytest_qreliab.config.thresholds import Gate
from pytest_qreliab.embedding import Embeddings, ImageEmbeddings
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluate import Evaluator
from pytest_qreliab.gates import judge
from pytest_qreliab.measurement import measure
from pytest_qreliab.metrics import registry
from pytest_qreliab.report.result import CheckedResult
from pytest_qreliab.statistics.interval import Interval

N, DIM, CLASSES = 200, 16, 5


def embeddings(noise: float = 0.4, seed: int = 0) -> Embeddings:
    """Features around five class vectors, and two OOD sets around none."""
    fixed, rng = np.random.default_rng(99), np.random.default_rng(seed)
    classifier = fixed.normal(size=(CLASSES, DIM))
    classifier /= np.linalg.norm(classifier, axis=1, keepdims=True)
    labels = fixed.integers(0, CLASSES, N)

    def images(features):
        band = np.abs(features[:, 0]) / np.abs(features).sum(axis=1)
        return ImageEmbeddings(features.astype(np.float32), band.astype(np.float64))

    inside = images(classifier[labels] + noise * rng.normal(size=(N, DIM)))
    outside = {name: images(rng.normal(size=(size, DIM))) for name, size in (("near", 80), ("far", 120))}
    return Embeddings(inside, labels.astype(np.int64), outside, classifier.astype(np.float32), 12.0, 0.0)


def poisoned(where: str, value: float) -> Embeddings:
    found = embeddings()
    if where == "classifier":
        classifier = found.classifier.copy()
        classifier[2, 3] = value
        return dataclasses.replace(found, classifier=classifier)
    target = found.in_distribution if where == "in_distribution" else found.ood[where]
    features, band = target.features.copy(), target.high_band.copy()
    features[7, 3] = band[7] = value
    images = ImageEmbeddings(features, band)
    if where == "in_distribution":
        return dataclasses.replace(found, in_distribution=images)
    return dataclasses.replace(found, ood={**found.ood, where: images})


GATED = ["accuracy", "balanced_accuracy", "nll", "ece", "confidence_gap", "ood.auroc", "ood.fpr95",
         "ood.auroc.energy.near", "spectral.high_band_energy", "spectral.effective_rank"]  # fmt: skip
WANTED = [registry.canonical(name) for name in GATED]


def gates(**limits: float) -> list[Gate]:
    return [
        Gate(name, {"higher": "max_drop", "lower": "max_rise", "neither": "max_change"}[registry.lookup(name).better],
             limits.get("limit", 1e9), "t.yaml:1")
        for name in GATED
    ]  # fmt: skip


def test_a_measurement_agrees_with_sklearn():
    found = embeddings()
    unit = found.in_distribution.features.astype(float)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    logits = 12 * unit @ found.classifier.T.astype(float)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    values = measure(found).values
    predicted = logits.argmax(1)
    assert values["accuracy"] == accuracy_score(found.labels, predicted)
    assert values["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(found.labels, predicted))
    assert values["nll"] == pytest.approx(log_loss(found.labels, probabilities))
    assert values["confidence_gap"] == pytest.approx(probabilities.max(1).mean() - values["accuracy"])
    outside = found.ood["near"].features.astype(float)
    outside_logits = 12 * outside @ found.classifier.T.astype(float) / np.linalg.norm(outside, axis=1, keepdims=True)
    outside_probabilities = np.exp(outside_logits) / np.exp(outside_logits).sum(axis=1, keepdims=True)
    truth = np.concatenate([np.zeros(N), np.ones(80)])
    confidence = np.concatenate([probabilities.max(1), outside_probabilities.max(1)])
    assert values["ood.auroc.msp.near"] == pytest.approx(roc_auc_score(truth, -confidence))
    for score in registry.OOD_SCORES:
        both = [values[f"ood.fpr95.{score}.{name}"] for name in ("near", "far")]
        assert values[f"ood.fpr95.{score}"] == pytest.approx(np.mean(both))


def test_every_metric_has_a_value_and_every_name_a_metric():
    values = measure(embeddings()).values
    assert {registry.canonical(name) for name in registry.names()} <= values.keys()
    assert all(math.isfinite(value) for value in values.values())
    assert all(registry.lookup(name).aspect in registry.ASPECTS for name in values)


def test_a_benchmark_without_ood_sets_has_no_ood_values():
    values = measure(dataclasses.replace(embeddings(), ood={})).values
    assert not [name for name in values if name.startswith("ood")]


def test_identical_models_change_nothing():
    found = measure(embeddings())
    changes = compare(found, found, WANTED, 0.01)
    assert all(change.delta == 0 for change in changes.values())
    for name in WANTED:
        interval = changes[name].interval
        assert interval is None or interval.low <= 0 <= interval.high
    assert all(verdict.passed for verdict in judge(changes, gates(limit=0.5), N, "fail"))


def test_a_much_worse_model_fails_every_gate_of_quality():
    changes = compare(measure(embeddings()), measure(embeddings(noise=3.0)), WANTED, 0.001)
    verdicts = {v.gate.metric: v for v in judge(changes, gates(limit=0.001), N, "estimate")}
    for name in ("accuracy", "balanced_accuracy", "nll", "ood.auroc", "ood.fpr95"):
        assert verdicts[name].outcome == "fail", name
        assert verdicts[name].interval.low > 0.001
        assert verdicts[name].interval.low < verdicts[name].harm < verdicts[name].interval.high


def test_intervals_hold_the_estimate_and_grow_with_confidence():
    b, q = measure(embeddings()), measure(embeddings(noise=0.6, seed=1))
    wide, narrow = compare(b, q, WANTED, 0.001), compare(b, q, WANTED, 0.05)
    for name in WANTED:
        if name == "spectral.effective_rank":
            assert wide[name].interval is None
            continue
        if name != "ece":  # whose bootstrap is biased upwards
            assert narrow[name].interval.low <= narrow[name].delta <= narrow[name].interval.high
        assert wide[name].interval.low < narrow[name].interval.low
        assert wide[name].interval.high > narrow[name].interval.high


def test_intervals_are_made_only_for_what_is_gated():
    found = measure(embeddings())
    changes = compare(found, found, ["accuracy"], 0.01)
    assert [name for name, change in changes.items() if change.interval is not None] == ["accuracy"]


TOUCHED = {
    "in_distribution": set(GATED),
    "classifier": {name for name in GATED if not name.startswith("spectral")},
    "near": {"ood.auroc", "ood.fpr95", "ood.auroc.energy.near"},
    "far": {"ood.auroc", "ood.fpr95"},
}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", TOUCHED)
@pytest.mark.parametrize("which", ["baseline", "quantized"])
@pytest.mark.parametrize("policy", ["estimate", "pass"])
def test_what_is_not_finite_fails_every_gate_it_touches_and_no_other(which, where, value, policy):
    good, bad = measure(embeddings()), measure(poisoned(where, value))
    pair = (bad, good) if which == "baseline" else (good, bad)
    verdicts = judge(compare(*pair, WANTED, 0.01), gates(), N, policy)
    failed = {v.gate.metric for v in verdicts if not v.passed}
    assert failed == TOUCHED[where]
    for verdict in verdicts:
        if not verdict.passed:
            assert verdict.outcome == "fail"
            assert which in verdict.problem
            assert "NaN" in verdict.problem


def test_a_logit_scale_that_is_not_finite_fails_all_but_the_spectrum():
    bad = measure(dataclasses.replace(embeddings(), logit_scale=float("nan")))
    verdicts = judge(compare(measure(embeddings()), bad, WANTED, 0.01), gates(), N, "pass")
    assert {v.gate.metric for v in verdicts if not v.passed} == TOUCHED["classifier"]
    assert all("logit scale" in v.problem for v in verdicts if not v.passed)


def test_a_zero_feature_has_no_direction():
    found = embeddings()
    features = found.in_distribution.features.copy()
    features[3] = 0
    images = ImageEmbeddings(features, found.in_distribution.high_band)
    problems = measure(dataclasses.replace(found, in_distribution=images)).problems
    assert problems["accuracy"] == "NaN, infinity or a zero vector in 1 of 200 in-distribution image features"


def test_a_tower_without_a_patch_map_fails_the_gate_on_it():
    found = embeddings()
    images = ImageEmbeddings(found.in_distribution.features, None)
    measured = measure(dataclasses.replace(found, in_distribution=images))
    (verdict,) = judge(
        compare(measured, measured, [], 0.05), [Gate("spectral.high_band_energy", "max_change", 1, "t:1")], N, "pass"
    )
    assert not verdict.passed
    assert "shows no patch map" in verdict.problem


def test_a_gated_metric_that_was_not_measured_fails():
    (verdict,) = judge({}, [Gate("ood.auroc.mcm.letters", "max_drop", 1.0, "t:1")], N, "pass")
    assert (verdict.outcome, verdict.passed) == ("fail", False)
    assert "does not measure it" in verdict.problem


# Gates


def change(
    metric: str, baseline: float, quantized: float, low: float | None = None, high: float | None = None
) -> dict[str, Change]:
    interval = None if low is None or high is None else Interval(low, high)
    return {metric: Change(metric, baseline, quantized, interval, "by hand", "")}


@pytest.mark.parametrize(
    ("limit", "value", "baseline", "quantized", "low", "high", "outcome", "harm"),
    [
        ("max_drop", 0.05, 0.9, 0.88, -0.04, 0.0, "pass", 0.02),
        ("max_drop", 0.05, 0.9, 0.80, -0.12, -0.08, "fail", 0.10),
        ("max_drop", 0.05, 0.9, 0.86, -0.06, -0.02, "inconclusive", 0.04),
        ("max_drop", 0.05, 0.9, 0.99, 0.08, 0.10, "pass", -0.09),
        ("max_rise", 0.05, 0.1, 0.2, 0.08, 0.12, "fail", 0.10),
        ("max_rise", 0.05, 0.1, 0.0, -0.12, -0.08, "pass", -0.10),
        ("max_change", 0.05, 0.1, 0.0, -0.12, -0.08, "fail", 0.10),
        ("max_change", 0.05, 0.1, 0.1, -0.04, 0.03, "pass", 0.0),
        ("max_change", 0.05, 0.1, 0.1, -0.04, 0.06, "inconclusive", 0.0),
        ("max_relative_change", 0.05, 10.0, 10.2, 0.1, 0.3, "pass", 0.02),
        ("max_relative_change", 0.05, 10.0, 9.0, -1.2, -0.8, "fail", 0.10),
        ("min", 0.5, 0.9, 0.4, -0.6, -0.4, "fail", 0.1),
        ("min", 0.5, 0.9, 0.5, -0.6, -0.4, "pass", 0.0),
        ("max", 0.5, 0.1, 0.4, 0.2, 0.4, "pass", -0.1),
        ("max", 0.5, 0.1, 0.6, 0.2, 0.4, "fail", 0.1),
    ],
)
def test_each_limit(limit, value, baseline, quantized, low, high, outcome, harm):
    found = change("accuracy", baseline, quantized, low, high)
    (verdict,) = judge(found, [Gate("accuracy", limit, value, "t:1")], 100, "estimate")
    assert verdict.outcome == outcome
    assert verdict.harm == pytest.approx(harm)
    assert verdict.passed == (outcome != "fail")


def test_no_limit_is_above_a_relative_change_from_zero():
    gate = Gate("spectral.effective_rank", "max_relative_change", 1e9, "t:1")
    assert judge(change("spectral.effective_rank", 0.0, 0.0), [gate], 10, "pass")[0].passed
    assert not judge(change("spectral.effective_rank", 0.0, 1e-9), [gate], 10, "pass")[0].passed


def test_a_harm_of_exactly_the_limit_passes_despite_binary_fractions():
    found = change("accuracy", 0.9, 0.9 - 0.01)
    assert 0.9 - (0.9 - 0.01) > 0.01
    assert judge(found, [Gate("accuracy", "max_drop", 0.01, "t:1")], 100, "fail")[0].passed


@pytest.mark.parametrize(("policy", "quantized", "passed"), [("estimate", 0.86, True), ("estimate", 0.84, False),
                                                            ("pass", 0.84, True), ("fail", 0.86, False)])  # fmt: skip
def test_the_policy_decides_what_is_inconclusive(policy, quantized, passed):
    found = change("accuracy", 0.9, quantized, quantized - 0.9 - 0.02, quantized - 0.9 + 0.02)
    (verdict,) = judge(found, [Gate("accuracy", "max_drop", 0.05, "t:1")], 100, policy)
    assert (verdict.outcome, verdict.passed) == ("inconclusive", passed)
    assert verdict.settling_n == 400  # half the width would do


# The evaluator


def test_the_embedded_model_is_a_fair_subject(digits_result):
    """At least 97 % top-1 on images never trained on, no error-free saturation, OOD sets neither trivial nor lost."""
    changes = digits_result.changes
    assert digits_result.samples == 898
    assert 0.97 <= changes["accuracy"].baseline < 1.0
    assert 0.6 < changes["ood.auroc.mcm.letters"].baseline < 0.99
    assert digits_result.coverage.weights == digits_result.coverage.flops == 1.0
    assert all(verdict.passed for verdict in digits_result.verdicts)


def test_results_repeat_to_the_last_digit_in_any_order(make_plan, small_benchmark):
    plan = make_plan(bits="3,w4", benchmarks=str(small_benchmark))
    forwards, backwards = Evaluator(plan), Evaluator(plan)
    first = {case: forwards.result(case) for case in plan.cases}
    second = {case: backwards.result(case) for case in reversed(plan.cases)}
    assert first == second


def test_bits_that_are_too_few_fail(make_plan, small_benchmark):
    plan = make_plan(bits="w2", benchmarks=str(small_benchmark))
    result = Evaluator(plan).result(plan.cases[0])
    assert {verdict.gate.metric for verdict in result.of("accuracy") if verdict.outcome == "fail"} == {
        "accuracy",
        "balanced_accuracy",
    }


def test_each_model_is_built_once_and_at_most_one_is_kept(make_plan, small_benchmark, monkeypatch):
    plan = make_plan(bits="w4,w8", benchmarks=f"digits,{small_benchmark}", scopes="vision,both")
    evaluator = Evaluator(plan)
    built = []
    build = Evaluator._build
    monkeypatch.setattr(Evaluator, "_build", lambda self, full, b: built.append(b) or build(self, full, b))
    kept = [evaluator.quantized(case.build) for case in plan.cases]
    assert len(built) == 4
    assert len({id(clip) for clip in kept}) == 4
    assert evaluator._quantized[1] is kept[-1]


def test_a_quantizer_that_covers_less_than_it_declares_is_an_error(make_plan, small_benchmark, monkeypatch):
    from pytest_qreliab.quantizers import ranges

    monkeypatch.setattr(ranges, "minmax", lambda clip, request: clip.copy())
    plan = make_plan(bits="w4", benchmarks=str(small_benchmark))
    with pytest.raises(InputError, match=r"minmax w4 on tiny-digits declares to quantize 100.0% .* covers 0.0%"):
        Evaluator(plan).result(plan.cases[0])


def test_an_unusable_model_says_the_same_each_time(make_plan, small_benchmark, tmp_path):
    from safetensors.torch import save_file

    save_file({}, tmp_path / "none.safetensors")
    plan = make_plan(models=f"RN50/{tmp_path}/none.safetensors", benchmarks=str(small_benchmark))
    evaluator = Evaluator(plan)
    messages = set()
    for case in plan.cases:
        with pytest.raises(InputError, match="cannot be loaded") as caught:
            evaluator.result(case)
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_a_check_of_an_aspect_without_gates_is_no_pass(make_plan, small_benchmark, write_thresholds):
    plan = make_plan(bits="w8", benchmarks=str(small_benchmark), thresholds=str(write_thresholds("ece: {max: 1}")))
    result = CheckedResult(**vars(Evaluator(plan).result(plan.cases[0])), repeat="pytest")
    result.check("calibration")
    with pytest.raises(InputError, match="no ood gate"):
        result.check("ood")


# The plan


def test_the_correction_counts_every_gate_of_the_plan(make_plan):
    assert make_plan(bits="8").alpha == pytest.approx(0.05 / 9)
    assert make_plan(bits="8,4", scopes="text,both").alpha == pytest.approx(0.05 / 36)


def test_equal_bits_are_one_case(make_plan):
    assert [str(case.build.bits) for case in make_plan(bits="4,w4a8,w4").cases] == ["w4a8", "w4"]


def test_activation_bits_without_calibration_images(make_plan, folder_benchmark):
    folder_benchmark.write_text(folder_benchmark.read_text().replace("calibration:", "# calibration:"))
    with pytest.raises(InputError, match=r"needs calibration images; add `calibration:` to .*--qreliab-bits=w4"):
        make_plan(bits="4", benchmarks=str(folder_benchmark))
    assert make_plan(bits="w4", benchmarks=str(folder_benchmark)).cases == (
        Case(Build("tiny-digits", "minmax", Bits(4), "both", None), "folders"),
    )


def test_the_text_tower_needs_no_calibration_images(make_plan, folder_benchmark):
    folder_benchmark.write_text(folder_benchmark.read_text().replace("calibration:", "# calibration:"))
    plan = make_plan(bits="8", scopes="text", benchmarks=str(folder_benchmark))
    assert Evaluator(plan).result(plan.cases[0]).coverage.weights == 1.0


def test_models_whose_tests_would_share_a_name(make_plan, tmp_path):
    from safetensors.torch import save_file

    for name in ("a b", "a_b"):
        save_file({}, tmp_path / f"{name}.safetensors")
    with pytest.raises(InputError, match="share the test name"):
        make_plan(models=f"RN50/{tmp_path}/a b.safetensors,RN50/{tmp_path}/a_b.safetensors")


def test_thresholds_that_gate_nothing_the_benchmark_measures(make_plan, folder_benchmark, write_thresholds):
    folder_benchmark.write_text(folder_benchmark.read_text().partition("ood:")[0])
    limits = str(write_thresholds("ood.auroc: {max_drop: 1}"))
    with pytest.raises(InputError, match="none of the gates is on anything"):
        make_plan(benchmarks=str(folder_benchmark), thresholds=limits)


def test_two_benchmarks_of_one_name(make_plan, tmp_path, small_benchmark):
    (tmp_path / "digits.yaml").write_text(small_benchmark.read_text())
    with pytest.raises(InputError, match="two benchmarks are called 'digits'"):
        make_plan(benchmarks=f"digits,{tmp_path}/digits.yaml")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:0", "mps:1", "auto:1"])
def test_unknown_devices(make_plan, device):
    with pytest.raises(InputError, match="--qreliab-device: unknown device"):
        make_plan(device=device)


def test_a_device_that_is_not_there(make_plan):
    with pytest.raises(InputError, match="is not there"):
        make_plan(device="cuda:99")
