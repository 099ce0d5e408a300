"""From embeddings to verdicts: measurement and evaluator."""

import dataclasses
import functools
import math
from fnmatch import fnmatch

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, recall_score, roc_auc_score

from pytest_qreliab.config.cases import Bits, Build, Case
from pytest_qreliab.config.thresholds import Gate, Policy
from pytest_qreliab.embedding.records import CalibrationEmbeddings, Embeddings, ImageEmbeddings, LabelledEmbeddings
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.evaluator import Evaluator
from pytest_qreliab.evaluation.measurement import measure as measurement_measure
from pytest_qreliab.evaluation.measurement.comparison import compare
from pytest_qreliab.evaluation.measurement.measure import measure
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.evaluation.verdicts.gates import judge
from pytest_qreliab.metrics import registry
from pytest_qreliab.plugin.checked_result import CheckedResult

N, DIM, CLASSES = 200, 16, ("ant", "bee", "cat", "dog", "emu")
SETS = {"letters": 80, "photos": 120}
LABELLED = {
    "shift.sketch": 90,
    "shift.print": 60,
    "corruption.fog.1": 70,
    "corruption.fog.4": 70,
    "corruption.snow.4": 70,
    "spurious.common": 90,
    "spurious.counter": 90,
    "spurious.night": 50,
}


@functools.cache
def embeddings(noise: float = 0.4, seed: int = 0, n: int = N, others: int | None = None) -> Embeddings:
    """Features around five class vectors, and a near and a far OOD set around none; with all that is optional.

    `others` is the size of the other image sets.
    """
    fixed, rng = np.random.default_rng(99), np.random.default_rng(seed)
    classifier = unit(fixed.normal(size=(len(CLASSES), DIM)))
    labels = fixed.integers(0, len(CLASSES), 1000)

    def images(features):
        band = np.abs(features[:, 0]) / np.abs(features).sum(axis=1)
        return ImageEmbeddings(features.astype(np.float32), band.astype(np.float64), -0.5 - band)

    inside = images(classifier[labels[:n]] + noise * rng.normal(size=(n, DIM)))
    outside = {name: images(rng.normal(size=(others or size, DIM))) for name, size in SETS.items()}
    m = others or 100

    def labelled(size: int):
        features = classifier[labels[:size]] + 1.5 * noise * rng.normal(size=(size, DIM))
        return LabelledEmbeddings(ImageEmbeddings(features.astype(np.float32)), labels[:size].astype(np.int64))

    stored = (classifier[labels[-m:]] + noise * rng.normal(size=(m, DIM))).astype(np.float32)
    return Embeddings(
        inside,
        labels[:n].astype(np.int64),
        outside,
        classifier.astype(np.float32),
        12.0,
        0.0,
        unit(fixed.normal(size=(7, DIM))).astype(np.float32),
        CalibrationEmbeddings(stored, labels[-m:].astype(np.int64), np.arange(m) % 4 == 0),
        frozenset({"letters"}),
        {name: labelled(size if others is None else others) for name, size in LABELLED.items()},
    )


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@functools.cache
def measured(noise: float = 0.4, seed: int = 0, n: int = N, others: int | None = None) -> Measurement:
    return measure(embeddings(noise, seed, n, others), CLASSES)


# Every name a measurement of these embeddings has.
SUFFIXES = ("", ".near", ".far", *(f".{name}" for name in SETS))
OOD_NAMES = [
    f"ood.{statistic}.{score}{suffix}"
    for statistic in registry.OOD_STATISTICS
    for score in registry.OOD_SCORES
    for suffix in SUFFIXES
]
UNSEEN = {"weights", "blocks", "gratings"}
NAMES = [
    *(name for name in registry.names() if not (name.startswith("ood.") or registry.lookup(name).needs & UNSEEN)),
    *(f"{name}.text" for name in registry.BY_RANK),
    *(f"recall.{name}" for name in CLASSES),
    *(f"spurious.accuracy.{name}" for name in ("common", "counter", "night")),
    *(f"shift.{statistic}.{name}" for statistic in ("accuracy", "nll", "ece") for name in ("sketch", "print")),
    *(
        f"corruption.{statistic}.{part}"
        for statistic in ("accuracy", "nll", "ece")
        for part in ("fog", "snow", "1", "4", "fog.1", "fog.4", "snow.4")
    ),
    *OOD_NAMES,
]
# What is computed when two measurements are compared, and only where it is asked for.
OF_PAIR = {name for name in NAMES if registry.is_distance(name) or name.endswith(".text")}
# Those of two OOD statistics and of a score of each kind, where gates on all would only take time.
GATED = [
    name for name in NAMES if not any(part in name for part in ("aupr", "fpr95_out", ".msp", ".maxlogit", ".energy"))
]


