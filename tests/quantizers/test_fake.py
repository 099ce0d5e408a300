import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torch import nn

from pytest_qreliab.quantizers import fake, minmax

weights = npst.arrays(
    np.float32, (4, 9), elements=st.floats(-8, 8, width=32, allow_subnormal=False).filter(lambda x: abs(x) > 1e-3)
)
widths = st.integers(2, 8)


def rounded(weight: np.ndarray, bits: int) -> torch.Tensor:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight = nn.Parameter(torch.from_numpy(weight.copy()))
    minmax.round_weight(layer, bits)
    return layer.weight.detach()


@given(weights, widths)
def test_weights_agree_with_torchs_fake_quantization(weight, bits):
    w, q = torch.from_numpy(weight), fake.levels(bits)
    scale = w.abs().amax(1) / q
    expected = torch.fake_quantize_per_channel_affine(w, scale, torch.zeros(4, dtype=torch.int32), 0, -q, q)
    # torch multiplies by the reciprocal, which can put a value that lies on a tie one step away.
    steps = ((rounded(weight, bits) - expected) / scale[:, None]).abs()
    ties = ((w / scale[:, None]).frac().abs() - 0.5).abs() < 1e-4
    assert bool(((steps < 1e-3) | ties).all())


@given(weights, widths)
def test_rounding_errs_by_half_a_step_at_most_and_keeps_the_largest(weight, bits):
    w, out = torch.from_numpy(weight), rounded(weight, bits)
    largest = w.abs().amax(1, keepdim=True)
    step = largest / fake.levels(bits)
    assert bool(((out - w).abs() <= step / 2 * (1 + 1e-5)).all())
    torch.testing.assert_close(out.abs().amax(1, keepdim=True), largest)
    assert all(len(row.unique()) <= 2**bits - 1 for row in out)


@given(weights, widths)
def test_rounding_again_changes_nothing(weight, bits):
    once = rounded(weight, bits)
    torch.testing.assert_close(rounded(once.numpy(), bits), once, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("bits", "levels"), [(2, 1), (3, 3), (4, 7), (8, 127)])
def test_levels(bits, levels):
    assert fake.levels(bits) == levels


def test_a_channel_of_zeros_stays_zero_and_nan_stays_nan():
    weight = np.array([[0, 0, 0], [1, np.nan, 2]], dtype=np.float32)
    out = rounded(weight, 4)
    assert out[0].tolist() == [0, 0, 0]
    assert out[1].isnan().all()


def test_nan_and_infinity_in_activations():
    x = torch.tensor([1.0, float("nan"), float("inf"), float("-inf")])
    out = fake.round_to_grid(x, torch.tensor(0.5), 4)
    assert out[0] == 1.0
    assert out[1].isnan()
    assert out[2:].tolist() == [3.5, -3.5]


def test_input_quantizer_rounds_what_the_layer_reads():
    layer = nn.Linear(3, 3, bias=False)
    layer.weight = nn.Parameter(torch.eye(3))
    hook = fake.InputQuantizer(torch.tensor(0.25), 4)
    layer.register_forward_pre_hook(hook)
    x = torch.tensor([[0.3, -9.0, 0.1]])
    assert layer(x).tolist() == [[0.25, -1.75, 0.0]]
    assert hook.called
    torch.testing.assert_close(x, torch.tensor([[0.3, -9.0, 0.1]]))
    expected = torch.fake_quantize_per_tensor_affine(x, 0.25, 0, -7, 7)
    torch.testing.assert_close(layer(x), expected)
