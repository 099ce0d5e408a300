"""Quantizers through the plan and the evaluator: refitted logit scales, artifacts, parameters, what they need."""

import json
import math

import pytest
from safetensors.torch import save_file

from pytest_qreliab.config.formats import Format
from pytest_qreliab.data.sources import builtin
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
    quantized = recipe.apply()(tiny, Request(bits=Format.integers(5), scope="both", parameters=recipe.parameters))
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


@pytest.fixture
def captioned(pytester):
    """A benchmark on a few digits, and a CSV file of others with captions of their own."""
    digits = builtin.digits("train")
    rows = ["image,caption"]
    for i in range(24):
        digits.load(i).save(pytester.path / f"{i}.png")
        rows.append(f"{i}.png,{['somebody wrote', 'a drawing of'][i % 2]} a {digits.known_labels[i] + 1}")
    (pytester.path / "pairs.csv").write_text("\n".join(rows))
    path = pytester.path / "captioned.yaml"
    path.write_text(
        "version: 1\n"
        "classes: [zero, one, two, three, four, five, six, seven, eight, nine]\n"
        "in_distribution: {source: digits, part: test, limit: 60}\n"
        "calibration:\n"
        "  source: digits\n"
        "  part: train\n"
        "  limit: 40\n"
    )
    (pytester.path / "suite.yaml").write_text(
        "version: 1\nbits: [w4]\nbenchmarks: [captioned.yaml]\n"
        "quantizers: [{name: trained, quantizer: lsq+contrastive, steps: 2, batch: 8}, minmax]\n"
    )
    return path


def train(pytester, write_thresholds):
    limits = write_thresholds("accuracy: {max_drop: 0.9}")
    return pytester.runpytest_inprocess(
        *("-p", "no:cacheprovider", "--qreliab-suite=suite.yaml", f"--qreliab-thresholds={limits}"),
        *("--qreliab-json=r.json", "--qreliab-html=r.html"),
    )


def test_a_run_says_what_was_trained_on(pytester, everything_imported, captioned, write_thresholds):
    captioned.write_text(f"{captioned.read_text()}  captions: {{source: table, path: pairs.csv}}\n")
    pairs = "image-caption pairs in pairs.csv"
    result = train(pytester, write_thresholds)
    result.stdout.fnmatch_lines([f"qreliab: trained: trained on {pairs}", f"trained: trained on {pairs}"])
    trained, plain = json.loads((pytester.path / "r.json").read_text())["cases"]
    assert (trained["trained_on"], plain["trained_on"]) == (pairs, "")
    assert trained["warnings"] == plain["warnings"] == []
    assert trained["data"]["captions"].startswith("24 images ")
    assert f"trained: trained on {pairs}" in (pytester.path / "r.html").read_text()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "{source: table, path: nowhere.csv}",
            "*captioned.yaml:8: *nowhere.csv: the table cannot be read: No such file*",
        ),
        ("{source: table, path: pairs.csv, caption: text}", "*captioned.yaml:8: *pairs.csv: unknown column 'text'*"),
        ("pairs.csv", "*captioned.yaml:8: calibration.captions: write what the file is as well: *"),
    ],
)
def test_captions_that_cannot_be_used_end_the_run_before_it_starts(
    pytester, everything_imported, captioned, write_thresholds, source, message, refused
):
    captioned.write_text(f"{captioned.read_text()}  captions: {source}\n")
    refused(train(pytester, write_thresholds), message)


def test_a_captioned_image_that_cannot_be_read_is_named(pytester, everything_imported, captioned, write_thresholds):
    captioned.write_text(f"{captioned.read_text()}  captions: {{source: table, path: pairs.csv}}\n")
    (pytester.path / "5.png").write_bytes(b"no image")
    result = train(pytester, write_thresholds)
    result.stdout.fnmatch_lines(["*captions: 1 of 24 images cannot be read; the first: *5.png*"])


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


def test_layers_with_formats_of_their_own_show_in_the_mean_bits(
    pytester, everything_imported, captioned, write_thresholds
):
    (pytester.path / "suite.yaml").write_text(
        "version: 1\nbits: [w3a8]\nbenchmarks: [captioned.yaml]\n"
        "quantizers:\n"
        "- {name: ends, quantizer: minmax, layers: {visual.conv1: w8, '*.attn.out_proj': keep}}\n"
        "- {name: typo, quantizer: minmax, layers: {visual.conv: w8}}\n"
    )
    result = train(pytester, write_thresholds)
    ends, *_ = json.loads((pytester.path / "r.json").read_text())["cases"]
    assert ends["case"].startswith("tiny-digits/ends/w3a8/")
    assert ends["quantization"] == "ends w5.4a8"
    assert ends["coverage"] < 0.95
    result.stdout.fnmatch_lines(
        ["ends w5.4a8 *", "*no layer in scope 'both' is called 'visual.conv'; did you mean 'visual.conv1'*"]
    )
    assert result.ret == 1


def test_a_format_of_a_layer_that_is_none_is_refused_with_its_line(
    pytester, everything_imported, captioned, write_thresholds
):
    (pytester.path / "suite.yaml").write_text(
        "version: 1\nbits: [w3a8]\nbenchmarks: [captioned.yaml]\n"
        "quantizers:\n"
        "- name: ends\n"
        "  quantizer: minmax\n"
        "  layers: {visual.conv1: w88}\n"
    )
    result = train(pytester, write_thresholds)
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*suite.yaml:7: *88 bits in 'w88' is out of range*or write keep*"])
