import json

import open_clip
import pytest

from pytest_qreliab.errors import InputError
from pytest_qreliab.models import hub as hubs
from pytest_qreliab.models import hub_models
from pytest_qreliab.models.hub import Access, Reference

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
CONFIG = {"model_cfg": {"embed_dim": 16, "vision_cfg": {"image_size": 16}, "text_cfg": TEXT}, "preprocess_cfg": {}}


def config(**text):
    described = {**CONFIG, "model_cfg": {**CONFIG["model_cfg"], "text_cfg": {**TEXT, **text}}}
    return json.dumps(described).encode()


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf-hub:org/name", Reference("org/name", "main")),
        ("hf-hub:org/name@v1.0", Reference("org/name", "v1.0")),
        ("hf-hub:org/na.me@refs/pr/4", Reference("org/na.me", "refs/pr/4")),
        (f"hf-hub:org/name@{'a1' * 20}", Reference("org/name", "a1" * 20)),
    ],
)
def test_a_name_tells_a_repository_and_a_revision(name, expected):
    assert hub_models.parse(name) == expected


@pytest.mark.parametrize(
    "name", ["name", "a/b/c", "/b", "a/", "a/b@", "a/b@../../c", "a/b@/c", "a/b@c d", "../b", "a/b@c@d", "a b/c"]
)
def test_a_name_of_another_form_is_refused(name):
    with pytest.raises(InputError, match="write hf-hub:ORGANISATION/REPOSITORY, and perhaps @REVISION"):
        hub_models.parse(f"hf-hub:{name}")


def test_only_the_files_that_open_clip_needs_are_fetched(hub):
    hub.repositories["models/org/name"] = {
        "README.md": b"read me",
        "open_clip_config.json": config(),
        "open_clip_model.safetensors": b"the right weights",
        "open_clip_pytorch_model.bin": b"the same in another format",
        "pytorch_model.bin": b"those of another library",
        "tokenizer.json": b"that it has no use for",
    }
    fetched = hub_models.fetch("hf-hub:org/name")
    assert names(fetched.folder) == ["open_clip_config.json", "open_clip_model.safetensors"]
    assert (fetched.folder / "open_clip_model.safetensors").read_bytes() == b"the right weights"
    assert [path.name for path in fetched.files] == ["open_clip_config.json", "open_clip_model.safetensors"]
    assert dict(fetched.facts) == {"repository": "org/name@main", "commit": hub.commit("models/org/name")}
    assert not any("README" in request or "pytorch_model" in request for request in hub.requests)


def test_weights_of_the_older_format_are_taken_where_there_are_no_others(hub):
    hub.repositories["models/org/name"] = {"open_clip_config.json": config(), "open_clip_pytorch_model.bin": b"weights"}
    pinned = f"hf-hub:org/name@{hub.commit('models/org/name')}"
    assert names(hub_models.fetch(pinned).folder) == ["open_clip_config.json", "open_clip_pytorch_model.bin"]
    hub.requests.clear()
    assert hub_models.fetch(pinned).files[-1].read_bytes() == b"weights"
    assert hub.requests == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"config.json": b"{}", "model.safetensors": b"weights"},
            r"has no open_clip_config.json, .*; it holds config.json, model.safetensors; a model of another library",
        ),
        (
            {"open_clip_config.json": config(), "model.safetensors": b"weights"},
            r"has no weights of open_clip: open_clip_model.safetensors or open_clip_pytorch_model.bin; it holds",
        ),
        ({"open_clip_config.json": b"{"}, "open_clip_config.json is no configuration of open_clip: JSONDecodeError"),
        ({"open_clip_config.json": b"[]"}, "open_clip_config.json is no configuration of open_clip: TypeError"),
        ({"open_clip_config.json": b"{}"}, "is no configuration of open_clip: KeyError: 'model_cfg'"),
        (
            {"open_clip_config.json": config(hf_tokenizer_name="org/name"), "open_clip_model.safetensors": b"weights"},
            "its tokenizer is that of org/name, which has none of tokenizer.json",
        ),
        (
            {"open_clip_config.json": config(hf_tokenizer_name="org/other"), "open_clip_model.safetensors": b"weights"},
            r"^model org/other@main: there is no repository org/other",
        ),
    ],
    ids=["no config", "no weights", "no JSON", "a list", "no model_cfg", "no tokenizer", "no repository of it"],
)
def test_a_repository_that_is_no_model_of_open_clip_is_refused(hub, files, message):
    hub.repositories["models/org/name"] = files
    with pytest.raises(InputError, match=message) as raised:
        hub_models.fetch("hf-hub:org/name")
    assert "\n" not in str(raised.value)


