from dataclasses import replace

import pytest
import torch

from pytest_qreliab.config.formats import Format
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.quantizers.request import Request
from pytest_qreliab.quantizers.training import pairs


@pytest.fixture
def load(tiny):
    """Loads the data of a method that compares something, in both towers if no scope is given."""

    def load(calibration, compared, scope="both", **given):
        parameters = Catalog().recipe("lsq").parameters.model_copy(update=given)
        request = Request(bits=Format.integers(3), scope=scope, parameters=parameters, calibration=calibration)
        return pairs.load(tiny, request, compared)

    return load


@pytest.fixture(scope="module")
def captioned(calibration):
    """Ten of the calibration images, darker, with a caption each; the last two captions are one."""
    images = calibration.images.first_evenly(10)
    captions = [f"caption {min(i, 8)}" for i in range(10)]
    return replace(images, load=lambda i: images.load(i).point(lambda x: x // 2), labels=None, captions=captions)


def texts(data):
    return [data.texts[place] for place in data.captions.tolist()]


def test_without_captions_pairs_are_every_image_with_the_templates_of_its_class_in_turn(calibration, load):
    data = load(calibration, "pairs")
    assert data.pixels.shape == (40, 3, 32, 32)
    assert data.labels.tolist() == calibration.images.labels.tolist()
    assert len(data.texts) == 30
    templates, classes = calibration.templates, calibration.classes
    assert texts(data) == [templates[i // 10 % 3].replace("{}", classes[i % 10]) for i in range(40)]


@pytest.mark.parametrize("scope", ["vision", "text", "both"])
@pytest.mark.parametrize("own", [True, False], ids=["beside calibration images", "alone"])
def test_captions_make_pairs_in_which_equal_ones_have_one_label(tiny, calibration, captioned, load, scope, own):
    held = replace(calibration, images=calibration.images if own else captioned, pairs=captioned)
    data = load(held, "pairs", scope)
    assert torch.equal(data.pixels, torch.stack([tiny.preprocess(captioned.load(i)) for i in range(10)]))
    assert texts(data) == captioned.captions
    assert data.labels.tolist() == [*range(9), 8]
    few = load(held, "pairs", scope, images=5)
    drawn = [
        i for i in range(10) if any(torch.equal(tiny.preprocess(captioned.load(i)), image) for image in few.pixels)
    ]
    assert (len(drawn), texts(few)) == (5, [captioned.captions[i] for i in drawn])


@pytest.mark.parametrize("scope", ["vision", "text", "both"])
def test_similarities_are_those_of_any_images_and_prompts_whatever_the_scope(calibration, captioned, load, scope):
    unlabelled = replace(calibration, images=replace(calibration.images, labels=None))
    data = load(unlabelled, "similarities", scope)
    assert (len(data.pixels), len(data.texts), data.labels) == (40, 30, None)
    paired = load(replace(unlabelled, pairs=captioned), "similarities", scope)
    assert (len(paired.pixels), texts(paired), paired.labels) == (10, captioned.captions, None)


@pytest.mark.parametrize(("scope", "has"), [("vision", (40, 0)), ("text", (0, 30)), ("both", (40, 30))])
def test_features_are_those_of_the_towers_in_scope(calibration, captioned, load, scope, has):
    def sizes(data):
        assert data.labels is None
        return tuple(0 if part is None else len(part) for part in (data.pixels, data.texts))

    assert sizes(load(calibration, "features", scope)) == has
    with_captions = load(replace(calibration, pairs=captioned), "features", scope)
    assert sizes(with_captions) == (has[0], 9 if has[1] else 0)


def test_data_that_are_missing_are_an_error(calibration, load):
    none, unlabelled = (
        replace(calibration, images=images) for images in (None, replace(calibration.images, labels=None))
    )
    for compared, scope in (("features", "vision"), ("similarities", "text"), ("pairs", "text")):
        with pytest.raises(ValueError, match="needs calibration images"):
            load(none, compared, scope)
    with pytest.raises(ValueError, match="needs captions or labels"):
        load(unlabelled, "pairs")
    assert load(none, "features", "text").pixels is None


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (7, 7), (5, 16)])
def test_an_epoch_draws_every_item_once_and_a_step_the_same_again(count, batch):
    drawn = torch.cat([pairs.draw(count, batch, 3, step) for step in range(count)])
    used = min(batch, count)
    assert len(drawn) == used * count
    assert all(sorted(epoch.tolist()) == list(range(count)) for epoch in drawn.split(count))
    assert torch.equal(pairs.draw(count, batch, 3, 2), drawn[2 * used : 3 * used])
    assert not torch.equal(torch.cat([pairs.draw(count, batch, 4, step) for step in range(count)]), drawn)
