"""Calibration data that a case needs and a benchmark lacks."""

import shutil

import pytest

from pytest_qreliab.config.cases import Build, Case
from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.evaluator import Evaluator


def test_activation_bits_without_calibration_images(make_plan, folder_benchmark):
    folder_benchmark.write_text(folder_benchmark.read_text().replace("calibration:", "# calibration:"))
    with pytest.raises(InputError, match=r"needs calibration images; add `calibration:` to .*--qreliab-bits=w4"):
        make_plan(bits="4", benchmarks=str(folder_benchmark))
    assert make_plan(bits="w4", benchmarks=str(folder_benchmark)).cases == (
        Case(
            Build(model="tiny-digits", quantizer="minmax", bits=Format.integers(4), scope="both", calibration=None),
            "folders",
        ),
    )


def test_the_text_tower_needs_no_calibration_images(make_plan, folder_benchmark):
    folder_benchmark.write_text(folder_benchmark.read_text().replace("calibration:", "# calibration:"))
    plan = make_plan(bits="8", scopes="text", benchmarks=str(folder_benchmark))
    assert Evaluator(plan).result(plan.cases[0]).coverage.weights == 1.0


@pytest.fixture
def captioned(folder_benchmark):
    """The benchmark on folders, with image-caption pairs in place of calibration images."""
    (folder_benchmark.parent / "pairs.csv").write_text("image,caption\nood/0.jpg,noise\nood/1.png,more noise\n")
    text = folder_benchmark.read_text().replace("flat-folder, path: ood}\nood", "x}\nood")
    assert "{source: x}" in text
    folder_benchmark.write_text(text.replace("{source: x}", "{captions: {source: table, path: pairs.csv}}"))
    return folder_benchmark


@pytest.mark.parametrize("quantizer", ["minmax", "lsq", "distillation", "lsq+contrastive"])
def test_captions_are_calibration_data_enough(make_plan, captioned, quantizer):
    assert make_plan(quantizers=quantizer, bits="w4a8", benchmarks=str(captioned)).cases


def test_captions_are_no_labels(make_plan, captioned, write_thresholds):
    with pytest.raises(
        InputError, match=r"minmax\+rescale w4 .*calibration images with labels; at .*folders\.yaml:4 give"
    ):
        make_plan(quantizers="minmax+rescale", bits="w4", benchmarks=str(captioned))
    gates = write_thresholds("ood.auroc.mahalanobis: {max_drop: 0.1}\n")
    with pytest.raises(InputError, match=r"no calibration images; add a `source:` of them to .*folders\.yaml:4"):
        make_plan(bits="w4", benchmarks=str(captioned), thresholds=str(gates))


def test_distillation_needs_images_for_any_tower_and_no_labels(make_plan, folder_benchmark):
    assert make_plan(quantizers="distillation", bits="w4", benchmarks=str(folder_benchmark)).cases
    folder_benchmark.write_text(folder_benchmark.read_text().replace("calibration:", "# calibration:"))
    with pytest.raises(InputError, match=r"distillation w4 text needs calibration images"):
        make_plan(quantizers="distillation", bits="w4", scopes="text", benchmarks=str(folder_benchmark))


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
    shutil.copytree(folder_benchmark.parent / "images", folder_benchmark.parent / "others")
    folder_benchmark.write_text("\n".join([*lines, "calibration: {source: image-folder, path: others}"]))
    plan = make_plan(quantizers="lsq+contrastive", benchmarks=str(folder_benchmark))
    data = plan.data["folders"]
    assert data.calibration.labels.tolist() == data.in_distribution.labels.tolist()
