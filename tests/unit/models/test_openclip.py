import subprocess
import sys

import numpy as np
import open_clip
import pytest
import torch
from open_clip import transform
from PIL import Image
from safetensors.torch import load_file, save_file

from pytest_qreliab.errors import InputError
from pytest_qreliab.models import loading, openclip, tiny_digits


def test_the_preprocessing_is_open_clips_own(tiny):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 25, 3), dtype=np.uint8))
    expected = open_clip.image_transform(
        32, is_train=False, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", resize_mode="shortest"
    )
    assert torch.equal(tiny.preprocess(image), expected(image))


@pytest.fixture
def rn50_state():
    torch.manual_seed(0)
    return open_clip.create_model("RN50", pretrained=None).state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_local_checkpoint_of_an_open_clip_architecture(tmp_path, rn50_state, suffix):
    path = tmp_path / f"weights{suffix}"
    save_file(rn50_state, path) if suffix == ".safetensors" else torch.save({"state_dict": rn50_state}, path)
    name = f"RN50/{path}"
    loading.check_model_name(name)
    clip = loading.load_model(name)
    assert clip.name == name
    loaded = clip.module.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in rn50_state.items())
    assert clip.encode_image(torch.zeros(1, 3, 224, 224)).shape == (1, 1024)
    assert clip.tokenizer(["a dog"]).shape == (1, 77)


def test_a_local_dir(tmp_path, write_local_model):
    folder = write_local_model(tmp_path / "model")
    name = f"local-dir:{folder}"
    loading.check_model_name(name)
    clip = loading.load_model(name)
    state = load_file(folder / "open_clip_model.safetensors")
    assert torch.equal(clip.module.visual.proj, state["visual.proj"])
    assert clip.encode_text(["a cat"]).shape == (1, 16)


def test_a_tokenizer_with_more_words_than_the_text_tower_is_refused(tmp_path):
    """As of a model that was trained with a tokenizer of its own, of which the configuration says nothing."""
    for path in tiny_digits.WEIGHTS.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="its text tower knows 258 tokens, and its tokenizer, SimpleTokenizer"):
        loading.load_model(f"local-dir:{tmp_path}")


ROWS = ("visual.proj", "token_embedding.weight", "logit_scale")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("w.safetensors", lambda state: state),
        ("w.bin", lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()}),
        ("w.pth", lambda state: {"model": state}),
        ("epoch_3.pt", lambda state: {"epoch": 3, "state_dict": {f"module.{n}": t for n, t in state.items()}}),
    ],
)
def test_checkpoints_of_every_form_are_loaded_alike(small, write_weights, write_config, tmp_path, name, change):
    """Of a name of open_clip and of a folder, by way of open_clip's own loading."""
    path = write_weights(small, f"run/{name}", change)
    write_config(tmp_path / "run", small, mean=0.5, std=0.25, interpolation="bilinear", resize_mode="squash")
    for source in (f"Small/{path}", f"Small/{path.parent}", f"local-dir:{path.parent}", f"local-dir:{path}"):
        loading.check_model_name(source)
        clip = loading.load_model(source)
        torch.manual_seed(0)
        expected = open_clip.CLIP(**small).state_dict()
        assert all(torch.equal(clip.module.state_dict()[row], expected[row]) for row in ROWS)
        assert clip.module.visual.preprocess_cfg["mean"] == (0.5,) * 3
        assert not clip.module.training


def test_the_colour_around_an_image_counts_beside_a_checkpoint(small, write_weights, write_config, tmp_path):
    path = write_weights(small, "run/w.pt")
    settings = {"mean": [0, 0, 0], "std": 1, "interpolation": "bicubic", "resize_mode": "longest", "fill_color": 255}
    write_config(path.parent, small, **settings)
    for source in (f"Small/{path}", f"local-dir:{path}"):
        assert loading.load_model(source).preprocess(Image.new("RGB", (16, 4))).max() == 1


@pytest.mark.parametrize("tag", ["mobile", "quick_squash", "quick-squash", "plain"])
def test_a_tag_in_the_name_says_the_settings(small, write_weights, write_config, tmp_path, tag):
    """Even of a file whose neighbour says otherwise."""
    path = write_weights(small, "run/w.pt")
    write_config(path.parent, small, mean=0.5, std=0.25, interpolation="bilinear", resize_mode="squash")
    name = f"Small/{path}@{tag}"
    loading.check_model_name(name)
    clip, facts = loading.load_model(name), openclip.describe(name, name).facts
    known = open_clip.get_pretrained_cfg("Small", tag)
    expected = transform.PreprocessCfg(**{**known_settings(known), "size": 16})
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 25, 3), dtype=np.uint8))
    assert torch.equal(clip.preprocess(image), transform.image_transform_v2(expected, is_train=False)(image))
    quick = any(isinstance(module, open_clip.transformer.QuickGELU) for module in clip.module.modules())
    assert quick == known.get("quick_gelu", False)
    assert facts["activation"] == ("QuickGELU" if quick else "GELU")
    assert facts["settings of"] == f"tag {tag.replace('-', '_')}"


def known_settings(tag):
    return {name: value for name, value in tag.items() if name not in ("quick_gelu", "url", "hf_hub")}


