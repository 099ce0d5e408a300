"""`quarot`: every layer's input turned by a randomised Hadamard matrix.

The method is that of Ashkboos et al. 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import grid, input_quantizer
from pytest_qreliab.quantizers.engine.layers import Layers
from pytest_qreliab.quantizers.engine.transform import Transform, hadamard
from pytest_qreliab.quantizers.post_training import gptq, procedure
from pytest_qreliab.quantizers.post_training.outlier_suppression import migrate_norms
from pytest_qreliab.quantizers.request import Request

KEPT = 0.9  # of the range of a token that is rounded to integers of 4 bits or less, as the authors keep


def quarot(clip: Clip, request: Request) -> Clip:
    """Return a copy with inputs turned so that no channel stands out.

    The inverse turn is folded into the weights, which are rounded as by `gptq`. Each token is rounded over its own
    range. First the norms' learned weights are folded into the layers that read them, as the authors do. They turn the
    residual stream once for all; here it is turned at every layer. The rounded inputs are the same, and so is the input
    side of the weights. The output side of the layers that write the stream is not turned.
    """
    return procedure.quantize(clip, request, transforms=rotate, rounder=gptq.round_weights, input_rounder=_clip_tokens)


def _clip_tokens(clip: Clip, layers: Layers, request: Request) -> Mapping[str, input_quantizer.Round]:
    """Return the roundings of `minmax`, of which those of single tokens to few levels are clipped."""
    rounds = dict(procedure.from_range(grid.minmax)(clip, layers, request))
    for name, rounding in rounds.items():
        if isinstance(rounding, input_quantizer.DynamicQuantizer):
            number = rounding.scheme.number
            if number.kind == "integer" and number.bits <= 4:
                rounds[name] = replace(rounding, share=KEPT)
    return rounds


def rotate(clip: Clip, layers: Layers, request: Request) -> dict[str, Transform]:
    """Return the rotation of every layer that can have one.

    The migration of norms comes before it. A layer can have one if a power of two from 8 up divides its input channels
    in each group.
    """
    found = migrate_norms(clip, layers, request)
    for name, layer in layers.items():
        weight = layer.get_parameter("weight")
        rotation = hadamard(weight.shape[1], request.parameters.seed)
        if rotation is not None:
            rotation = rotation.to(weight.device)
            found[name] = replace(found.get(name, Transform()), rotation=rotation)
    return found
