"""Cases and gates that do not go together."""

import pytest

from pytest_qreliab.errors import InputError


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
