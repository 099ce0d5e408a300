"""Which file a name means, and with which settings it is loaded."""

import json
from pathlib import Path

import open_clip
import pytest

from pytest_qreliab.errors import InputError
from pytest_qreliab.models import local_models
from pytest_qreliab.models.local_models import choose_checkpoint, in_folder, of_architecture, split_tag

MEAN, STD = [0.5, 0.25, 0.125], [1.0, 2.0, 4.0]
ALL = {"mean": MEAN, "std": STD, "interpolation": "bilinear", "resize_mode": "squash"}


@pytest.fixture
def folder(tmp_path):
    """Makes empty files in a folder."""

    def make(*names):
        for name in names:
            (tmp_path / name).write_bytes(b"")
        return tmp_path

    return make


@pytest.mark.parametrize("order", [local_models.PREFERRED, local_models.PREFERRED[::-1]])
def test_the_preferred_names_are_open_clips_in_its_order(folder, order):
    """One after the other is taken away; open_clip itself is asked as well."""
    where = folder(*order, "epoch_1.safetensors", "epoch_2.pt")
    for name in local_models.PREFERRED:
        assert choose_checkpoint("m", where).name == name
        assert Path(open_clip.factory._find_checkpoint_in_dir(where)).name == name
        (where / name).unlink()


@pytest.mark.parametrize("name", ["epoch_3.pt", "a.pth", "b.bin", "c.safetensors"])
def test_the_only_checkpoint_is_taken_whatever_its_name(folder, name):
    assert choose_checkpoint("m", folder(name, "results.json", "notes.txt")).name == name


def test_several_checkpoints_are_listed_in_the_order_of_their_numbers(folder):
    where = folder("epoch_10.safetensors", "epoch_1.safetensors", "epoch_2.pt")
    with pytest.raises(InputError, match=r"epoch_1.safetensors, epoch_2.pt, epoch_10.safetensors; name the file") as e:
        choose_checkpoint("local-dir:run", where)
    assert f"{where.name}/epoch_10.safetensors" in str(e.value)


def test_the_parts_of_one_checkpoint_are_no_choice(folder):
    where = folder("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    (where / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match=r"is in 2 parts; join them: .*model-\*\.safetensors"):
        choose_checkpoint("m", where)


def test_a_folder_without_checkpoint(folder):
    with pytest.raises(InputError, match=r"no checkpoint \(.safetensors, .pt, .pth, .bin\) in"):
        choose_checkpoint("m", folder("results.json", "last.ckpt"))


@pytest.mark.parametrize(
    ("text", "there", "path", "tag"),
    [
        ("w.pt", (), "w.pt", ""),
        ("w.pt@openai", (), "w.pt", "openai"),
        ("w@2.pt", ("w@2.pt",), "w@2.pt", ""),
        ("w@2.pt@openai", ("w@2.pt",), "w@2.pt", "openai"),
        ("w.pt@openai", ("w.pt@openai",), "w.pt@openai", ""),
        ("a@b/w.pt", ("a@b/w.pt",), "a@b/w.pt", ""),
    ],
)
def test_a_tag_is_what_follows_the_last_at_unless_a_file_is_named_so(tmp_path, monkeypatch, text, there, path, tag):
    monkeypatch.chdir(tmp_path)
    for name in there:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"")
    assert split_tag(text) == (Path(path), tag)


def test_a_folder_and_one_of_its_files(tmp_path, small, write_config):
    where = write_config(tmp_path / "run", small | {"quick_gelu": True}, **ALL)
    for name in ("epoch_1.pt", "epoch_2.pt"):
        (where / name).write_bytes(b"")
    found = in_folder("m", where / "epoch_2.pt")
    assert (found.path.name, found.source) == ("epoch_2.pt", f"local-dir:{where}")
    assert (list(found.settings.mean), list(found.settings.std)) == (MEAN, STD)
    assert (found.settings.interpolation, found.settings.resize_mode) == ("bilinear", "squash")
    assert found.settings.quick_gelu
    assert (found.image_size, found.context_length) == ((16, 16), 16)
    assert found.files == (where / "epoch_2.pt", where / "open_clip_config.json")
    assert not found.warnings
    with pytest.raises(InputError, match="several checkpoints"):
        in_folder("m", where)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "has no mean, std: open_clip's default counts"),
        ({"mean": MEAN, "interpolation": "bicubic"}, "has no std:"),
        ({"mean": MEAN, "std": STD}, ""),  # as most repositories of the hub have it
        ({**ALL, "image_mean": MEAN}, "has image_mean, which open_clip does not know and passes over"),
        ({**ALL, "size": 16, "mode": "RGB", "fill_color": 0}, ""),
    ],
)
def test_image_settings_that_are_assumed_or_passed_over_are_said(tmp_path, small, write_config, given, message):
    where = write_config(tmp_path / "run", small, **given)
    (where / "epoch_1.pt").write_bytes(b"")
    warnings = in_folder("m", where).warnings
    assert len(warnings) == bool(message)
    assert all(message in text and text.startswith("model 'm': ") for text in warnings)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "not valid JSON"),
        ("{}", "no 'model_cfg'"),
        ("[]", "no 'model_cfg'"),
        ('{"model_cfg": {}, "preprocess_cfg": 3}', "'preprocess_cfg' of .* is no mapping"),
        ('{"model_cfg": {}, "preprocess_cfg": {"std": 0}}', "'preprocess_cfg' of .*open_clip_config.json has std 0"),
        ('{"model_cfg": {}}', "'model_cfg' of .* has no embed_dim, vision_cfg, text_cfg"),
        ('{"model_cfg": {"embed_dim": 2, "vision_cfg": {}}}', "has no text_cfg"),
    ],
)
def test_bad_configurations(tmp_path, config, message):
    (tmp_path / "open_clip_config.json").write_text(config)
    (tmp_path / "epoch_1.pt").write_bytes(b"")
    with pytest.raises(InputError, match=message):
        in_folder("m", tmp_path)


