"""The half-quadratic solver, against torchao's."""

import pytest
import torch
from pydantic import ValidationError

from pytest_qreliab.config.formats import Format, integer
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.quantizers.engine import grid
from pytest_qreliab.quantizers.engine.grid import Scheme
from pytest_qreliab.quantizers.inspection import coverage
from pytest_qreliab.quantizers.parameters import Hqq
from pytest_qreliab.quantizers.post_training import hqq, procedure


@pytest.fixture(scope="module")
def weight():
    torch.manual_seed(0)
    weight = torch.randn(24, 64) * torch.rand(24, 1) + 0.1 * torch.rand(24, 1)
    weight[::5, 7] *= 6
    return weight


@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_weights_are_those_of_torchaos_solver(weight, bits, group):
    primitives = pytest.importorskip("torchao.quantization.quant_primitives")
    reference = getattr(primitives, "_choose_qparams_and_quantize_affine_hqq", None)
    if reference is None:
        pytest.skip("this torchao has no HQQ")
    codes, scale, zero, _ = reference(
        weight, nbits=bits, group_size=group, compute_dtype=torch.float32, device="cpu", raw_output=True
    )
    groups = codes.reshape(-1, group).float()
    expected = ((groups - zero.reshape(-1, 1)) * scale.reshape(-1, 1)).view_as(weight)
    found = hqq.round_weight(weight, Scheme(number=integer(bits), granularity=group))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_error_in_the_norm_of_the_paper_is_less_than_that_of_round_to_nearest(weight, bits):
    scheme = Scheme(number=integer(bits), symmetric=False)
    error = [
        (found - weight).abs().pow(hqq.NORM).sum(1)
        for found in (hqq.round_weight(weight, scheme), procedure.round_weight(weight, grid.minmax, scheme))
    ]
    assert float(error[0].sum()) < 0.99 * float(error[1].sum())


def test_every_channel_has_as_many_levels_as_the_width_and_a_constant_one_stays_as_it_is(weight):
    found = hqq.round_weight(weight, Scheme(number=integer(2)))
    assert max(len(row.unique()) for row in found) == 4
    flat = torch.full((2, 8), 0.3)
    torch.testing.assert_close(hqq.round_weight(flat, Scheme(number=integer(3))), flat)


def test_nan_stays_in_its_channel(weight):
    broken = weight.clone()
    broken[3, 5] = torch.nan
    found = hqq.round_weight(broken, Scheme(number=integer(4)))
    assert bool(found[3].isnan().all())
    assert not bool(found[[0, 1, 2, 4]].isnan().any())


@pytest.mark.parametrize("form", ["w8", "w4g64", "w2g16"])
def test_weights_with_a_zero_point_between_levels_are_covered_without_calibration_data(tiny, ask, quantize, form):
    bits = Format.of(form)
    assert Catalog().recipe("hqq").needs(bits) == "nothing"
    quantized = Catalog().recipe("hqq").apply()(tiny, ask(bits, quantizer="hqq", data=None))
    assert coverage.measure(tiny, quantized, bits, "both").missing == ()


def test_a_format_of_floats_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="the nearest that it can do is w4"):
        Catalog().recipe("hqq").bits(Format.of("mxfp4w"), "both")


def test_symmetric_grids_are_refused():
    assert Hqq(symmetric=False).symmetric is False
    with pytest.raises(ValidationError, match="symmetric"):
        Hqq(symmetric=True)
