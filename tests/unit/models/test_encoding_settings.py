import pytest
from open_clip.transform import PreprocessCfg, image_transform_v2

from pytest_qreliab.errors import InputError
from pytest_qreliab.models.description import in_words
from pytest_qreliab.models.encoding_settings import EncodingSettings, check_image_settings


def test_the_defaults_are_those_of_open_clip():
    theirs, ours = PreprocessCfg(), EncodingSettings()
    assert ours.image_settings == {name: getattr(theirs, name) for name in ours.image_settings}


def test_given_settings_take_the_place_of_others():
    given = {"mean": 0.5, "std": [0.5, 0.25, 1], "size": 8, "interpolation": None, "fill_color": 255}
    found = EncodingSettings().with_image_settings(given)
    assert (found.mean, found.std) == ((0.5, 0.5, 0.5), (0.5, 0.25, 1.0))
    assert found.image_settings["fill_color"] == 255
    assert found.facts()["resize mode"] == "shortest, filled with 255"
    assert (found.interpolation, found.resize_mode) == ("bicubic", "shortest")


def test_facts_and_differences_in_words():
    plain, other = EncodingSettings(), EncodingSettings(mean=(0.0,) * 3, quick_gelu=True)
    assert plain.facts() == {
        "mean": "0.4815 0.4578 0.4082",
        "std": "0.2686 0.2613 0.2758",
        "interpolation": "bicubic",
        "resize mode": "shortest",
        "activation": "GELU",
    }
    assert plain.differences(other) == {"mean": "0", "activation": "QuickGELU"}
    assert in_words(plain.differences(other)) == "mean 0, activation QuickGELU"
    assert plain.differences(plain) == {}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"mean": None, "std": 1, "mode": "RGB", "size": 8},
        {"mean": [0, 0, 0], "std": (1, 0.5, 1), "interpolation": "random", "resize_mode": "longest", "fill_color": 9},
    ],
)
def test_what_open_clip_takes_is_taken(given):
    check_image_settings(given, "it")
    image_transform_v2(PreprocessCfg(**given), is_train=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"interpolation": "BICUBIC"}, "it has interpolation 'BICUBIC'; open_clip has bicubic, bilinear, random"),
        ({"resize_mode": "crop"}, "it has resize_mode 'crop'; open_clip has shortest, longest, squash"),
        ({"mode": "L"}, "it has mode 'L'; open_clip has RGB"),
        ({"mean": "imagenet"}, "it has mean 'imagenet'; three finite numbers are needed"),
        ({"mean": [0.5, 0.5]}, "it has mean .* three finite numbers"),
        ({"std": [None, 1, 1]}, "it has std .* three finite numbers"),
        ({"std": [1, float("nan"), 1]}, "it has std .* three finite numbers"),
        ({"std": [1, 0, 1]}, r"it has std \[1, 0, 1\], which open_clip cannot use$"),
        ({"mean": 0}, r"it has mean 0, which open_clip cannot use; write \[0, 0, 0\]"),
    ],
)
def test_what_open_clip_cannot_use_is_refused(given, message):
    """A mean of 0 alone is open_clip's default to it, 0.48, and so would be another model's."""
    with pytest.raises(InputError, match=message):
        check_image_settings(given, "it")