def test_a_folder_of_transformers_says_so(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"holds a model of transformers \(siglip\), not of open_clip; register it with"
    ):
        in_folder("m", tmp_path)


def test_a_folder_with_weights_alone_needs_its_architecture(tmp_path):
    (tmp_path / "epoch_1.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"cannot be read: No such file.*; with an architecture .* is ARCH/PATH"):
        in_folder("m", tmp_path)


def test_the_settings_beside_a_checkpoint_count(tmp_path, small, write_config):
    where = write_config(tmp_path / "run", small | {"quick_gelu": True}, **ALL)
    (where / "epoch_1.pt").write_bytes(b"")
    for path in (where, where / "epoch_1.pt"):
        found = of_architecture("m", "Small", path)
        assert (found.source, found.path) == ("Small", where / "epoch_1.pt")
        assert (list(found.settings.mean), found.settings.quick_gelu) == (MEAN, True)
        assert found.config == where / "open_clip_config.json"
        assert found.config in found.files


def test_without_any_the_defaults_count(tmp_path, small):
    (tmp_path / "w.pt").write_bytes(b"")
    found = of_architecture("m", "Small", tmp_path / "w.pt")
    assert found.settings.mean[0] == 0.48145466
    assert (found.config, found.files, found.settings.quick_gelu) == (None, (tmp_path / "w.pt",), False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["vision_cfg"].update(image_size=32), "vision_cfg.image_size is 32, not 16"),
        (lambda c: c["text_cfg"].update(no_causal_mask=True), "text_cfg.no_causal_mask is True, not None"),
        (lambda c: c.update(embed_dim=8), "embed_dim is 8, not 16"),
    ],
)
def test_a_configuration_of_another_architecture_beside_a_checkpoint_is_refused(
    tmp_path, small, write_config, change, message
):
    change(small)
    where = write_config(tmp_path / "run", small, **ALL)
    (where / "w.pt").write_bytes(b"")
    with pytest.raises(InputError, match=f"is of another architecture than Small: {message}; .* write local-dir:PATH"):
        of_architecture("m", "Small", where / "w.pt")


def test_what_says_nothing_of_the_weights_may_differ(tmp_path, small, write_config):
    small["text_cfg"] |= {"hf_model_pretrained": False, "layers": 1, "mlp_ratio": 4.0, "pool_type": "argmax"}
    small["vision_cfg"] |= {"patch_dropout": 0.5, "timm_drop_path": 0.1, "image_size": [16, 16], "no_ln_pre": False}
    where = write_config(tmp_path / "run", small, **ALL)
    (where / "w.pt").write_bytes(b"")
    assert of_architecture("m", "Small", where / "w.pt").config is not None


def test_the_tokenizers_files_are_among_a_models_files(tmp_path, small, write_config):
    small["text_cfg"]["hf_tokenizer_name"] = "timm/some"
    where = write_config(tmp_path / "run", small, **ALL)
    for name in ("w.pt", "tokenizer.json", "special_tokens_map.json", "notes.md", "other.onnx"):
        (where / name).write_bytes(b"")
    found = in_folder("m", where)
    assert found.has_tokenizer
    names = [path.name for path in found.files]
    assert names == ["open_clip_config.json", "special_tokens_map.json", "tokenizer.json", "w.pt"]


def test_the_architectures_are_open_clips():
    assert set(local_models.architectures()) == set(open_clip.list_models())
    described = local_models.read_architecture("ViT-B-32-quickgelu")
    assert described == open_clip.get_model_config("ViT-B-32-quickgelu")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("local-dir:a/b", ("", "a/b", "")),
        ("ViT-B-32/w.pt", ("ViT-B-32", "w.pt", "")),
        ("ViT-B-32/./w", ("ViT-B-32", "w", "")),
        ("ViT-B-32/a/w.pt@openai", ("ViT-B-32", "a/w.pt", "openai")),
        ("ViT-B-32/w.pt@openai", ("ViT-B-32", "w.pt", "openai")),
        ("ViT-B-32/openai", None),
        ("ViT-B-32", None),
        ("hf-hub:a/b", None),
        ("other/w.pt", None),
    ],
)
def test_names_of_files_are_told_from_names_of_tags(name, found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = None if found is None else (found[0], Path(found[1]), found[2])
    assert local_models.local_path(name, ["ViT-B-32"]) == expected


def test_a_folder_that_is_named_like_a_tag_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("openai").mkdir()
    assert local_models.local_path("ViT-B-32/openai", ["ViT-B-32"]) is None


def test_the_type_of_a_folder_with_both_configurations_is_open_clips(tmp_path, small, write_config):
    where = write_config(tmp_path / "run", small)
    (where / "config.json").write_text(json.dumps({"model_type": "clip"}))
    assert local_models.transformers_type(where) is None
