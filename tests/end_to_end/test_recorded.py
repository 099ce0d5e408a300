"""Recorded outputs in the place of models: gated as if the models had run here."""

import numpy as np
import pytest

from pytest_qreliab.evaluation.evaluator import Evaluator
from pytest_qreliab.record import Recording

GATES = """\
accuracy: {max_drop: 0.5}
ece: {max_rise: 0.5}
rescaled.nll: {max_rise: 0.5}
shift.accuracy: {max_drop: 0.5}
corruption.ece: {max_rise: 0.5}
spurious.gap: {max_rise: 0.5}
ood.auroc: {max_drop: 0.5}
ood.auroc.energy: {max_drop: 0.5, where_missing: skip}
ood.auroc.mahalanobis: {max_drop: 0.5, where_missing: skip}
spectral.effective_rank: {max_relative_change: 0.5, where_missing: skip}
spectral.high_band_energy: {max_relative_change: 0.5, where_missing: skip}
"""
MORE = """\
covariate_shift: {printed: {source: printed-digits, limit: 60}}
corruptions: {kinds: [fog, contrast], severities: [3], limit: 50}
spurious:
  common: {source: digits, part: test, colour: common, limit: 60}
  counter: {source: digits, part: test, colour: counter, limit: 60}
"""
# What each kind of outputs cannot tell.
LOST = {
    "image_features": {"spectral.high_band_energy"},
    "logits": {"spectral.high_band_energy", "spectral.effective_rank", "ood.auroc.mahalanobis"},
    "probabilities": {
        "spectral.high_band_energy",
        "spectral.effective_rank",
        "ood.auroc.mahalanobis",
        "ood.auroc.energy",
    },
}


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory, small_benchmark):
    path = tmp_path_factory.mktemp("recorded") / "six.yaml"
    path.write_text(small_benchmark.read_text() + MORE)
    return path


@pytest.fixture
def limits(write_thresholds):
    return str(write_thresholds(GATES))


def record(embed, clip, data, kind: str, **more) -> Recording:
    """All sets of a benchmark through a model, as another runtime would write them."""
    found = embed(clip, data, {"calibration", "shift", "corruption", "spurious"})
    given = {"image_features": found.in_distribution.features, "calibration": found.calibration.images.features}
    sets = {"in_distribution": given["image_features"], "calibration": given["calibration"]}
    sets |= {name: labelled.images.features for name, labelled in found.labelled.items()}
    sets |= {f"ood.{'near' if name in data.near else 'far'}.{name}": of.features for name, of in found.ood.items()}
    recording = Recording(
        data.classes, clip.logit_scale, found.classifier if kind == "image_features" else None, **more
    )
    for name, features in sets.items():
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        logits = clip.logit_scale * unit.astype(float) @ found.classifier.T
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        values = {
            "image_features": features,
            "logits": logits,
            "probabilities": exponentials / exponentials.sum(axis=1, keepdims=True),
        }[kind]
        images = data.sets[name]
        order = np.random.default_rng(0).permutation(len(values))  # by id, whatever the order
        labels = None if images.labels is None else images.labels[order]
        recording.add(name, [images.ids[i] for i in order], labels=labels, **{kind: values[order]})
    return recording


@pytest.fixture(scope="module")
def live(make_plan, embed, benchmark, tmp_path_factory):
    """The result of models that ran here, and their recorded outputs of each kind."""
    folder = tmp_path_factory.mktemp("outputs")
    limits = folder / "t.yaml"
    limits.write_text("version: 1\ngates:\n" + "".join(f"  {line}\n" for line in GATES.splitlines()))
    plan = make_plan(bits="4", benchmarks=str(benchmark), thresholds=str(limits))
    evaluator = Evaluator(plan)
    (case,) = plan.cases
    data = plan.data["six"]
    for kind in LOST:
        record(embed, evaluator.baseline("tiny-digits"), data, kind, model="tiny-digits").save(
            folder / f"full-{kind}.npz"
        )
        record(embed, evaluator.quantized(case.build).clip, data, kind, bits="w4a8").save(folder / f"w4-{kind}.npz")
    return folder, evaluator.result(case)


