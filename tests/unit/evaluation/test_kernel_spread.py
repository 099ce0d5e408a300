"""How far a build moves by the kernel of its attention: that it is so, and measured only where a drift fails."""

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel

from pytest_qreliab.embedding.store import Store
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.evaluator import Evaluator
from pytest_qreliab.evaluation.measurement.measure import measure
from pytest_qreliab.evaluation.model_pool import ModelPool
from pytest_qreliab.evaluation.verdicts.accepted import AcceptedValues
from pytest_qreliab.quantizers.recipe import Recipe

THRESHOLDS = """\
accuracy: {max_drop: 0.9, max_drift: 0.1}
nll: {max_rise: 9, max_drift: 0.1}
agreement: {min: 0.1, max_drift: 0.1}
"""


class Accepted:
    """Accepted results, by metric the same for every case."""

    def __init__(self, **values: float) -> None:
        self._values = values

    def accepted(self, case, data):
        return AcceptedValues(values=self._values, where="there")

    def differences(self, case, data, environment):
        return []


DRIFTED = Accepted(accuracy=5.0, nll=-5.0, agreement=0.5)  # agreement is better now


@pytest.fixture
def evaluate(make_plan, small_benchmark, write_thresholds, kept):
    """Evaluates a build, and gives its drift verdicts by metric, and its result."""
    limits = str(write_thresholds(THRESHOLDS))

    def evaluate(accepted=DRIFTED, bits="w4a8", folder=kept, **given: str):
        plan = make_plan(
            with_drift=True, benchmarks=str(small_benchmark), thresholds=limits, bits=bits, device="cpu", **given
        )
        result = Evaluator(plan, store=Store(folder), accepted=accepted).result(plan.cases[0])
        return {verdict.gate.metric: verdict for verdict in result.verdicts if verdict.method == "drift"}, result

    return evaluate


@pytest.fixture
def made(monkeypatch):
    """The models that are loaded or quantized, in order."""
    made = []
    for name in ("_load", "_build"):
        make = getattr(ModelPool, name)

        def noting(self, *args, make=make, **more):
            made.append(args[-1] if isinstance(args[-1], str) else str(args[-1].bits))
            return make(self, *args, **more)

        monkeypatch.setattr(ModelPool, name, noting)
    return made


def test_the_spread_is_what_another_kernel_makes_of_the_same_build(make_plan, small_benchmark, evaluate, embed):
    found, _ = evaluate()
    assert {metric: verdict.outcome for metric, verdict in found.items()} == {
        "accuracy": "fail",
        "nll": "fail",
        "agreement": "pass",
    }
    plan = make_plan(benchmarks=str(small_benchmark), bits="w4a8", device="cpu")
    with sdpa_kernel(SDPBackend.MATH):
        clip = Evaluator(plan).quantized(plan.cases[0].build).clip
        values = measure(embed(clip, plan.data["small"])).values
    for metric in ("accuracy", "nll"):
        assert found[metric].kernel_spread == pytest.approx(abs(values[metric] - found[metric].quantized), abs=1e-9)
    assert found["nll"].kernel_spread > 0
    assert found["agreement"].kernel_spread is None  # no drift to explain


def test_weights_alone_have_no_chaos_to_show(evaluate):
    found, _ = evaluate(bits="w4")
    assert found["nll"].outcome == "fail"
    assert found["nll"].kernel_spread is None


FINE = Accepted(accuracy=0.5, nll=5.0, agreement=0.5)


def test_the_models_are_made_for_a_drift_alone_and_once(evaluate, made, tmp_path):
    evaluate(FINE, folder=tmp_path)
    assert made == ["tiny-digits", "w4a8"]
    evaluate(FINE, folder=tmp_path)
    assert made == ["tiny-digits", "w4a8"]  # all is kept
    found, _ = evaluate(folder=tmp_path)
    assert made == ["tiny-digits", "w4a8"] * 2
    again, result = evaluate(folder=tmp_path)
    assert made == ["tiny-digits", "w4a8"] * 2
    assert result.cost.encoded == 0
    assert again == found


@pytest.mark.parametrize(("steps", "times"), [(0, 2), (5, 1)])
def test_what_is_trained_is_not_trained_again(evaluate, made, monkeypatch, tmp_path, steps, times):
    monkeypatch.setattr(Recipe, "steps", steps)
    found, _ = evaluate(folder=tmp_path)
    assert found["nll"].outcome == "fail"
    assert made == ["tiny-digits", *["w4a8"] * times]


def test_a_drift_stands_although_its_models_are_gone(evaluate, monkeypatch, tmp_path):
    evaluate(FINE, folder=tmp_path)

    def gone(self, model):
        raise InputError("the weights are gone")

    monkeypatch.setattr(ModelPool, "_load", gone)
    found, _ = evaluate(folder=tmp_path)
    assert found["nll"].outcome == "fail"
    assert found["nll"].kernel_spread is None


def test_a_deterministic_run_is_held_against_the_kernel_that_torch_chooses(evaluate):
    """Both runs compare the same two kernels, each from its own side."""
    usual, fixed = evaluate()[0]["nll"], evaluate(deterministic="yes")[0]["nll"]
    assert usual.quantized != fixed.quantized  # so neither was read as the other
    assert fixed.kernel_spread > 0
