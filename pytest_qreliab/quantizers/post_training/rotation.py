"""`quarot`: every layer's input turned by a randomised Hadamard matrix (Ashkboos et al. 2024)."""

from __future__ import annotations

from dataclasses import replace

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine.layers import Layers
from pytest_qreliab.quantizers.engine.transform import Transform, hadamard
from pytest_qreliab.quantizers.post_training import procedure
from pytest_qreliab.quantizers.post_training.smoothing import migrate_norms
from pytest_qreliab.quantizers.request import Request


def quarot(clip: Clip, request: Request) -> Clip:
    """Inputs turned so that no channel stands out, the inverse folded into the weights; then as `minmax`.

    As its authors do, the norms' learned weights are folded into the layers that read them first. Their residual
    stream is turned once for all, ours at every layer: what is rounded is the same for all inputs, and for the
    input side of all weights; the output side of the layers that write the stream is not turned.
    """
    return procedure.quantize(clip, request, transforms=rotate)


def rotate(clip: Clip, layers: Layers, request: Request) -> dict[str, Transform]:
    """The rotation of every layer whose channels, in each group, a power of two from 8 up divides."""
    found = migrate_norms(clip, layers, request)
    for name, layer in layers.items():
        weight = layer.get_parameter("weight")
        rotation = hadamard(weight.shape[1], request.parameters.seed)
        if rotation is not None:
            rotation = rotation.to(weight.device)
            found[name] = replace(found.get(name, Transform()), rotation=rotation)
    return found
