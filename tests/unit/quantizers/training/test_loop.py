from dataclasses import replace

import pytest
import torch

from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.quantizers.engine import grid
from pytest_qreliab.quantizers.parameters import RoundingParameters, Training
from pytest_qreliab.quantizers.post_training import procedure
from pytest_qreliab.quantizers.request import Request
from pytest_qreliab.quantizers.training import loop, losses, parametrize


def test_it_errs_less_than_rounding_does(tiny, calibration, pixels, train, feature_error):
    request = Request(bits=Format.integers(2), scope="both", parameters=RoundingParameters(), calibration=calibration)
    rounded = procedure.quantize(tiny, request, rounder=procedure.nearest(grid.mse))
    trained = train(tiny, calibration, bits=Format.integers(2), steps=20)
    assert feature_error(trained, tiny, pixels) < feature_error(rounded, tiny, pixels) / 2


def test_the_text_tower_alone_needs_no_images(tiny, calibration, train, same):
    alone = replace(calibration, images=None)
    assert same(train(tiny, alone, scope="text"), train(tiny, calibration, scope="text"))


def run(tiny, calibration, loss, **given):
    request = Request(
        bits=Format.integers(3), scope="both", parameters=Training(batch=8, **given), calibration=calibration
    )
    loop.quantize(tiny, request, "test", loss=loss, parametrize=parametrize.learn_steps)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_becomes_nan_is_refused(tiny, calibration, bad):
    factors = iter([1.0, 1.0, bad])
    with pytest.raises(
        InputError, match=rf"^tiny-digits: the loss became {bad} at training step 3; lower learning_rate"
    ):
        run(tiny, calibration, lambda features: losses.feature_mse(features) * next(factors), steps=4)


def test_a_last_step_that_breaks_the_weights_is_refused(tiny, calibration):
    with pytest.raises(InputError, match="the loss became nan at training step 2; lower learning_rate"):
        # 0, with a gradient of NaN
        run(tiny, calibration, lambda features: (losses.feature_mse(features) * 0).sqrt(), steps=2)


def test_a_model_of_nan_is_refused(tiny, calibration, train):
    broken = tiny.copy()
    with torch.no_grad():
        broken.module.visual.conv1.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="NaN or infinity in the full-precision features"):
        train(broken, calibration)


def test_layers_that_no_feature_comes_from_may_hold_anything(tiny, calibration, train):
    clip = tiny.copy()
    clip.module.decoder = torch.nn.Linear(4, 4).eval()
    torch.nn.init.constant_(clip.module.decoder.weight, torch.nan)
    assert (
        train(clip, calibration, bits=Format.integers(3, 8)).encode_text(["a photo of the digit 7."]).isfinite().all()
    )
