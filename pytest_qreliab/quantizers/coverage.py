"""Coverage: the share of a model's weights and matmul FLOPs that really is quantized, seen from outside.

A quantizer's own word is not taken: one image and one prompt run through the model while every matrix product
and convolution is watched, and each weight that takes part is compared with the full-precision one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_qreliab.cases import Bits
from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.layout import no_fused_attention
from pytest_qreliab.quantizers import grid
from pytest_qreliab.quantizers.fake import InputQuantizer, prepare
from pytest_qreliab.quantizers.grid import Granularity

SAMPLED_CHANNELS = 16


@dataclass(frozen=True)
class Coverage:
    """Of the matmul and convolution weights of the towers in scope.

    `weights` and `flops` are shares from 0 to 1 (by element count; by FLOPs of one image and one prompt),
    `total_weights` their number, `missing` the names of those that are not, or not fully, quantized.
    """

    weights: float
    flops: float
    total_weights: int
    missing: tuple[str, ...]

    def require(self, declared: float, what: str, mend: str = "") -> None:
        """Raise InputError, which ends with `mend`, when less is covered than the quantizer declares."""
        if min(self.weights, self.flops) < declared - 1e-9:
            shown = ", ".join(self.missing[:4]) + (", ..." if len(self.missing) > 4 else "")
            raise InputError(
                f"{what} declares to quantize {declared:.1%} of the weights but covers {self.weights:.1%} "
                f"({self.flops:.1%} of the FLOPs); left in full precision: {shown}{mend}"
            )


def measure(full: Clip, quantized: Clip, bits: Bits, scope: str, granularity: Granularity = "channel") -> Coverage:
    """Coverage of `quantized`, made from `full` at `bits`, over the towers in `scope`.

    `granularity` says which weights share a grid, and so have 2^bits values among them.
    """
    # A quantizer may have unpacked the model or not: know the full-precision weights under either name.
    reference = dict(full.module.named_parameters()) | dict(prepare(full, scope)[0].module.named_parameters())
    weights = {
        name: parameter
        for name, parameter in quantized.module.named_parameters()
        if parameter.ndim >= 2 and quantized.in_scope(name, scope)
    }
    flops = _matmul_flops(quantized, weights, scope)
    covered = {
        name
        for name in flops
        if _rounded(weights[name], reference.get(name), bits.weights, granularity)
        and (bits.activations is None or _input_rounded(quantized, name))
    }
    sizes = {name: weights[name].numel() for name in flops}
    return Coverage(
        weights=sum(sizes[name] for name in covered) / sum(sizes.values()),
        flops=sum(flops[name] for name in covered) / sum(flops.values()),
        total_weights=sum(sizes.values()),
        missing=tuple(name for name in flops if name not in covered),
    )


def _rounded(weight: torch.Tensor, before: torch.Tensor | None, bits: int, granularity: Granularity) -> bool:
    rows = grid.rows(weight.detach().nan_to_num(), granularity)
    if rows.shape[1] == 1:  # one weight per channel is on the channel's grid as it is
        return True
    picked = rows[:: max(1, len(rows) // SAMPLED_CHANNELS)]
    if any(len(row.unique()) > 2**bits for row in picked):
        return False
    # A short row has few values anyway: only a change shows that it was rounded.
    return rows.shape[1] > 2**bits or (before is not None and not torch.equal(weight, before))


def _input_rounded(clip: Clip, weight: str) -> bool:
    layer = clip.module.get_submodule(weight.rpartition(".")[0])
    return any(
        isinstance(hook, InputQuantizer) and hook.called and hook.round is not None
        for hook in layer._forward_pre_hooks.values()
    )


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the FLOPs of products with a watched weight, recognised by its memory."""

    OPERATIONS = frozenset({"mm", "addmm", "bmm", "baddbmm", "linear", "convolution"})

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names = {weight.untyped_storage().data_ptr(): name for name, weight in weights.items()}
        self.sizes = {name: weight.numel() for name, weight in weights.items()}
        self.flops: dict[str, float] = defaultdict(float)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        operation = func.overloadpacket.__name__
        if operation in self.OPERATIONS:
            channels = out.shape[1 if operation == "convolution" else -1]
            for arg in args:
                if isinstance(arg, torch.Tensor) and arg.ndim >= 2:
                    name = self.names.get(arg.untyped_storage().data_ptr())
                    if name is not None:
                        self.flops[name] += 2 * out.numel() * self.sizes[name] / channels
        return out


def _matmul_flops(clip: Clip, weights: Mapping[str, torch.Tensor], scope: str) -> dict[str, float]:
    watch = _Watch(weights)
    with no_fused_attention(), torch.no_grad(), watch:
        if scope != "text":
            clip.encode_image(clip.preprocess(Image.new("RGB", (64, 64)))[None])
        if scope != "vision":
            clip.encode_text(["a photo"])
    return dict(watch.flops)
