"""The format of stored weights: the numbers count, not only what a tensor says of itself."""

import pytest
import torch
from torch import nn

from pytest_qreliab.quantizers.engine.packed_weights import (
    PackedFormat,
    is_library_tensor,
    layer_format,
    torchao_format,
)


class Stored:
    """Has what is read of a tensor of torchao."""

    def __init__(self, codes, **more) -> None:
        self.qdata = codes
        self.__dict__.update(more)

    def numel(self) -> int:
        return 12


class Int4Tensor(Stored):
    """Packed, two in a byte."""


def codes(low, high, dtype=torch.int8):
    return torch.tensor([low, 0, high]).to(dtype)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (Stored(codes(-128, 127)), (8, None)),
        (Stored(codes(0, 255, torch.uint8)), (8, None)),
        (Stored(codes(-8, 7), target_dtype="torch.int4"), (4, None)),
        (Stored(codes(0, 7), target_dtype="torch.uint3"), (3, None)),
        (Stored(codes(-8, 8), target_dtype="torch.int4"), None),  # seventeen values are no four bits
        (Stored(codes(-1, 1, torch.float8_e4m3fn)), (8, None)),
        (Stored(codes(-1, 1, torch.float32)), None),
        (Stored(codes(-1, 1, torch.int32)), None),
        (Stored(codes(-128, 127), act_quant_kwargs={}), (8, 8)),
        (Stored(codes(-128, 127), activation_quantization=None), (8, None)),
        (Int4Tensor(codes(0, 255, torch.uint8)), (4, None)),
        (nn.Linear(3, 4).weight, None),
    ],
)
def test_bits_are_those_that_the_stored_numbers_need(weight, expected):
    assert torchao_format(weight) == (None if expected is None else PackedFormat(12, *expected))


@pytest.mark.parametrize("layer", [nn.Linear(3, 4), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.LayerNorm(3)])
def test_ordinary_layers_are_in_no_format(layer):
    assert layer_format(layer) is None


def test_only_tensors_of_the_libraries_are_theirs():
    theirs = type("Int8Params", (nn.Parameter,), {"__module__": "bitsandbytes.nn.modules"})
    weight = theirs(torch.zeros(4, 3, dtype=torch.int8), requires_grad=False)
    assert is_library_tensor(weight)
    assert not is_library_tensor(torch.zeros(4, 3))
    assert not is_library_tensor(type("Layer", (), {"__module__": "torchao.x"})())
    layer = nn.Linear(3, 4)
    layer.weight = weight
    assert layer_format(layer) is None  # in a layer that is not the library's they mean nothing
    linear = type("Linear8bitLt", (nn.Linear,), {"__module__": "bitsandbytes.nn.modules"})(3, 4)
    linear.weight = weight
    assert layer_format(linear) == PackedFormat(12, 8, 8)
