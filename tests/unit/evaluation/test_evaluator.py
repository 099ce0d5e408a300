"""The evaluator: which models it builds, and that results do not depend on the order of cases."""

import pytest

from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.evaluator import Evaluator
from pytest_qreliab.evaluation.model_pool import ModelPool


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
    plan = make_plan(bits="w2a2", benchmarks=str(small_benchmark))
    result = Evaluator(plan).result(plan.cases[0])
    assert {verdict.gate.metric for verdict in result.verdicts_for("accuracy") if verdict.outcome == "fail"} == {
        "accuracy",
        "balanced_accuracy",
    }


def test_each_model_is_built_once_and_at_most_one_is_kept(make_plan, small_benchmark, monkeypatch):
    plan = make_plan(bits="w4,w8", benchmarks=f"digits,{small_benchmark}", scopes="vision,both")
    evaluator = Evaluator(plan)
    built = []
    build = ModelPool._build
    monkeypatch.setattr(ModelPool, "_build", lambda self, full, b: built.append(b) or build(self, full, b))
    kept = [evaluator.quantized(case.build) for case in plan.cases]
    assert len(built) == 4
    assert len({id(clip) for clip in kept}) == 4
    assert evaluator.quantized(plan.cases[-1].build) is kept[-1]


def test_a_quantizer_that_covers_less_than_it_declares_is_an_error(make_plan, small_benchmark, monkeypatch):
    from pytest_qreliab.quantizers.post_training import ranges

    monkeypatch.setattr(ranges, "minmax", lambda clip, request: clip.copy())
    plan = make_plan(bits="w4", benchmarks=str(small_benchmark))
    with pytest.raises(InputError, match=r"minmax w4 on tiny-digits declares to quantize 100.0% .* covers 0.0%"):
        Evaluator(plan).result(plan.cases[0])


def test_an_unusable_model_says_the_same_each_time(make_plan, small_benchmark, tmp_path):
    import torch
    from safetensors.torch import save_file

    weights = {"visual.conv1.weight": torch.zeros(1), "logit_scale": torch.tensor(4.6)}  # what a plan looks at
    save_file(weights, tmp_path / "none.safetensors")
    plan = make_plan(models=f"RN50/{tmp_path}/none.safetensors", benchmarks=str(small_benchmark))
    evaluator = Evaluator(plan)
    messages = set()
    for case in plan.cases:
        with pytest.raises(InputError, match="cannot be loaded") as caught:
            evaluator.result(case)
        messages.add(str(caught.value))
    assert len(messages) == 1