def test_a_tokenizer_and_a_text_tower_of_other_repositories_are_fetched_beforehand(hub):
    hub.repositories["models/org/name"] = {
        "open_clip_config.json": config(hf_tokenizer_name="org/words", hf_model_name="org/tower"),
        "open_clip_model.safetensors": b"weights",
    }
    hub.repositories["models/org/words"] = {"tokenizer.json": b"{}", "tokenizer_config.json": b"{}", "README.md": b""}
    hub.repositories["models/org/tower"] = {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"large"}
    fetched = hub_models.fetch("hf-hub:org/name")
    assert names(fetched.folder) == [
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "text_tower/config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    described = json.loads((fetched.folder / "open_clip_config.json").read_text())
    assert described["model_cfg"]["text_cfg"]["hf_model_name"] == str(fetched.folder / "text_tower")
    assert fetched.facts["tokenizer"] == f"org/words {hub.commit('models/org/words')[:12]}"
    assert fetched.facts["text tower"] == f"org/tower {hub.commit('models/org/tower')[:12]}"
    assert len(fetched.files) == 5
    hub.requests.clear()
    with hubs.access(Access(network=False)):
        assert hub_models.fetch("hf-hub:org/name").files == fetched.files
    assert hub_models.fetch(f"hf-hub:org/name@{hub.commit('models/org/name')}").files == fetched.files
    assert hub.requests == []


@pytest.mark.parametrize(
    ("tag", "repository", "file"),
    [
        ("openai", "timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors"),
        ("laion2b-s34b-b79k", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "open_clip_pytorch_model.bin"),
    ],
)
def test_the_weights_of_a_tag_come_with_its_own_settings(hub, tag, repository, file):
    hub.repositories[f"models/{repository}"] = {file: b"weights"}
    fetched = hub_models.fetch(f"ViT-B-32/{tag}")
    assert names(fetched.folder) == ["open_clip_config.json", file]
    described = json.loads((fetched.folder / "open_clip_config.json").read_text())
    assert described["model_cfg"].pop("quick_gelu", False) == (tag == "openai")
    assert described["model_cfg"] == open_clip.get_model_config("ViT-B-32")
    known = open_clip.get_pretrained_cfg("ViT-B-32", tag)
    assert described["preprocess_cfg"]["mean"] == list(known["mean"])
    assert described["preprocess_cfg"]["interpolation"] == known["interpolation"]
    assert fetched.facts["commit"] == hub.commit(f"models/{repository}")
    assert fetched.facts["settings of"] == f"tag {tag}"
    assert [path.name for path in fetched.files] == [file]


def test_a_tag_whose_repository_is_not_there_is_one_message(hub):
    with pytest.raises(InputError, match=r"^model timm/vit_base_patch32_clip_224.openai@main: there is no repository"):
        hub_models.fetch("ViT-B-32/openai")
    hub.repositories["models/timm/vit_base_patch32_clip_224.openai"] = {"README.md": b""}
    with pytest.raises(InputError, match=r"has none of the weights of ViT-B-32/openai: open_clip_model.safetensors or"):
        hub_models.fetch("ViT-B-32/openai")
