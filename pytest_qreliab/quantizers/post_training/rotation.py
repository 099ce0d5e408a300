"""`quarot`: every layer's input turned by a randomised Hadamard matrix.

The method is that of Ashkboos et al. 2024.
"""

from __future__ import annotations

from dataclasses import replace

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine.layers import Layers
from pytest_qreliab.quantizers.engine.transform import Transform, hadamard
from pytest_qreliab.quantizers.post_training import procedure
from pytest_qreliab.quantizers.post_training.outlier_suppression import migrate_norms
from pytest_qreliab.quantizers.request import Request


def quarot(clip: Clip, request: Request) -> Clip:
    """Return a copy with inputs turned so that no channel stands out.

    The turned model is rounded as by `minmax`. The inverse turn is folded into the weights. First the norms' learned
    weights are folded into the layers that read them, as the authors do. They turn the residual stream once for all;
    here it is turned at every layer. The rounded inputs are the same, and so is the input side of the weights. The
    output side of the layers that write the stream is not turned.
    """
    return procedure.quantize(clip, request, transforms=rotate)


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
