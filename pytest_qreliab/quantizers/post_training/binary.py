"""`binary`: weights of one bit, and inputs of one bit.

Weights become their signs (BinaryConnect, Courbariaux et al. 2015) times the mean magnitude of their output channel
(XNOR-Net, Rastegari et al. 2016). Inputs become their signs times the mean magnitude of their token.
"""

from __future__ import annotations

import torch

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import grid, input_quantizer, number_rounding
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.engine.grid import Scheme
from pytest_qreliab.quantizers.post_training import procedure
from pytest_qreliab.quantizers.request import Request


@torch.no_grad()
def binary(clip: Clip, request: Request) -> Clip:
    """Return a copy with weights of one bit, and inputs too if the format says so.

    Layers with a wider format of their own are rounded as by `minmax`, with dynamic activations.
    """
    clip, layers, request = engine_layers.prepare_layers(clip, request)
    for name, layer in layers.items():
        form, weight = request.format_of(name), layer.get_parameter("weight")
        if form.weights.bits == 1:
            rounded = number_rounding.round_to_signs(weight.flatten(1)).view_as(weight)
        else:
            granularity = grid.granularity(form, "channel")
            scheme = Scheme(number=form.weights, granularity=granularity, symmetric=form.group is None)
            rounded = procedure.round_weight(weight, grid.minmax, scheme)
        weight.copy_(rounded)
        if form.activations is not None:
            hook = input_quantizer.ensure_input_quantizer(layer)
            one = form.activations.bits == 1
            scheme = Scheme(number=form.activations)
            hook.round = input_quantizer.SignQuantizer() if one else input_quantizer.DynamicQuantizer(scheme)
    return clip