def test_an_unknown_tag_in_the_name_says_the_known_ones(small, write_weights):
    path = write_weights(small, "w.pt")
    with pytest.raises(InputError, match=r"unknown tag of Small in .*w.pt@mobil'.*did you mean 'mobile'"):
        loading.check_model_name(f"Small/{path}@mobil")


def test_settings_that_a_tag_would_change_are_a_warning(small, write_weights):
    name = f"Small/{write_weights(small, 'w.pt')}"
    found = openclip.describe(name, "m")
    (warning,) = found.warnings
    assert "is used with open_clip's own settings, mean 0.4815 0.4578 0.4082, std" in warning
    assert (
        "activation GELU; 2 of the 3 tags of Small have others, as mobile: mean 0, std 1, interpolation bilin"
        in warning
    )
    assert warning.endswith("say so: m@mobile")
    assert found.facts["settings of"] == "open_clip"
    assert openclip.describe(f"{name}@plain", "m").warnings == ()


def test_the_settings_beside_the_checkpoint_are_no_guess(small, write_weights, write_config):
    path = write_weights(small, "run/w.pt")
    write_config(path.parent, small, mean=0.5, std=0.25, interpolation="bilinear", resize_mode="squash")
    found = openclip.describe(f"Small/{path}", "m")
    assert found.warnings == ()
    assert found.checkpoint == path
    assert found.facts == {
        "file": "w.pt",
        "resolution": "16",
        "context length": "16",
        "mean": "0.5",
        "std": "0.25",
        "interpolation": "bilinear",
        "resize mode": "squash",
        "activation": "GELU",
        "logit scale": "14.29",
        "settings of": "open_clip_config.json",
    }


def test_what_was_taken_off_a_checkpoint_is_a_fact(small, write_weights):
    prefixed = {"ema": lambda state: {"ema": {f"model.{name}": tensor for name, tensor in state.items()}}}
    path = write_weights(small, "w.pt", prefixed["ema"])
    facts = openclip.describe(f"Small/{path}@plain", "m").facts
    assert (facts["weights under"], facts["names without"]) == ("ema", "model.")


@pytest.mark.parametrize("scale", [100.0, float("nan"), 9.3])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_logit_scale_that_is_the_factor_is_refused_before_the_run(small, write_weights, scale, name):
    path = write_weights(small, name, lambda state: state | {"logit_scale": torch.tensor(scale)})
    with pytest.raises(InputError, match=r"logit_scale is .*, which is no logarithm of a factor"):
        loading.check_model_name(f"Small/{path}")
    with pytest.raises(InputError, match=r"logit_scale is .*, which is no logarithm of a factor"):
        openclip.load(f"Small/{path}@plain")


def test_a_small_logit_scale_is_a_warning(small, write_weights):
    path = write_weights(small, "w.pt", lambda state: state | {"logit_scale": torch.tensor(0.0)})
    (warning,) = openclip.describe(f"Small/{path}@plain", "m").warnings
    assert warning.startswith("model 'm': logit_scale is 1, ")


def test_a_checkpoint_of_another_architecture_is_refused_before_the_run(small, write_weights):
    small["vision_cfg"]["width"] = 48
    path = write_weights(small, "w.pt")
    with pytest.raises(InputError, match=r"is of another architecture: its visual.conv1.weight is \(48, 3, 4, 4\)"):
        loading.check_model_name(f"Small/{path}")


def test_what_open_clip_says_of_a_checkpoint_is_passed_on(small, write_weights):
    """Both the tensors that are missing, however many, and those that are too many."""
    path = write_weights(small, "w.pt", lambda state: {n.replace("transformer", "trunk"): t for n, t in state.items()})
    with pytest.raises(
        InputError, match=r"cannot be loaded: .*Missing key.*transformer.*Unexpected key.*trunk"
    ) as error:
        loading.load_model(f"Small/{path}@plain")
    assert error.value.__cause__ is None


def test_open_clip_does_not_log_that_the_weights_are_random(small, write_weights, caplog):
    openclip.load(f"Small/{write_weights(small, 'w.pt')}@plain")
    assert not caplog.records


def test_the_shipped_model_is_described_without_torch():
    code = """
import sys
from pytest_qreliab.models import loading
found = loading.find_loader("tiny-digits", "tiny-digits").describe()
assert found.facts["mean"] == "0.5" and found.facts["context length"] == "48" and not found.warnings, found
loading.check_model_name("local-dir:" + sys.argv[1])
assert loading.find_loader("local-dir:" + sys.argv[1], "m").describe().facts["logit scale"]
print("torch" in sys.modules)
"""
    command = [sys.executable, "-c", code, str(tiny_digits.FOLDER)]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("vision", "blocks"),
    [({"layers": 24}, 24), ({}, 12), ({"layers": [3, 4, 6, 3]}, 4), ({"timm_model_name": "convnext_base"}, None)],
)
def test_the_blocks_of_open_clips_own_towers_are_known_before_they_are_made(
    tmp_path, write_local_model, vision, blocks
):
    assert openclip.describe(f"local-dir:{write_local_model(tmp_path / 'm')}", "m").blocks == 1
    assert openclip._blocks({"vision_cfg": vision}) == blocks
