"""`minmax`: round to nearest on a symmetric grid whose last level is the largest magnitude seen.

Weights have one scale per output channel; activations one per layer input, fixed from calibration data.
Every Linear and convolution of the towers in scope takes part, attention and final projections included.
Embeddings, layer norms and biases stay in full precision.
"""

from __future__ import annotations

import torch
from torch import nn

from pytest_qreliab.cases import Bits
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers import fake
from pytest_qreliab.quantizers.calibration import Calibration


def quantize(clip: Clip, bits: Bits, scope: str, calibration: Calibration | None) -> Clip:
    """A quantized copy of `clip`. Activation ranges are measured on it in full precision, before rounding."""
    clip, layers = fake.prepare(clip, scope)
    ranges: dict[str, torch.Tensor] = {}
    if bits.activations is not None:
        if calibration is None:
            raise ValueError(f"minmax {bits} needs calibration data")
        ranges = fake.input_ranges(clip, layers, scope, calibration)
    for name, layer in layers.items():
        round_weight(layer, bits.weights)
        if bits.activations is not None and name in ranges:
            scale = fake.scale_for(ranges[name], bits.activations)
            layer.register_forward_pre_hook(fake.InputQuantizer(scale, bits.activations))
    return clip


@torch.no_grad()
def round_weight(layer: nn.Module, bits: int) -> None:
    """Round `layer.weight` in place, one scale per output channel (its first axis)."""
    weight = layer.get_parameter("weight")
    largest = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
    weight.copy_(fake.round_to_grid(weight, fake.scale_for(largest, bits), bits))
