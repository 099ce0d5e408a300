"""Values of settings, each for itself."""

import pytest
from safetensors.torch import save_file

from pytest_qreliab.errors import InputError


def test_equal_bits_are_one_case(make_plan):
    assert [str(case.build.bits) for case in make_plan(bits="4,w4a8,w4").cases] == ["w4a8", "w4"]


def test_two_benchmarks_of_one_name(make_plan, tmp_path, small_benchmark):
    (tmp_path / "digits.yaml").write_text(small_benchmark.read_text())
    with pytest.raises(InputError, match="two benchmarks are called 'digits'"):
        make_plan(benchmarks=f"digits,{tmp_path}/digits.yaml")


def test_an_unknown_match_is_refused(make_plan):
    with pytest.raises(InputError, match="unknown match of controls 'weight'; did you mean 'weights'"):
        make_plan(controls="weight")


def test_artifacts_that_cannot_be_read_are_refused_at_once(make_plan, tiny, tmp_path):
    with pytest.raises(InputError, match=r"^--qreliab-quantizers: artifact .*there\.safetensors does not exist"):
        make_plan(quantizers=f"artifact:{tmp_path}/there.safetensors")
    save_file(tiny.module.state_dict(), tmp_path / "full.safetensors")
    with pytest.raises(InputError, match=r"full\.safetensors is not quantized"):
        make_plan(quantizers=f"artifact:{tmp_path}/full.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "full.safetensors").read_bytes()[:5000])
    with pytest.raises(InputError, match=r"cut\.safetensors is damaged"):
        make_plan(quantizers=f"artifact:{tmp_path}/cut.safetensors")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:0", "mps:1", "auto:1"])
def test_unknown_devices(make_plan, device):
    with pytest.raises(InputError, match="--qreliab-device: unknown device"):
        make_plan(device=device)


def test_a_device_that_is_not_there(make_plan):
    with pytest.raises(InputError, match="is not there"):
        make_plan(device="cuda:99")


@pytest.mark.parametrize(("text", "compiled"), [("yes", True), ("no", False), ("True", True), ("false", False)])
def test_answers_are_yes_and_no_or_what_toml_has(make_plan, small_benchmark, text, compiled):
    plan = make_plan(compile=text, deterministic=text, bits="w8", benchmarks=str(small_benchmark))
    assert (plan.compiled, plan.deterministic) == (compiled, compiled)


def test_another_answer_is_refused(make_plan):
    with pytest.raises(InputError, match=r"^--qreliab-compile: unknown answer 'perhaps'; .*valid: no, yes"):
        make_plan(compile="perhaps")


@pytest.mark.parametrize("entry", ["artifact:m.safetensors", "{name: other, quantizer: artifact, path: m.safetensors}"])
def test_the_path_of_an_artifact_in_a_suite_starts_in_the_folder_of_the_suite(make_plan, tmp_path, monkeypatch, entry):
    folder = tmp_path / "suites"
    folder.mkdir()
    (folder / "s.yaml").write_text(f"version: 1\nquantizers: [{entry}]\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"artifact {folder}/m.safetensors does not exist"):
        make_plan(suite="suites/s.yaml")