def harmed(name: str) -> str:
    """The kind of limit that holds the metric's harm."""
    return {"higher": "max_drop", "lower": "max_rise", "neither": "max_change"}[registry.lookup(name).better]


def gates(names=NAMES, limit: float = 1e9) -> list[Gate]:
    return [Gate(name, harmed(name), limit, "t.yaml:1") for name in names]


def policy(inconclusive: str = "estimate", correction: str = "bonferroni") -> Policy:
    return Policy.model_validate(
        {"version": 1, "correction": correction, "inconclusive": inconclusive, "gates": {"ece": {"max": 1}}}
    )


def verdicts(baseline: Measurement, quantized: Measurement, names=NAMES, limit: float = 1e9, **settings: str):
    changes = compare(baseline, quantized, names)
    found = judge(changes, gates(names, limit), baseline.samples, 0.05 / len(names), policy(**settings))
    return {verdict.gate.metric: verdict for verdict in found}


# Measurement


def test_a_measurement_agrees_with_sklearn():
    found = embeddings()
    logits = 12 * unit(found.in_distribution.features.astype(float)) @ found.classifier.T.astype(float)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    values = measured().values
    predicted = logits.argmax(1)
    assert values["accuracy"] == accuracy_score(found.labels, predicted)
    assert values["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(found.labels, predicted))
    recalls = [values[f"recall.{name}"] for name in CLASSES]
    assert recalls == pytest.approx(recall_score(found.labels, predicted, average=None))
    assert values["nll"] == pytest.approx(log_loss(found.labels, probabilities))
    assert values["confidence_gap"] == pytest.approx(probabilities.max(1).mean() - values["accuracy"])
    outside = unit(found.ood["letters"].features.astype(float))
    outside_logits = 12 * outside @ found.classifier.T.astype(float)
    outside_probabilities = np.exp(outside_logits) / np.exp(outside_logits).sum(axis=1, keepdims=True)
    truth = np.concatenate([np.zeros(N), np.ones(80)])
    confidence = np.concatenate([probabilities.max(1), outside_probabilities.max(1)])
    assert values["ood.auroc.msp.letters"] == pytest.approx(roc_auc_score(truth, -confidence))


def test_an_ood_metric_is_the_mean_over_its_sets_and_near_and_far_are_over_theirs():
    found = dataclasses.replace(embeddings(), near=frozenset({"letters", "signs"}))
    found = dataclasses.replace(found, ood={**found.ood, "signs": embeddings(seed=5).ood["photos"]})
    values = measure(found).values
    for metric in ("ood.auroc.mcm", "ood.fpr95.knn", "ood.aupr_in.gl-mcm"):
        letters, photos, signs = (values[f"{metric}.{name}"] for name in ("letters", "photos", "signs"))
        assert values[metric] == pytest.approx((letters + photos + signs) / 3)
        assert values[f"{metric}.near"] == pytest.approx((letters + signs) / 2)
        assert values[f"{metric}.far"] == photos


def test_without_near_sets_there_is_no_mean_over_them():
    values = measure(dataclasses.replace(embeddings(), near=frozenset())).values
    assert "ood.auroc.mcm.near" not in values
    assert values["ood.auroc.mcm.far"] == values["ood.auroc.mcm"]


def test_every_metric_has_a_value_and_every_name_a_metric():
    values = measured().values
    assert set(values) == set(NAMES) - OF_PAIR
    assert all(math.isfinite(value) for value in values.values())
    assert not measured().problems
    measurable = {name for name in registry.names() if not registry.lookup(name).needs & UNSEEN}
    assert {registry.canonical(name) for name in measurable} <= set(NAMES)
    assert all(registry.lookup(name).aspect in registry.ASPECTS for name in values)


WITHOUT = {
    "negatives": "*.neglabel*",
    "calibration": "*.knn*|*.mahalanobis*|rescaled.*",
}


@pytest.mark.parametrize("part", WITHOUT)
def test_what_was_not_asked_for_is_not_measured(part):
    left = measure(dataclasses.replace(embeddings(), **{part: None}), CLASSES)
    gone = {name for name in NAMES if any(fnmatch(name, pattern) for pattern in WITHOUT[part].split("|"))}
    assert set(left.values) == set(NAMES) - gone - OF_PAIR
    assert not left.problems


def test_calibration_images_without_labels_allow_knn_alone():
    found = embeddings()
    bare = dataclasses.replace(found, calibration=dataclasses.replace(found.calibration, labels=None))
    values = measure(bare).values
    assert "ood.auroc.knn" in values
    assert not [name for name in values if "mahalanobis" in name or name.startswith("rescaled.")]


def test_a_benchmark_without_ood_sets_has_no_ood_values():
    values = measure(dataclasses.replace(embeddings(), ood={})).values
    assert not [name for name in values if name.startswith("ood")]


def test_samples_come_in_chunks_alike(monkeypatch):
    monkeypatch.setattr(measurement_measure, "CHUNK_ROWS", 7)
    assert measure(embeddings(), CLASSES).values == pytest.approx(measured().values, abs=1e-9)


def reordered(found: Embeddings, index) -> Embeddings:
    inside = found.in_distribution
    images = ImageEmbeddings(inside.features[index], inside.high_band[index], inside.local[index])
    return dataclasses.replace(found, in_distribution=images, labels=found.labels[index])


def test_the_order_of_samples_does_not_matter():
    order = np.random.default_rng(0).permutation(N)
    values = measure(reordered(embeddings(), order), CLASSES).values
    assert values == pytest.approx(measured().values, abs=1e-6)


def test_every_sample_twice_changes_nothing_but_the_debiased_ece():
    values = measure(reordered(embeddings(), np.repeat(np.arange(N), 2)), CLASSES).values
    once = dict(measured().values)
    for name in ("ece.debiased", "rescaled.ece.debiased"):
        assert values.pop(name) > once.pop(name)
    for name in [name for name in values if name.startswith("ood.aupr")]:  # which go with the share of OOD samples
        del values[name], once[name]
    assert values == pytest.approx(once, abs=1e-6)


def test_lengths_of_features_do_not_matter():
    found = embeddings()
    for factor in (1e-30, 1e30):
        shorter = dataclasses.replace(
            found.in_distribution, features=np.float32(factor) * found.in_distribution.features
        )
        values = measure(dataclasses.replace(found, in_distribution=shorter), CLASSES).values
        assert values == pytest.approx(measured().values, abs=1e-4)  # in float32 two neighbours may change places


def test_rescaling_does_not_depend_on_the_scale():
    found, changed = measured(), measure(dataclasses.replace(embeddings(), logit_scale=100.0))
    for name in registry.RESCALED_METRICS:
        assert changed.values[name] == pytest.approx(found.values[name], abs=1e-6)
    assert found.values["rescaled.nll"] < found.values["nll"]


# Pairs


def test_identical_models_change_nothing():
    changes = compare(measured(), measured(), NAMES)
    assert all(change.delta == 0 for change in changes.values())
    for name in NAMES:
        bounds = changes[name].bounds
        if bounds is not None:
            assert bounds(0.01).low <= 0 <= bounds(0.01).high, name
    assert all(verdict.passed for verdict in verdicts(measured(), measured(), limit=0.5, inconclusive="fail").values())


def test_a_much_worse_model_fails_every_gate_of_quality():
    found = verdicts(measured(), measured(noise=3.0), limit=0.001)
    for name in ("accuracy", "balanced_accuracy", "nll", "brier", "aurc", "agreement", "kl", "flips.lost",
                 "ood.auroc.mcm", "ood.fpr95.mcm", "ood.auroc.knn.near"):  # fmt: skip
        assert found[name].outcome == "fail", name
        assert 0.001 < found[name].interval.low < found[name].harm < found[name].interval.high


def test_bounds_hold_the_estimate_and_grow_with_confidence():
    changes = compare(measured(), measured(noise=0.6, seed=1), NAMES)
    for name in NAMES:
        if registry.lookup(name).spread is None:
            assert changes[name].bounds is None
            continue
        wide, narrow = changes[name].bounds(0.001), changes[name].bounds(0.05)
        assert wide.low <= narrow.low <= changes[name].delta <= narrow.high <= wide.high, name
        assert wide.low < wide.high, name


def test_bounds_are_made_only_for_what_is_gated():
    changes = compare(measured(), measured(), ["accuracy"])
    assert [name for name, change in changes.items() if change.bounds is not None] == ["accuracy"]


# What is not finite


def place(found: Embeddings, where: str, value: float) -> Embeddings:
    """The embeddings with the value in one place."""

    def put(array, at):
        changed = array.copy()
        changed[at] = value
        return changed

    def in_images(images: ImageEmbeddings, part: str) -> ImageEmbeddings:
        at = (7, 3) if part == "features" else 7
        return dataclasses.replace(images, **{part: put(getattr(images, part), at)})

    name, _, part = where.partition(" ")
    if name in ("logit_scale", "logit_bias"):
        return dataclasses.replace(found, **{name: value})
    if name in ("classifier", "negatives"):
        return dataclasses.replace(found, **{name: put(getattr(found, name), (2, 3))})
    if name == "calibration":
        row = 8 if part == "held out" else 7
        features = put(found.calibration.features, (row, 3))
        return dataclasses.replace(found, calibration=dataclasses.replace(found.calibration, features=features))
    if name in found.labelled:
        labelled = dataclasses.replace(found.labelled[name], images=in_images(found.labelled[name].images, part))
        return dataclasses.replace(found, labelled={**found.labelled, name: labelled})
    if name == "ID":
        return dataclasses.replace(found, in_distribution=in_images(found.in_distribution, part))
    return dataclasses.replace(found, ood={**found.ood, name: in_images(found.ood[name], part)})


# A text tower or logit scale that is broken fails the scores on image features alone as well.
TOUCHED = {
    "ID features": "*",  # but the high-band energy and further image sets
    "ID high_band": "spectral.high_band_energy",
    "ID local": "ood.*.gl-mcm*",
    "classifier": "[!s]*|shift.*|spurious.*|spectral.*.text|spectral.accuracy*",
    "logit_scale": "[!s]*|shift.*|spurious.*|spectral.accuracy*",
    "logit_bias": "[!s]*|shift.*|spurious.*|spectral.accuracy*",
    "shift.print features": "shift.*.print|shift.accuracy|shift.nll|shift.ece",
    "corruption.fog.4 features": "corruption.*.fog|corruption.*.fog.4|corruption.accuracy|corruption.accuracy.4|"
    "corruption.nll|corruption.nll.4|corruption.ece|corruption.ece.4",
    "spurious.counter features": "spurious.accuracy.counter|spurious.gap|spurious.vulnerability|spurious.worst_group",
    "spurious.night features": "spurious.accuracy.night|spurious.worst_group",
    "negatives": "ood.*.neglabel*",
    "letters features": "ood.*.letters|ood.*.near|ood.mean",
    "photos features": "ood.*.photos|ood.*.far|ood.mean",
    "letters local": "ood.*.gl-mcm.letters|ood.*.gl-mcm.near|ood.*.gl-mcm",
    "calibration seen": "ood.*.knn*|ood.*.mahalanobis*",
    "calibration held out": "ood.*.knn*|ood.*.mahalanobis*|rescaled.*",
}


def touched(where: str) -> set[str]:
    patterns = TOUCHED[where].split("|")
    found = {name for name in NAMES if any(fnmatch(name, pattern) for pattern in patterns)}
    if "ood.mean" in patterns:
        found |= {name for name in OOD_NAMES if name.count(".") == 2}
    if where == "ID features":
        found = {name for name in found if registry.lookup(name).aspect != "robustness" and not name.endswith(".text")}
        found -= {"spectral.high_band_energy"}
    return found


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", TOUCHED)
def test_what_is_not_finite_is_a_problem_of_exactly_the_metrics_it_touches(where, value):
    found = measure(place(embeddings(), where, value), CLASSES)
    assert set(found.problems) == touched(where)
    for name in found.problems:
        assert math.isnan(found.values.get(name, math.nan))
    assert all(math.isfinite(found.values[name]) for name in set(NAMES) - touched(where) - OF_PAIR)


@pytest.mark.parametrize("where", TOUCHED)
@pytest.mark.parametrize("which", ["baseline", "quantized"])
def test_what_is_not_finite_fails_every_gate_it_touches_and_no_other(which, where):
    good, bad = measured(), measure(place(embeddings(), where, math.nan), CLASSES)
    pair = (bad, good) if which == "baseline" else (good, bad)
    expected = touched(where) & set(GATED)
    for correction in ("bonferroni", "holm"):
        found = verdicts(*pair, GATED, inconclusive="pass", correction=correction)
        assert {name for name, verdict in found.items() if not verdict.passed} == expected
        for name in expected:
            assert found[name].outcome == "fail"
            assert which in found[name].problem, name


@pytest.mark.parametrize("where", ["negatives", "ID local", "letters local"])
def test_minus_infinity_does_not_hide_in_an_exponential(where):
    """Where every feature is positive, its cosine is minus infinity and the mass of its class 0, which is finite."""
    found = embeddings()

    def absolute(images: ImageEmbeddings) -> ImageEmbeddings:
        return ImageEmbeddings(*map(np.abs, (images.features, images.high_band, images.local)))

    positive = absolute(found.in_distribution)
    ood = {name: absolute(images) for name, images in found.ood.items()}
    poisoned = place(dataclasses.replace(found, in_distribution=positive, ood=ood), where, -math.inf)
    assert set(measure(poisoned, CLASSES).problems) == touched(where)


def test_a_zero_feature_has_no_direction():
    found = embeddings()
    features = found.in_distribution.features.copy()
    features[3] = 0
    problems = measure(dataclasses.replace(found, in_distribution=ImageEmbeddings(features, None))).problems
    assert problems["accuracy"] == "NaN, infinity or a zero vector in 1 of 200 in-distribution image features"


def without(part: str) -> Measurement:
    found = embeddings()

    def bare(images: ImageEmbeddings) -> ImageEmbeddings:
        return dataclasses.replace(images, **{part: None})

    ood = {name: bare(images) for name, images in found.ood.items()}
    return measure(dataclasses.replace(found, in_distribution=bare(found.in_distribution), ood=ood), CLASSES)


def test_a_tower_without_a_patch_map_fails_the_gate_on_it():
    name = "spectral.high_band_energy"
    verdict = verdicts(without("high_band"), without("high_band"), [name], inconclusive="pass")[name]
    assert not verdict.passed
    assert "shows no patch map" in verdict.problem


@pytest.mark.parametrize("which", ["baseline", "quantized"])
def test_what_only_one_of_the_models_shows_fails_the_gate_on_it(which):
    name, shown, hidden = "ood.auroc.gl-mcm", measured(), without("local")
    pair = (hidden, shown) if which == "baseline" else (shown, hidden)
    verdict = verdicts(*pair, [name, "accuracy"], inconclusive="pass")[name]
    assert (verdict.outcome, verdict.passed) == ("fail", False)
    assert f"{which}: not measured" in verdict.problem


def test_a_gated_metric_that_was_not_measured_fails():
    (verdict,) = judge({}, [Gate("ood.auroc.mcm.letters", "max_drop", 1.0, "t:1")], N, 0.05, policy("pass"))
    assert (verdict.outcome, verdict.passed) == ("fail", False)
    assert "does not measure it" in verdict.problem


@pytest.mark.parametrize("correction", ["bonferroni", "holm", "benjamini-hochberg", "none"])
@pytest.mark.parametrize(("n", "others"), [(1, 1), (1, 50), (2, 2), (3, 1), (7, 3), (50, 1)])
def test_of_few_samples_there_are_verdicts_and_none_passes_by_bounds_that_are_not_finite(n, others, correction):
    b, q = measured(n=n, others=others), measured(noise=0.6, seed=1, n=n, others=others)
    for pair in ((b, q), (b, b)):
        found = verdicts(*pair, GATED, limit=0.1, inconclusive="pass", correction=correction)
        assert set(found) == set(GATED)
        for verdict in found.values():
            if verdict.interval is not None and not all(map(math.isfinite, verdict.interval)):
                assert (verdict.outcome, verdict.passed) == ("fail", False), verdict.gate.metric


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
    assert {case: result.verdicts for case, result in first.items()} == {
        case: result.verdicts for case, result in second.items()
    }
    for case, result in first.items():
        for name, change in result.changes.items():
            same = second[case].changes[name]
            assert (change.baseline, change.quantized, change.method) == (same.baseline, same.quantized, same.method)


def test_bits_that_are_too_few_fail(make_plan, small_benchmark):
    plan = make_plan(bits="w2", benchmarks=str(small_benchmark))
    result = Evaluator(plan).result(plan.cases[0])
    assert {verdict.gate.metric for verdict in result.verdicts_for("accuracy") if verdict.outcome == "fail"} == {
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
    from pytest_qreliab.quantizers.post_training import ranges

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
    for gates, plan in ((14, make_plan(bits="8")), (56, make_plan(bits="8,4", scopes="text,both"))):
        assert plan.alpha(plan.cases[0]) == pytest.approx(0.05 / gates)


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
