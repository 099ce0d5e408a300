"""Calibration data that a case needs and a benchmark lacks."""

import shutil

import pytest

from pytest_qreliab.config.cases import Bits, Build, Case
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.evaluator import Evaluator


def test_activation_bits_without_calibration_images(make_plan, folder_benchmark):
    folder_benchmark.write_text(folder_benchmark.read_text().replace("calibration:", "# calibration:"))
    with pytest.raises(InputError, match=r"needs calibration images; add `calibration:` to .*--qreliab-bits=w4"):
        make_plan(bits="4", benchmarks=str(folder_benchmark))
    assert make_plan(bits="w4", benchmarks=str(folder_benchmark)).cases == (
        Case(Build(model="tiny-digits", quantizer="minmax", bits=Bits(4), scope="both", calibration=None), "folders"),
    )


def test_the_text_tower_needs_no_calibration_images(make_plan, folder_benchmark):
    folder_benchmark.write_text(folder_benchmark.read_text().replace("calibration:", "# calibration:"))
    plan = make_plan(bits="8", scopes="text", benchmarks=str(folder_benchmark))
    assert Evaluator(plan).result(plan.cases[0]).coverage.weights == 1.0


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
