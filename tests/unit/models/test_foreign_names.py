"""Names of models of other libraries lead to what to write."""

import json

import pytest

from pytest_qreliab.errors import InputError
from pytest_qreliab.models import foreign_names, loading
from pytest_qreliab.models.foreign_names import check_runtime, describe_foreign


@pytest.mark.parametrize("suffix", sorted(foreign_names.RUNTIMES))
@pytest.mark.parametrize("start", ["", "runs/", "ViT-B-32/", "local-dir:"])
def test_files_of_runtimes_lead_to_recordings(start, suffix):
    with pytest.raises(InputError, match=rf"a \{suffix} file is a model of a runtime; record .* recorded:PATH, .*wrap"):
        loading.check_model_name(f"{start}model{suffix}")


def test_other_suffixes_are_none_of_a_runtime():
    for name in ("ViT-B-32/w.pt", "local-dir:clip", "ViT-B-32/laion2b_s34b_b79k", "hf-hub:a/b.c"):
        check_runtime(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("openai/clip-vit-base-patch32", "open_clip has the same weights as ViT-B-32/openai"),
        ("openai/clip-vit-large-patch14-336", "open_clip has the same weights as ViT-L-14-336/openai"),
        ("google/siglip-base-patch16-224", "write hf-hub:google/siglip-base-patch16-224, which needs open_clip_config"),
        ("weights.pt", "a checkpoint needs its architecture: write ARCH/weights.pt, such as ViT-B-32/weights.pt"),
        ("runs/weights.safetensors", "write ARCH/runs/weights.safetensors"),
    ],
)
def test_names_that_open_clip_does_not_know(name, said):
    assert said in describe_foreign(name)
    with pytest.raises(InputError, match=f"unknown model '{name}'") as error:
        loading.check_model_name(name)
    assert said in str(error.value)


@pytest.mark.parametrize("name", ["tiny", "a/b/c", "/a"])
def test_of_others_nothing_is_known(name):
    assert describe_foreign(name) is None


def test_folders_are_told_by_what_is_in_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("plain", "ours", "theirs"):
        (tmp_path / name).mkdir()
    (tmp_path / "ours" / "open_clip_config.json").write_text("{}")
    (tmp_path / "theirs" / "config.json").write_text(json.dumps({"model_type": "clip"}))
    assert describe_foreign("ours").endswith("write local-dir:ours")
    assert "folder of transformers (clip), not of open_clip; register it with Clip.wrap" in describe_foreign("theirs")
    assert "write ARCH/plain" in describe_foreign("plain")
    with pytest.raises(InputError, match="unknown model 'theirs': it is a folder of transformers"):
        loading.check_model_name("theirs")
