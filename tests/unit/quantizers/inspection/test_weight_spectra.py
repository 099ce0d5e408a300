"""The singular spectra of weights."""

import numpy as np
import pytest
import torch

from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.metrics.rank import bands
from pytest_qreliab.quantizers.engine.layers import unpack_layers
from pytest_qreliab.quantizers.inspection import weight_spectra


@pytest.fixture(scope="module")
def found(tiny, quantize):
    return weight_spectra.spectra(tiny, quantize(tiny, "minmax", Format.integers(4)), "vision")


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_a_weight_of_known_values_and_error(shape):
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.normal(size=(n, 4)))[0] for n in shape)
    values = np.array([8.0, 4.0, 2.0, 1.0])
    weight = torch.from_numpy(u @ np.diag(values) @ v.T)
    of = weight_spectra._spectrum("w", weight, torch.from_numpy(u @ np.diag(values * [1, 1, 1, 0]) @ v.T))
    assert of.singular_values == pytest.approx(values)
    assert of.quantized == pytest.approx([8, 4, 2, 0], abs=1e-6)
    assert of.error == pytest.approx([0, 0, 0, 1], abs=1e-12)
    sums = of.sums()
    assert sums[""] == pytest.approx((1, 85))
    assert sums["high_rank"] == pytest.approx((1, 5))
    before, after = weight_spectra.metrics([of, of])
    assert after["spectral.weight_error"] == pytest.approx((1 / 85) ** 0.5)
    assert after["spectral.weight_error_low_rank"] == pytest.approx(0, abs=1e-9)
    assert set(before) == set(after)


def test_every_weight_is_there_and_its_error_is_that_of_the_matrix(tiny, quantize, found):
    quantized = quantize(tiny, "minmax", Format.integers(4))
    for of in found:
        first = next(p for n, p in quantized.module.named_parameters() if n == f"{of.name}.weight")
        assert len(of.singular_values) == min(first.flatten(1).shape)
        if (before := dict(tiny.module.named_parameters()).get(f"{of.name}.weight")) is not None:
            error = float((first - before).double().square().sum())
            assert float(of.error.sum()) == pytest.approx(error, rel=1e-6)
            expected = torch.linalg.svdvals(before.flatten(1).double()).numpy()
            assert of.singular_values == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert len(found) > 10


def test_the_same_weights_err_in_nothing(tiny):
    before, after = weight_spectra.metrics(weight_spectra.spectra(tiny, unpack_layers(tiny, "text")[0], "text"))
    assert after == pytest.approx(before, abs=1e-12)


def test_bands_of_errors_add_up(found):
    for of in found:
        sums = of.sums()
        for index in (0, 1):
            assert sum(sums[band][index] for band in bands(len(of.error))) == pytest.approx(sums[""][index])


def test_weights_that_a_library_keeps_are_refused(tiny, monkeypatch):
    clip = tiny.copy()
    name = next(n for n, m in clip.module.named_modules() if isinstance(m, torch.nn.Linear) and n.startswith("visual"))
    clip.module.set_submodule(name, torch.nn.Identity())
    with pytest.raises(InputError, match=r"cannot be looked at: its layer .* has no dense weight"):
        weight_spectra.spectra(tiny, clip, "vision")
