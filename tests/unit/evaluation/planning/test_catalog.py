"""What has a name: quantizers, variants and models."""

import re
from dataclasses import replace

import pytest

from pytest_qreliab import Parameters, Quantizer
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.quantizers.parameters import Percentile
from pytest_qreliab.quantizers.recipe import Recipe


class Demanding(Parameters):
    strength: float


OWN = Quantizer(name="own", help="my own", function=lambda clip, request: clip)


def test_a_registered_quantizer_is_a_recipe_like_any_other():
    catalog = Catalog()
    catalog.add_quantizer(OWN)
    assert catalog.recipe("own").quantizer is OWN
    assert catalog.recipe("own").apply() is OWN.function
    assert catalog.recipe("own+rescale").rescale
    assert "own" not in Catalog().quantizers


def test_variants_have_their_parameters_and_can_be_rescaled():
    quantizer = Catalog().quantizers["percentile"]
    catalog = Catalog().with_variants([Recipe(name="p99", quantizer=quantizer, parameters=Percentile(share=99.0))])
    assert catalog.recipe("p99").parameters.share == 99.0
    rescaled = catalog.recipe("p99+rescale")
    assert (rescaled.name, rescaled.parameters.share, rescaled.rescale) == ("p99+rescale", 99.0, True)
    with pytest.raises(InputError, match="unknown quantizer 'p98'; did you mean 'p99'"):
        catalog.recipe("p98")


@pytest.mark.parametrize(
    ("quantizer", "message"),
    [
        (replace(OWN, name="minmax"), "a quantizer 'minmax' is there already; give the new one another name"),
        (replace(OWN, name="a,b"), "the quantizer name 'a,b' is no plain word: letters, digits"),
        (replace(OWN, name="own+rescale"), "no plain word"),
        (replace(OWN, name=""), "no plain word"),
        (replace(OWN, name=None), "no plain word"),
        (replace(OWN, parameters=dict), "must be a subclass of"),
        ("minmax", "add_quantizer takes a Quantizer, not a str"),
    ],
)
def test_quantizers_that_cannot_be_registered(quantizer, message):
    with pytest.raises(InputError, match=message):
        Catalog().add_quantizer(quantizer)


def test_a_parameter_without_a_default_needs_a_variant():
    catalog = Catalog()
    catalog.add_quantizer(replace(OWN, parameters=Demanding))
    with pytest.raises(InputError, match="quantizer 'own' has no default for strength; define a variant of it"):
        catalog.recipe("own")


def test_a_registered_model_is_made_when_it_is_loaded_and_not_before(tiny):
    made = []
    catalog = Catalog()
    catalog.add_model("mine", lambda: made.append(1) or tiny, help="my own")
    load = catalog.model("mine")
    assert not made
    assert load().name == "mine"
    assert made == [1]
    assert catalog.models["mine"].help == "my own"


@pytest.mark.parametrize("name", ["tiny-digits", "mine", "ViT-B-32"])
def test_model_names_that_are_taken(name, tiny):
    catalog = Catalog()
    catalog.add_model("mine", tiny)
    with pytest.raises(InputError, match=f"a model '{name}' is there already"):
        catalog.add_model(name, tiny)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "hf-hub:a", "-a", "ä", 3])
def test_model_names_that_are_no_plain_word(name, tiny):
    with pytest.raises(InputError, match="no plain word"):
        Catalog().add_model(name, tiny)


def test_a_mistyped_name_is_told_the_registered_one(tiny):
    catalog = Catalog()
    catalog.add_model("my-own-clip", tiny)
    with pytest.raises(InputError, match="unknown model 'my-own-clp'; did you mean 'my-own-clip'"):
        catalog.model("my-own-clp")


def test_a_path_in_a_models_name_starts_in_the_folder_where_it_is_there(tmp_path, write_local_model, monkeypatch):
    write_local_model(tmp_path / "suite" / "model")
    monkeypatch.chdir(tmp_path)
    clip = Catalog().model("local-dir:model", tmp_path / "suite")()
    assert clip.name == "local-dir:model"
    with pytest.raises(InputError, match=r"local-dir:.*model': .*/model/open_clip_config.json cannot be read"):
        Catalog().model("local-dir:model", tmp_path)
    (tmp_path / "suite" / "bad.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"checkpoint /.*/suite/bad\.pt is damaged"):
        Catalog().model("RN50/bad.pt", tmp_path / "suite")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("int8.xml", "a .xml file is a model of a runtime; record its outputs and give them as recorded:PATH"),
        ("artifact:out/clip.ENGINE", "a .engine file is a model of a runtime; record its outputs and give them as"),
        ("artifact:vision.onnx", "or give the folder of its ONNX towers as artifact:PATH"),
        ("phone.npz", "if these are recorded outputs, write recorded:phone.npz"),
    ],
)
def test_files_of_runtimes_and_outputs_are_pointed_to_recordings(name, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Catalog().recipe(name)
    plain = name.removeprefix("artifact:")
    with pytest.raises(InputError, match=r"recorded:"):
        Catalog().model(plain)


def test_the_path_of_an_artifact_starts_in_the_folder_of_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [
        Catalog().recipe(f"artifact:{path}", folder).parameters.path
        for path, folder in [
            ("m.pt", None),
            ("m.pt", tmp_path / "project"),
            ("/m.pt", tmp_path / "project"),
            ("m.pt", tmp_path.parent),
        ]
    ]
    # Below the working directory it is relative, so that another checkout has the same plan.
    assert paths == ["m.pt", "project/m.pt", "/m.pt", str(tmp_path.parent / "m.pt")]
