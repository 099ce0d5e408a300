import pytest
import torch

from pytest_qreliab.errors import InputError
from pytest_qreliab.models import hub as hubs
from pytest_qreliab.models import loading


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny-digit", "unknown model 'tiny-digit'; did you mean 'tiny-digits'"),
        ("vit-b-32/openai", "did you mean 'ViT-B-32'"),
        ("ViT-B-32", "names no weights; write ViT-B-32/TAG with one of .*openai"),
        ("ViT-B-32/opnai", "did you mean 'openai'"),
        ("ViT-B-32/missing.pt", "there is no checkpoint /"),
        ("ViT-B-32/./missing", "there is no checkpoint /"),
        ("hf-hub:only-a-name", "ORGANISATION/REPOSITORY"),
        ("hf-hub:org/name@", "@REVISION"),
        ("local-dir:/nowhere", "open_clip_config.json cannot be read"),
    ],
)
def test_names_that_cannot_be_loaded(name, message):
    with pytest.raises(InputError, match=message):
        loading.check_model_name(name)


def test_names_that_can():
    for name in ("tiny-digits", "ViT-B-32/openai", "ViT-B-32/laion2b-s34b-b79k", "hf-hub:org/name"):
        loading.check_model_name(name)


def test_a_model_of_a_hub_is_the_same_as_from_a_folder(hub, hub_model):
    commit = hub.commit("models/org/small")
    loader = loading.find_loader("hf-hub:org/small@main", "hf-hub:org/small@main")
    assert (loader.files, hub.requests) == ((), []), "nothing is asked before it is asked for"
    fetched = loader.fetched()
    hub.requests.clear()
    clip, local = fetched(), loading.load_model(f"local-dir:{hub_model}")
    assert clip.name == "hf-hub:org/small@main"
    assert torch.equal(clip.module.visual.proj, local.module.visual.proj)
    assert torch.equal(clip.tokenizer(["a cat"]), local.tokenizer(["a cat"]))
    assert str(clip.preprocess) == str(local.preprocess)
    assert hub.requests == [], "what is loaded is here"
    facts = fetched.describe().facts
    assert (facts["repository"], facts["commit"]) == ("org/small@main", commit)
    assert dict(loading.find_loader(f"local-dir:{hub_model}", "x").describe().facts).items() <= dict(facts).items()
    assert str(fetched.files[0].parent).endswith(commit)


def test_a_model_that_is_not_downloaded_is_named_and_not_loaded(hub, hub_model):
    with hubs.access(hubs.Access(network=False)):
        loader = loading.find_loader("hf-hub:org/small", "hf-hub:org/small").fetched()
    assert dict(loader.describe().facts) == {"files": "not downloaded yet"}
    with pytest.raises(InputError, match="model org/small@main is not downloaded yet"):
        loader()
    assert hub.requests == []


def test_weights_of_a_hub_that_cannot_be_used_are_named_by_their_repository(hub, hub_model):
    hub.repositories["models/org/small"]["open_clip_model.safetensors"] = b"no weights at all"
    damaged = r"model 'hf-hub:org/small': checkpoint open_clip_model.safetensors is damaged"
    with pytest.raises(InputError, match=damaged) as raised:
        loading.find_loader("hf-hub:org/small", "hf-hub:org/small").fetched()
    assert "/tmp" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "anchored"),
    [
        ("ViT-B-32/w.pt", "ViT-B-32/{}/w.pt"),
        ("ViT-B-32/w.pt@openai", "ViT-B-32/{}/w.pt@openai"),
        ("ViT-B-32/w@2.pt", "ViT-B-32/{}/w@2.pt"),
        ("ViT-B-32/runs", "ViT-B-32/{}/runs"),
        ("local-dir:runs", "local-dir:{}/runs"),
        ("ViT-B-32/openai", "ViT-B-32/openai"),
        ("ViT-B-32", "ViT-B-32"),
        ("tiny-digits", "tiny-digits"),
        ("hf-hub:a/b@c", "hf-hub:a/b@c"),
    ],
)
def test_a_path_in_a_name_starts_in_the_folder_of_its_file(tmp_path, name, anchored):
    (tmp_path / "w@2.pt").write_bytes(b"")
    (tmp_path / "runs").mkdir()
    assert loading.anchor_path(name, tmp_path) == anchored.format(tmp_path)
    assert loading.anchor_path(name, None) == name
