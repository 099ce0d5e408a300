"""Quantizers through the plan and the evaluator: refitted logit scales, artifacts, parameters, what they need."""

import math

import pytest
from safetensors.torch import save_file

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.evaluator import Evaluator
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.metrics.calibration import fit_logit_scale
from pytest_qreliab.quantizers.builtin import BUILTIN
from pytest_qreliab.quantizers.engine import layers
from pytest_qreliab.quantizers.recipe import RESCALE
from pytest_qreliab.quantizers.request import Request
from pytest_qreliab.report import terminal, to_record

# +rescale


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


def test_it_is_fitted_on_images_that_neither_calibrate_nor_count(make_plan, small_benchmark, tiny, embedder):
    data = make_plan(benchmarks=str(small_benchmark)).data["small"]
    parts = embedder.calibration(data)
    assert (len(parts.images), len(parts.held_out)) == (75, 25)
    seen, held_out = (
        {images.load(i).tobytes() for i in range(len(images))} for images in (parts.images, parts.held_out)
    )
    assert not seen & held_out
    counted = data.in_distribution
    assert not (seen | held_out) & {counted.load(i).tobytes() for i in range(len(counted))}


def test_the_fit_is_the_best_on_the_held_out_images(make_plan, small_benchmark, tiny, embedder):
    import numpy as np
    import torch
    import torch.nn.functional as F

    data = make_plan(benchmarks=str(small_benchmark)).data["small"]
    parts = embedder.calibration(data)
    images = torch.stack([tiny.preprocess(parts.held_out.load(i)) for i in range(len(parts.held_out))])
    prompts = [F.normalize(tiny.encode_text(parts.captions(c)), dim=-1).mean(0) for c in range(10)]
    cosines = F.normalize(tiny.encode_image(images), dim=-1) @ F.normalize(torch.stack(prompts), dim=-1).T
    expected = fit_logit_scale(cosines.double().numpy(), np.asarray(parts.held_out.labels))
    assert embedder.fitted_logit_scale(tiny, data) == pytest.approx(expected, rel=1e-3)


def test_the_table_has_a_baseline_for_each_kind_of_row(make_plan, small_benchmark):
    plan = make_plan(quantizers="minmax,minmax+rescale", bits="w4", benchmarks=str(small_benchmark))
    evaluator = Evaluator(plan)
    entries = [to_record.to_record(evaluator.result(case), "", "") for case in plan.cases]
    text = terminal.render(entries, terminal.Output(200, color=False, unicode=True))
    rows = [line.split("  ")[0].strip() for line in text.splitlines()]
    assert [row for row in rows if row.startswith(("full", "minmax"))] == [
        "full precision",
        "minmax w4",
        "full precision+rescale",
        "minmax+rescale w4",
    ]


def test_too_few_or_unlabelled_images_to_hold_out(make_plan, small_benchmark, folder_benchmark, tmp_path):
    few = tmp_path / "few.yaml"
    few.write_text(small_benchmark.read_text().replace("limit: 100", "limit: 99"))
    with pytest.raises(InputError, match=r"of the 99 at .*few\.yaml:5 that leaves fewer than 25; give at least 100"):
        make_plan(quantizers="minmax+rescale", benchmarks=str(few))
    text = folder_benchmark.read_text()
    assert "flat-folder, path: ood}" in text
    for quantizer in ("minmax+rescale", "lsq+contrastive"):
        with pytest.raises(InputError, match=r"with labels; at .*folders\.yaml:\d+ give a source of the benchmark's"):
            make_plan(quantizers=quantizer, benchmarks=str(folder_benchmark))
    lines = [line for line in text.splitlines() if not line.startswith("calibration")]
    folder_benchmark.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"needs calibration images; add `calibration:`"):
        make_plan(quantizers="lsq+contrastive", benchmarks=str(folder_benchmark))
    folder_benchmark.write_text("\n".join([*lines, "calibration: {source: image-folder, path: images}"]))
    plan = make_plan(quantizers="lsq+contrastive", benchmarks=str(folder_benchmark))
    data = plan.data["folders"]
    assert data.calibration.labels.tolist() == data.in_distribution.labels.tolist()


