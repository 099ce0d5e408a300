"""The README's words are true: its commands are CI's, its YAML loads, its Python runs, its options exist."""

import re
from pathlib import Path

import pytest

from pytest_qreliab.config.document import read
from pytest_qreliab.config.settings import OPTIONS
from pytest_qreliab.config.thresholds import Policy
from pytest_qreliab.metrics import registry

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_two_commands_come_first_and_are_those_of_ci():
    main_job, tests = blocks("sh")[:2]
    assert main_job.strip().endswith("pytest --qreliab-bits=4,8")
    ci = (ROOT / ".ci" / "run").read_text()
    assert -1 < ci.find(tests.strip()) < ci.find(main_job.strip())


def test_every_option_is_in_the_table_with_its_default():
    for option in OPTIONS:
        assert f"| `{option.flag}` | `{option.default}` |" in README


def test_every_metric_is_in_the_table():
    table = README.partition("| metric | better |")[2].partition("\n\n")[0]
    better: dict[str, str] = {}
    for row in table.splitlines()[2:]:
        names, direction = row.strip("|").split("|")[:2]
        better.update(dict.fromkeys(re.findall(r"`([^`]+)`", names), direction.strip()))
    for name in registry.names():
        if name in registry.RESCALED_METRICS:
            assert "rescaled.NAME" in better
            continue
        short = ".".join(name.split(".")[:2]) if name.startswith("ood.") else name
        assert better[short] == registry.lookup(name).better
    for score in registry.OOD_SCORES:
        assert f"`{score}`" in README


def test_the_thresholds_example_loads(tmp_path):
    (tmp_path / "t.yaml").write_text(next(block for block in blocks("yaml") if "gates:" in block))
    assert read(tmp_path / "t.yaml").validate(Policy).overrides


def test_the_benchmark_example_loads(tmp_path, make_plan, image_folders, monkeypatch):
    text = next(block for block in blocks("yaml") if "in_distribution:" in block)
    (image_folders / "images").rename(tmp_path / "kept")
    monkeypatch.setenv("DATA", str(tmp_path))
    (tmp_path / "kept").rename(tmp_path / "images")
    (tmp_path / "textures").symlink_to(tmp_path / "images")
    for name in ("foxes", "some-images"):
        (tmp_path / name).symlink_to(tmp_path / "ood")
    (tmp_path / "animals.yaml").write_text(text)
    plan = make_plan(benchmarks=str(tmp_path / "animals.yaml"))
    assert plan.data["animals"].classes == ("cat", "dog", "owl")
    assert plan.data["animals"].ood.keys() == {"foxes", "textures"}


def test_the_python_example_passes(pytester, small_benchmark, everything_imported):
    pytester.makepyfile(next(block for block in blocks("python") if "def test_" in block))
    result = pytester.runpytest_inprocess(
        f"--qreliab-benchmarks={small_benchmark}", "--qreliab-bits=w8", *(str(p) for p in pytester.path.glob("*.py"))
    )
    result.assert_outcomes(passed=2)


MY_PROJECT = """
import torch
from pytest_qreliab import load_model

own = load_model("tiny-digits")
preprocess, tokenizer = own.preprocess, own.tokenizer

def MyClip():
    return own.module
"""


def test_the_conftest_example_registers_a_model_and_a_quantizer(pytester, small_benchmark, everything_imported):
    import pytest_qreliab.models.wrapped
    import pytest_qreliab.plugin.suite.test_reliability  # noqa: F401

    pytester.makepyfile(my_project=MY_PROJECT)
    pytester.makeconftest(next(block for block in blocks("python") if "pytest_qreliab_register" in block))
    pytester.syspathinsert()
    pytester.path.joinpath("limits.yaml").write_text("version: 1\ngates: {accuracy: {min: 0.15}}\n")
    result = pytester.runpytest_inprocess(
        f"--qreliab-benchmarks={small_benchmark}", "--qreliab-thresholds=limits.yaml", "--qreliab-models=mine",
        "--qreliab-quantizers=ternary", "--qreliab-bits=w2",
    )  # fmt: skip
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["mine on small*", "ternary w2 *100.0/*"])


def test_the_suite_example_loads(tmp_path, make_plan, folder_benchmark, write_thresholds):
    text = next(block for block in blocks("yaml") if "quantizers:" in block)
    (tmp_path / "suite.yaml").write_text(text.replace(", ViT-B-32/weights.safetensors", ""))
    folder_benchmark.rename(tmp_path / "animals.yaml")
    for name in ("limits.yaml", "loose.yaml"):
        write_thresholds("accuracy: {max_drop: 0.1}", name)
    plan = make_plan(suite=str(tmp_path / "suite.yaml"))
    assert [case.quantization for case in plan.cases] == ["minmax w4a8", "minmax w8", "clipped w4a8"]


@pytest.mark.parametrize("name", ["LICENSE", "CHANGELOG.md", "thresholds/default.yaml", "benchmarks/digits.yaml"])
def test_what_it_speaks_of_is_there(name):
    assert (ROOT / name).is_file()
