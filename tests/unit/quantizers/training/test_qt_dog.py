"""QT-DoG: training on the task, without rounding and then with it."""

from dataclasses import replace

import pytest

from pytest_qreliab.config.formats import Format
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.quantizers.inspection import coverage
from pytest_qreliab.quantizers.training import qt_dog
from pytest_qreliab.quantizers.training.losses import contrastive
from pytest_qreliab.quantizers.training.parametrize import learn_steps, learn_weights


@pytest.fixture(scope="module")
def captioned(calibration):
    """The forty images with a caption each, and labels that nobody may look at."""
    captions = [f"caption {i}" for i in range(40)]
    return replace(calibration, pairs=replace(calibration.images, labels=None, captions=captions))


@pytest.fixture
def clip(architecture_of):
    return architecture_of("vit")


def test_the_first_forty_per_cent_of_the_steps_round_nothing(clip, captioned, monkeypatch, train):
    """The authors train 5,000 steps, of which the first 2,000 in full precision."""
    calls = []

    def quantize(clip, request, method, **given):
        calls.append((request.parameters.steps, given["parametrize"], given["loss"], given["compared"]))
        return clip

    monkeypatch.setattr(qt_dog, "quantize", quantize)
    train(clip, captioned, "qt-dog", steps=5000)
    assert calls == [(2000, learn_weights, contrastive, "pairs"), (3000, learn_steps, contrastive, "pairs")]


def test_without_a_start_it_is_lsq_on_the_task_and_without_captions_plain_lsq(
    clip, captioned, calibration, train, same
):
    few = {"scope": "vision", "steps": 2}
    assert same(
        train(clip, captioned, "qt-dog", unrounded=0.0, **few), train(clip, captioned, "lsq+contrastive", **few)
    )
    assert same(train(clip, calibration, "qt-dog", **few), train(clip, calibration, "lsq", **few))


def test_a_start_alone_trains_weights_that_are_rounded_at_its_end(clip, captioned, train):
    given = {"scope": "vision", "unrounded": 1.0, "learning_rate": 0.5}
    started = train(clip, captioned, "qt-dog", Format.integers(8), **given)
    found = coverage.measure(clip, started, Format.integers(8), "vision")
    assert (found.weights, found.missing) == (1.0, ())
    before, after = clip.module.visual.conv1.weight, started.module.visual.conv1.weight
    assert float((after - before).abs().amax()) > 0.75 * float(before.abs().amax()) / 127  # rounding moves it by half


def test_a_killed_run_goes_on_to_the_same_result(clip, captioned, tmp_path, train, same):
    given = {"scope": "vision", "steps": 5}
    whole = train(clip, captioned, "qt-dog", **given)
    done = []

    def advance(more):
        done.append(more)
        if sum(done) == 4:  # two in each part
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(clip, captioned, "qt-dog", checkpoints=tmp_path, advance=advance, **given)
    advances = []
    assert same(train(clip, captioned, "qt-dog", checkpoints=tmp_path, advance=advances.append, **given), whole)
    assert advances == [2, 2, 1]


def test_a_bare_width_is_of_weights_alone():
    recipe = Catalog().recipe("qt-dog")
    assert str(recipe.bits(7, "both")) == "w7"
    assert recipe.needs(Format.of("w7")) == "both"
