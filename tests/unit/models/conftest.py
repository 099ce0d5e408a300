"""A small architecture that open_clip knows by name, with two tags."""

import json

import pytest

SMALL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "patch_size": 4, "width": 32, "layers": 1, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
TAGS = {
    "plain": {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711),
              "interpolation": "bicubic", "resize_mode": "shortest"},
    "mobile": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": "bilinear", "resize_mode": "shortest"},
    "quick_squash": {"resize_mode": "squash", "quick_gelu": True},
}  # fmt: skip


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The `model_cfg` of the architecture `Small`, which open_clip takes for one of its own."""
    import open_clip

    from pytest_qreliab.models import local_models

    folder = tmp_path / "model_configs"
    folder.mkdir()
    (folder / "Small.json").write_text(json.dumps(SMALL))
    monkeypatch.setattr(local_models, "architecture_folder", lambda: folder)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small", SMALL)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Small", TAGS)
    return json.loads(json.dumps(SMALL))


@pytest.fixture
def write_weights(tmp_path):
    """Writes the weights of a `model_cfg` in a new folder, changed by a function, and returns their path."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    def write(config, name="weights.safetensors", change=lambda state: state):
        torch.manual_seed(0)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = change(open_clip.CLIP(**config).state_dict())
        save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
        return path

    return write


@pytest.fixture
def write_config():
    """Writes an `open_clip_config.json` into a folder."""

    def write(folder, model_config, **image_settings):
        folder.mkdir(parents=True, exist_ok=True)
        described = {"model_cfg": model_config, "preprocess_cfg": image_settings}
        (folder / "open_clip_config.json").write_text(json.dumps(described))
        return folder

    return write