# Artifacts


def test_an_artifact_is_one_case_with_the_bits_of_its_file(make_plan, small_benchmark, tiny, tmp_path):
    path = tmp_path / "model.safetensors"
    recipe = Catalog().recipe("minmax")
    quantized = recipe.apply()(tiny, Request(Bits(5), "both", recipe.parameters))
    save_file(quantized.module.state_dict(), path)
    plan = make_plan(quantizers=f"artifact:{path},minmax", bits="w5,w5a8", benchmarks=str(small_benchmark))
    assert [str(case.build.bits) for case in plan.cases] == ["w5", "w5", "w5a8"]
    evaluator = Evaluator(plan)
    artifact, minmax = (evaluator.result(case) for case in plan.cases[:2])
    assert artifact.coverage.weights == 1.0
    assert artifact.changes["nll"].quantized == pytest.approx(minmax.changes["nll"].quantized, rel=1e-5)
    assert artifact.changes["nll"].baseline == minmax.changes["nll"].baseline


def test_artifacts_that_cannot_be_read_are_refused_at_once(make_plan, tiny, tmp_path):
    with pytest.raises(InputError, match=r"^--qreliab-quantizers: artifact .*there\.safetensors does not exist"):
        make_plan(quantizers=f"artifact:{tmp_path}/there.safetensors")
    save_file(tiny.module.state_dict(), tmp_path / "full.safetensors")
    with pytest.raises(InputError, match=r"full\.safetensors is not quantized"):
        make_plan(quantizers=f"artifact:{tmp_path}/full.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "full.safetensors").read_bytes()[:5000])
    with pytest.raises(InputError, match=r"cut\.safetensors is damaged"):
        make_plan(quantizers=f"artifact:{tmp_path}/cut.safetensors")


# The catalogue


@pytest.mark.parametrize("quantizer", BUILTIN, ids=lambda quantizer: quantizer.name)
def test_every_entry_can_be_imported_and_says_what_it_does(quantizer):
    if quantizer.missing():
        pytest.skip(f"the extra pytest-qreliab[{quantizer.extra}] is not installed")
    assert quantizer.help
    assert quantizer.packages == () or quantizer.extra
    if quantizer.name == "artifact":
        return
    recipe = Catalog().recipe(quantizer.name)
    assert callable(recipe.apply())
    assert Catalog().recipe(quantizer.name + RESCALE).rescale
    widths = [Bits.parse(text) for text in quantizer.bits or ("w2", "w4a8", "w8a8")]
    assert all(recipe.bits(width, "both") == width for width in widths)


def test_a_bare_width_falls_back_to_weights_alone():
    recipe = Catalog().recipe("minmax")
    backends = {q.name: q for q in BUILTIN if q.extra}
    found = {
        name: [str(type(recipe)(name, quantizer).bits(width, "both")) for width in (4, 8)]
        for name, quantizer in backends.items()
        if name != "torchao-float8"
    }
    assert found == {"torchao": ["w4", "w8"], "bitsandbytes": ["w4", "w8a8"], "onnxruntime": ["w4", "w8a8"]}


def test_a_missing_package_is_named_with_the_extra(monkeypatch):
    from dataclasses import replace

    catalog = Catalog()
    torchao = replace(catalog.quantizers["torchao"], packages=("no_such_package",))
    catalog.quantizers["torchao"] = torchao
    with pytest.raises(InputError, match=r"needs the package no_such_package: pip install 'pytest-qreliab\[torchao\]'"):
        catalog.recipe("torchao")


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
    layer = layers.unpack_layers(evaluator.quantized(plan.cases[0].build), "both")[1][
        "visual.transformer.resblocks.0.mlp.c_fc"
    ]
    assert len(layer.weight[0].unique()) > 4 >= len(layer.weight[0, :16].unique())
