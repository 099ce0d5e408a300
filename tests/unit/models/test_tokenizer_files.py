"""What a model needs besides its checkpoint is here, or the run does not begin."""

import sys
import types

import pytest

from pytest_qreliab.errors import InputError
from pytest_qreliab.models import tokenizer_files
from pytest_qreliab.models.local_models import in_folder, of_architecture, read_architecture
from pytest_qreliab.models.tokenizer_files import check_packages, check_tokenizer


@pytest.fixture
def transformers(monkeypatch):
    """As if the package were installed."""
    monkeypatch.setattr(tokenizer_files, "_installed", lambda package: True)


@pytest.fixture
def cached(monkeypatch):
    """Sets what the cache of the Hugging Face hub holds: pairs of a repository and a file."""
    held = set()
    hub = types.ModuleType("huggingface_hub")
    hub.try_to_load_from_cache = lambda repository, file: "/cache/x" if (repository, file) in held else None
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    return held


@pytest.fixture
def siglip(tmp_path, write_config):
    """A folder of a SigLIP without its tokenizer."""
    config = read_architecture("ViT-B-16-SigLIP")
    where = write_config(tmp_path / "run", config)
    (where / "w.pt").write_bytes(b"")
    return where


def test_a_local_checkpoint_without_its_tokenizer_is_refused(siglip, transformers, cached):
    message = r"its checkpoint is here, its tokenizer, timm/ViT-B-16-SigLIP, is not; put .* hf download timm/ViT-B-16"
    with pytest.raises(InputError, match=message) as error:
        check_tokenizer(in_folder("m", siglip))
    assert f"--local-dir {siglip}" in str(error.value)
    with pytest.raises(InputError, match=message):
        check_tokenizer(of_architecture("m", "ViT-B-16-SigLIP", siglip / "w.pt"))


def test_the_tokenizer_beside_the_checkpoint_is_enough(siglip, transformers, cached):
    (siglip / "tokenizer.json").write_text("{}")
    check_tokenizer(in_folder("m", siglip))
    check_tokenizer(of_architecture("m", "ViT-B-16-SigLIP", siglip / "w.pt"))


def test_the_cache_is_enough_for_a_name_of_open_clip(siglip, transformers, cached):
    """For a folder it is not: open_clip looks in the folder alone."""
    cached.add(("timm/ViT-B-16-SigLIP", "tokenizer.json"))
    check_tokenizer(of_architecture("m", "ViT-B-16-SigLIP", siglip / "w.pt"))
    with pytest.raises(InputError, match="its tokenizer"):
        check_tokenizer(in_folder("m", siglip))


def test_a_text_tower_of_transformers_needs_its_description(tmp_path, transformers, cached):
    (tmp_path / "w.pt").write_bytes(b"")
    (tmp_path / "vocab.txt").write_bytes(b"")
    model = of_architecture("m", "roberta-ViT-B-32", tmp_path / "w.pt")
    with pytest.raises(
        InputError, match=r"text tower, roberta-base, is not; fetch it: hf download roberta-base config"
    ):
        check_tokenizer(model)
    cached.add(("roberta-base", "config.json"))
    check_tokenizer(model)


def test_a_text_tower_described_in_a_folder_is_here(tmp_path, transformers, cached, write_config):
    config = read_architecture("roberta-ViT-B-32")
    (tmp_path / "tower").mkdir()
    (tmp_path / "tower" / "config.json").write_text("{}")
    config["text_cfg"]["hf_model_name"] = str(tmp_path / "tower")
    where = write_config(tmp_path / "run", config)
    (where / "w.pt").write_bytes(b"")
    (where / "tokenizer.json").write_bytes(b"")
    check_tokenizer(in_folder("m", where))


def test_a_missing_package_is_said_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(tokenizer_files, "_installed", lambda package: package != "transformers")
    for name in ("ViT-B-16-SigLIP", "roberta-ViT-B-32"):
        with pytest.raises(
            InputError, match=r"model 'm' needs the package transformers: pip install 'pytest-qreliab\[hf"
        ):
            check_packages("m", read_architecture(name))
    check_packages("m", read_architecture("ViT-B-32"))


def test_other_architectures_need_nothing(tmp_path, small, cached):
    (tmp_path / "w.pt").write_bytes(b"")
    check_tokenizer(of_architecture("m", "Small", tmp_path / "w.pt"))