@pytest.mark.parametrize("kind", LOST)
def test_recorded_outputs_are_judged_as_the_models_are(live, make_plan, benchmark, limits, kind):
    folder, expected = live
    for measured_on in (str(benchmark), f"recorded:{folder / f'full-{kind}.npz'}"):
        plan = make_plan(
            models=f"recorded:{folder / f'full-{kind}.npz'}",
            quantizers=f"recorded:{folder / f'w4-{kind}.npz'}",
            benchmarks=measured_on,
            thresholds=limits,
        )
        (case,) = plan.cases  # whatever --qreliab-bits says
        assert str(case.build.bits) == "w4a8"
        gated = {gate.metric for gate in plan.gates[case]}
        assert gated == {line.partition(":")[0] for line in GATES.splitlines()} - LOST[kind]
        result = Evaluator(plan).result(case)
        assert result.skipped.keys() == LOST[kind]
        assert result.coverage is None
        for verdict in result.verdicts:
            before = next(v for v in expected.verdicts if v.gate.metric == verdict.gate.metric)
            if verdict.gate.metric == "rescaled.nll" and measured_on != str(benchmark):
                continue  # in another order other calibration images are held out
            assert verdict.baseline == pytest.approx(before.baseline, abs=1e-4)
            assert verdict.quantized == pytest.approx(before.quantized, abs=1e-4)
            assert not verdict.problem


def test_one_of_the_two_may_be_recorded(live, make_plan, benchmark, limits):
    folder, expected = live
    full, w4 = (f"recorded:{folder / f'{name}-image_features.npz'}" for name in ("full", "w4"))
    for more in ({"models": full, "bits": "w4a8"}, {"quantizers": w4}):
        plan = make_plan(benchmarks=str(benchmark), thresholds=limits, **more)
        result = Evaluator(plan).result(plan.cases[0])
        for metric in ("accuracy", "ood.auroc", "spurious.gap"):
            found, before = (next(v for v in of.verdicts if v.gate.metric == metric) for of in (result, expected))
            assert found.harm == pytest.approx(before.harm, abs=1e-4)


def test_the_real_openai_clip_b16_against_b32(realdata, tmp_path, pytester):
    """Zero-shot probabilities of both on Caltech-101, through the plugin: the smaller model loses, and is told to."""
    given = np.load(realdata / "clip_caltech101" / "openai_zeroshot.npz")
    ids = [str(i) for i in range(len(given["labels"]))]
    for name in ("vitb16", "vitb32"):
        recording = Recording([str(name) for name in given["classnames"]], logit_scale=100.0)
        recording.add("in_distribution", ids, labels=given["labels"], probabilities=given[f"probs_{name}"])
        recording.save(tmp_path / f"{name}.npz")
    result = pytester.runpytest_inprocess(
        f"--qreliab-models=recorded:{tmp_path / 'vitb16.npz'}",
        f"--qreliab-quantizers=recorded:{tmp_path / 'vitb32.npz'}",
        f"--qreliab-benchmarks=recorded:{tmp_path / 'vitb16.npz'}",
    )
    outcomes = result.parseoutcomes()
    assert set(outcomes) <= {"passed", "failed"}
    assert sum(outcomes.values()) == 2  # accuracy and calibration: nothing is known of the rest
    result.stdout.fnmatch_lines(["*not judged: ood.auroc, ood.fpr95: *", "*(1640 samples, *)", "*recorded"])
    accuracy = [float((given[f"probs_{name}"].argmax(1) == given["labels"]).mean()) for name in ("vitb16", "vitb32")]
    for value in accuracy:
        assert f"{value:.4f}" in result.stdout.str()
