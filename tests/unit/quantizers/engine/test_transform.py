import numpy as np
import pytest
import torch
from scipy.linalg import hadamard as scipy_hadamard
from torch import nn

from pytest_qreliab.quantizers.engine import input_quantizer
from pytest_qreliab.quantizers.engine.transform import Transform, hadamard

LAYERS = {
    "linear": lambda: nn.Linear(24, 10),
    "linear-no-bias": lambda: nn.Linear(24, 10, bias=False),
    "conv": lambda: nn.Conv2d(24, 8, 3),
    "conv-grouped": lambda: nn.Conv2d(24, 6, 3, groups=3),
    "conv-depthwise": lambda: nn.Conv2d(24, 48, 3, groups=24),
}


def layer_and_input(kind):
    torch.manual_seed(0)
    layer = LAYERS[kind]().requires_grad_(False)
    return layer, torch.randn((2, 24, 6, 6) if isinstance(layer, nn.Conv2d) else (2, 5, 24))


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("parts", [["scale"], ["shift"], ["rotation"], ["scale", "shift", "rotation"]])
def test_a_transformed_layer_computes_the_same(kind, parts):
    layer, x = layer_and_input(kind)
    before, weight = layer(x), layer.weight.clone()
    channels = layer.weight.shape[1]
    every = {"scale": torch.rand(24) + 0.5, "shift": torch.randn(24), "rotation": hadamard(channels)}
    by = Transform(**{part: every[part] for part in parts})
    input_quantizer.transform_input(layer, by)
    torch.testing.assert_close(layer(x), before, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(input_quantizer.effective_weight(layer), weight, rtol=1e-4, atol=1e-5)
    if parts != ["rotation"] or channels >= 8:
        assert not torch.allclose(by.input(layer, x), x)


def test_a_shift_into_a_padded_convolution_is_refused():
    with pytest.raises(ValueError, match="pads with zeros"):
        Transform(shift=torch.ones(4)).fold(nn.Conv2d(4, 4, 3, padding=1))


@pytest.mark.parametrize("size", [8, 24, 64, 96, 768, 1152, 3072])
def test_rotations_are_orthogonal_spread_and_undone(size):
    rotation = hadamard(size)
    matrix = rotation.apply(torch.eye(size))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size), rtol=0, atol=1e-5)
    x = torch.randn(3, size)
    torch.testing.assert_close(rotation.undo(rotation.apply(x)), x, rtol=1e-4, atol=1e-5)
    # No input channel keeps more than twice its even share in any one output.
    assert float(matrix.abs().max()) <= 2**0.5 * size**-0.5 * (1 + 1e-5)


@pytest.mark.parametrize("size", [8, 16, 128])
def test_at_powers_of_two_it_is_the_hadamard_matrix_with_random_signs(size):
    rotation = hadamard(size, seed=3)
    matrix = rotation.apply(torch.eye(size)).numpy() * size**0.5
    expected = scipy_hadamard(size) * rotation.signs.numpy()[:, None]
    np.testing.assert_allclose(matrix, expected, atol=1e-5)
    assert 0 < int((rotation.signs < 0).sum()) < size


@pytest.mark.parametrize("size", [1, 3, 4, 27, 36])
def test_sizes_without_a_power_of_two_are_left_alone(size):
    assert hadamard(size) is None
