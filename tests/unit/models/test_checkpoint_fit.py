"""A checkpoint is held against its architecture before any model is made."""

import open_clip
import pytest
import torch

from pytest_qreliab.errors import InputError
from pytest_qreliab.models import local_models, openclip
from pytest_qreliab.models.checkpoint_fit import check_fit
from pytest_qreliab.models.checkpoints import CheckpointContent
from pytest_qreliab.models.encoding_settings import EncodingSettings
from pytest_qreliab.models.local_models import LocalModel


def model_of(config, path):
    return LocalModel(
        name="m", source="Small", path=path, config=None, model_config=config, settings=EncodingSettings()
    )


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("vision_cfg", "image_size", 32, "for images of 16 x 16 pixels; they are resized to 32 x 32"),
        ("vision_cfg", "image_size", [8, 24], "for images of 16 x 16 pixels; they are resized to 8 x 24"),
        ("text_cfg", "context_length", 20, "for texts of 16 tokens; they are resized to 20"),
    ],
)
def test_position_embeddings_that_open_clip_resizes_are_a_warning(small, write_weights, part, key, value, message):
    path = write_weights(small)
    small[part][key] = value
    (warning,) = check_fit(model_of(small, path))
    assert warning.startswith("model 'm': its checkpoint has position embeddings ")
    assert message in warning


def test_open_clip_resizes_just_those_that_are_warned_of(small, write_weights, write_config, tmp_path):
    """Loading goes on, so that a warning is right, and a refusal would not be."""
    write_weights(small, "run/w.pt")
    small["vision_cfg"]["image_size"] = 32
    small["text_cfg"]["context_length"] = 20
    write_config(tmp_path / "run", small, mean=0.5, std=0.5, interpolation="bicubic", resize_mode="shortest")
    name = f"local-dir:{tmp_path / 'run'}"
    assert len(openclip.describe(name, "m").warnings) == 2
    clip = openclip.load(name)
    assert clip.module.visual.positional_embedding.shape == (65, 32)
    assert clip.module.positional_embedding.shape == (20, 16)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("vision_cfg", {"patch_size": 8}, r"its visual.conv1.weight is \(32, 3, 4, 4\), and \(32, 3, 8, 8\) is needed"),
        ("vision_cfg", {"width": 48}, r"its visual.conv1.weight is \(32, 3, 4, 4\)"),
        ("vision_cfg", {"layers": 3}, "its image tower has 1 blocks, and 3 are needed"),
        ("text_cfg", {"width": 32}, r"its token_embedding.weight is \(49408, 16\)"),
        ("text_cfg", {"vocab_size": 100}, r"its token_embedding.weight is \(49408, 16\), and \(100, 16\) is needed"),
    ],
)
def test_a_checkpoint_of_another_architecture_is_refused(small, write_weights, part, change, message):
    path = write_weights(small)
    small[part].update(change)
    with pytest.raises(InputError, match=f"model 'm': checkpoint .* is of another architecture: {message}"):
        check_fit(model_of(small, path))


def test_position_embeddings_of_no_square_are_refused(small, write_weights):
    name = "visual.positional_embedding"
    path = write_weights(small, change=lambda state: state | {name: torch.zeros(12, 32)})
    with pytest.raises(InputError, match=r"its visual.positional_embedding is \(12, 32\), and \(17, 32\) is needed"):
        check_fit(model_of(small, path))


# One of each kind of tower that open_clip has. Their own weights must fit.
@pytest.mark.parametrize(
    "name", ["ViT-S-32-alt", "RN50", "coca_base", "ViT-B-16-SigLIP", "MobileCLIP2-S0", "ViTamin-S"]
)
def test_the_weights_of_open_clips_own_architectures_fit(name, tmp_path, monkeypatch):
    config = local_models.read_architecture(name)
    with torch.device("meta"):
        made = {key: value for key, value in open_clip.get_model_config(name).items() if key != "custom_text"}
        kind = open_clip.CoCa if "multimodal_cfg" in made else open_clip.CLIP
        kind = open_clip.model.CustomTextCLIP if config.get("custom_text") and kind is open_clip.CLIP else kind
        shapes = {key: tuple(tensor.shape) for key, tensor in kind(**made).state_dict().items()}
    model = model_of(config, tmp_path / "w.pt")
    model.__dict__["checkpoint"] = CheckpointContent(path=model.path, shapes=shapes)
    assert check_fit(model) == ()


def test_a_patch_size_that_is_null_is_the_default_in_every_message(small, write_weights):
    path = write_weights(small)
    small["vision_cfg"]["patch_size"] = None
    assert model_of(small, path).patch_size == (16, 16)
    with pytest.raises(
        InputError, match=r"its visual.conv1.weight is \(32, 3, 4, 4\), and \(32, 3, 16, 16\) is needed"
    ):
        check_fit(model_of(small, path))
