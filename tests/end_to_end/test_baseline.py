"""The model in full precision is the one that was meant: it is named, or the run ends before anything runs."""

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.usefixtures("everything_imported")


@pytest.fixture
def run(pytester, folder_benchmark, write_thresholds):
    """Runs pytest on a model and a benchmark of three classes, with a gate that always passes."""
    limits = write_thresholds("accuracy: {max_drop: 1}")

    def run(model: str, *args: str, benchmark=folder_benchmark):
        given = [f"--qreliab-models={model}", f"--qreliab-benchmarks={benchmark}", f"--qreliab-thresholds={limits}"]
        return pytester.runpytest_inprocess("--qreliab-bits=w8", "--qreliab-cache-dir=store", *given, *args)

    return run


@pytest.fixture
def model(pytester, write_local_model):
    """A folder `run` with a small model whose checkpoint open_clip does not prefer: `epoch_3.pt`."""
    folder = write_local_model(pytester.path / "run")
    state = load_file(folder / "open_clip_model.safetensors")
    (folder / "open_clip_model.safetensors").unlink()
    torch.save(
        {"epoch": 3, "state_dict": {f"_orig_mod.{name}": value for name, value in state.items()}}, folder / "epoch_3.pt"
    )
    return folder


def test_the_file_and_its_settings_stand_in_the_head_and_the_results_also_when_nothing_is_loaded(run, model, pytester):
    digest = hashlib.sha256((model / "epoch_3.pt").read_bytes()).hexdigest()[:12]
    expected = {"file": "epoch_3.pt", "sha256": digest, "names without": "_orig_mod.", "resolution": "16",
                "context length": "16", "mean": "0.4815 0.4578 0.4082", "std": "0.2686 0.2613 0.2758",
                "interpolation": "bicubic", "resize mode": "shortest", "activation": "GELU", "logit scale": "14.29",
                "settings of": "open_clip_config.json"}  # fmt: skip
    for encoded in ("* images and prompts encoded, 0 known*", "0 images and prompts encoded, *"):
        result = run("local-dir:run", "--qreliab-json=results.json")
        result.assert_outcomes(passed=1)
        head = ", ".join(f"{what} {value}" for what, value in expected.items())
        result.stdout.fnmatch_lines([f"qreliab: local-dir:run: {head}", encoded])
        (case,) = json.loads((pytester.path / "results.json").read_text())["cases"]
        assert case["baseline"] == expected
        assert not [text for text in case["warnings"] if "local-dir:run" in text]


def test_several_checkpoints_end_the_run_once_with_their_list(run, model):
    for name in ("epoch_1.pt", "epoch_10.pt"):
        shutil.copy(model / "epoch_3.pt", model / name)
    result = run("local-dir:run")
    assert result.ret == 4
    assert result.stderr.str().count("epoch_1.pt, epoch_3.pt, epoch_10.pt; name the file") == 1
    run("local-dir:run/epoch_10.pt", "--collect-only").stdout.fnmatch_lines(["qreliab: local-dir:run/epoch_10.pt: *"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {"model": state, "ema": state}, "holds several state dicts, model, ema"),
        (lambda state: {"logit_scale": state["_orig_mod.logit_scale"]}, "has no visual."),
        (lambda state: state | {"_orig_mod.logit_scale": torch.tensor(100.0)}, "logit_scale is 100, which is no log"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_ends_the_run_once(run, model, change, message):
    state = torch.load(model / "epoch_3.pt", weights_only=True)["state_dict"]
    torch.save(change(state), model / "epoch_3.pt")
    result = run("local-dir:run")
    assert result.ret == 4
    assert result.stderr.str().count(message) == 1
    assert "Traceback" not in result.stderr.str() + result.stdout.str()


def test_resized_position_embeddings_and_cut_prompts_stand_in_head_summary_and_results(
    run, model, folder_benchmark, pytester
):
    config = json.loads((model / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["image_size"] = 32
    (model / "open_clip_config.json").write_text(json.dumps(config))
    long = "a {} in front of a grey wall, taken in daylight with a calibrated camera"
    text = folder_benchmark.read_text().replace('"a photo of a {}."', f'"{long}"')
    folder_benchmark.with_name("long.yaml").write_text(text)
    resized = "position embeddings for images of 16 x 16 pixels; they are resized to 32 x 32"
    cut = f"its tokenizer cuts 3 of 3 prompts, the first of them: '{long.replace('{}', 'cat')}'"
    for _ in range(2):  # the second time nothing is loaded
        result = run("local-dir:run", "--qreliab-json=results.json", benchmark=folder_benchmark.with_name("long.yaml"))
        result.stdout.fnmatch_lines([f"qreliab: warning: *{resized}*", f"warning: *{resized}*", f"warning: *{cut}*"])
        warnings = json.loads((pytester.path / "results.json").read_text())["cases"][0]["warnings"]
        for said in (resized, cut):
            assert len([text for text in warnings if said in text]) == 1


def test_classes_of_equal_text_features_are_no_result(run, model, folder_benchmark):
    text = folder_benchmark.read_text().replace('"a photo of a {}."', f'"{"very " * 20} {{}}"')
    folder_benchmark.with_name("same.yaml").write_text(text)
    result = run("local-dir:run", benchmark=folder_benchmark.with_name("same.yaml"))
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*the classes 'cat' and 'dog' have the same text features: its tokenizer cuts*"])
