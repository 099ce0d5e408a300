"""Quantizers through the plan and the evaluator: refitted logit scales, artifacts, parameters, what they need."""

import math

import pytest
from safetensors.torch import save_file

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.evaluation.evaluator import Evaluator
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.quantizers.engine import layers
from pytest_qreliab.quantizers.request import Request


def test_the_logit_scale_of_both_models_is_refitted_and_nothing_else_changes(make_plan, small_benchmark, tiny):
    plan = make_plan(quantizers="minmax,minmax+rescale", bits="w2", benchmarks=str(small_benchmark))
    evaluator = Evaluator(plan)
    plain, refitted = (evaluator.result(case) for case in plan.cases)
    assert (plain.rescaled, refitted.rescaled) == (False, True)
    for name in ("accuracy", "ood.auroc.mcm", "spectral.effective_rank"):
        assert vars(plain.changes[name]) | {"bounds": None} == vars(refitted.changes[name]) | {"bounds": None}
    for of in ("baseline", "quantized"):
        assert getattr(plain.changes["nll"], of) != getattr(refitted.changes["nll"], of)
    build = plan.cases[1].build
    assert evaluator.quantized(build).logit_scale != pytest.approx(tiny.logit_scale, rel=1e-3)
    assert evaluator.baseline(build.model).logit_scale == tiny.logit_scale  # the fixture's model is left alone
    quantized = evaluator.quantized(plan.cases[0].build)
    assert quantized.logit_scale == tiny.logit_scale


def test_an_artifact_is_one_case_with_the_bits_of_its_file(make_plan, small_benchmark, tiny, tmp_path):
    path = tmp_path / "model.safetensors"
    recipe = Catalog().recipe("minmax")
    quantized = recipe.apply()(tiny, Request(bits=Bits(5), scope="both", parameters=recipe.parameters))
    save_file(quantized.module.state_dict(), path)
    plan = make_plan(quantizers=f"artifact:{path},minmax", bits="w5,w5a8", benchmarks=str(small_benchmark))
    assert [str(case.build.bits) for case in plan.cases] == ["w5", "w5", "w5a8"]
    evaluator = Evaluator(plan)
    artifact, minmax = (evaluator.result(case) for case in plan.cases[:2])
    assert artifact.coverage.weights == 1.0
    assert artifact.changes["nll"].quantized == pytest.approx(minmax.changes["nll"].quantized, rel=1e-5)
    assert artifact.changes["nll"].baseline == minmax.changes["nll"].baseline


@pytest.mark.parametrize("name", ["torchao", "bitsandbytes"])
def test_a_backend_through_the_evaluator(make_plan, small_benchmark, name):
    pytest.importorskip(name, reason=f"the extra pytest-qreliab[{name}] is not installed")
    plan = make_plan(quantizers=name, bits="8", benchmarks=str(small_benchmark))
    result = Evaluator(plan).result(plan.cases[0])
    assert 0.98 < result.coverage.weights < 1.0  # the patch convolution is not theirs
    assert abs(result.changes["accuracy"].delta) < 0.05
    assert math.isfinite(result.changes["spectral.high_band_energy"].quantized)


def test_parameters_of_a_suite_reach_the_model(make_plan, small_benchmark, tmp_path):
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "version: 1\nbits: [w2]\nquantizers:\n  - {name: grouped, quantizer: minmax, granularity: 16}\n  - minmax\n"
    )
    plan = make_plan(suite=str(suite), benchmarks=str(small_benchmark))
    evaluator = Evaluator(plan)
    grouped, plain = (evaluator.result(case) for case in plan.cases)
    assert grouped.coverage.weights == plain.coverage.weights == 1.0
    assert grouped.changes["nll"].quantized < 0.5 * plain.changes["nll"].quantized
    layer = layers.unpack_layers(evaluator.quantized(plan.cases[0].build).clip, "both")[1][
        "visual.transformer.resblocks.0.mlp.c_fc"
    ]
    assert len(layer.weight[0].unique()) > 4 >= len(layer.weight[0, :16].unique())
