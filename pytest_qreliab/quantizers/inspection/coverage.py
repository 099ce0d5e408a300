"""Coverage: the share of a model that really is quantized.

It counts weights and matmul FLOPs, seen from outside. A quantizer's own word is not taken. One image and one prompt run
through the model while every matrix product and convolution is watched, and each weight that takes part is looked at. A
float weight is compared with the full-precision one. For a library's tensor the stored numbers count, for an ONNX graph
the types that its nodes read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.layout import no_fused_attention
from pytest_qreliab.models.onnx_towers import OnnxClip
from pytest_qreliab.quantizers.engine import grid, packed_weights
from pytest_qreliab.quantizers.engine.grid import Granularity
from pytest_qreliab.quantizers.engine.input_quantizer import find_input_quantizer
from pytest_qreliab.quantizers.engine.layers import encode_one, one_image, unpack_layers
from pytest_qreliab.quantizers.inspection import size
from pytest_qreliab.quantizers.libraries.onnx_graph import Graph

SAMPLED_CHANNELS = 16


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """The quantized part of the weights of the towers in scope.

    The weights are those of matrix products and convolutions.
    """

    weights: float  # the share of elements, 0 to 1
    flops: float  # the share of the FLOPs of one image and one prompt, 0 to 1
    matrices: float  # the smaller of the two shares without the convolutions
    total_weights: int  # the number of elements, quantized or not
    missing: tuple[str, ...]  # the names of the weights that are not, or not fully, quantized
    size: int  # bytes of the whole quantized model
    full_size: int  # bytes of the whole model in full precision

    def require(self, declared: float, what: str, *, convolutions: bool = True, mend: str = "") -> None:
        """Check that enough is covered.

        Args:
            declared: The share that must be covered, 0 to 1.
            what: What declares it, for the message.
            convolutions: Count all weights, and not those of the matrix products alone.
            mend: The end of the message: what can be done.

        Raises:
            InputError: Less is covered.
        """
        covered = min(self.weights, self.flops) if convolutions else self.matrices
        if covered < declared - 1e-9:
            shown = ", ".join(self.missing[:4]) + (", ..." if len(self.missing) > 4 else "")
            counted = "weights" if convolutions else "weights of matrix products"
            raise InputError(
                f"{what} declares to quantize {declared:.1%} of the {counted} but covers {covered:.1%} (of all, "
                f"{self.weights:.1%} of the weights, {self.flops:.1%} of the FLOPs); "
                f"left in full precision: {shown}{mend}"
            )


@dataclass(frozen=True, kw_only=True)
class _Product:
    name: str  # of the weight
    elements: int
    flops: float  # of one image and one prompt; 0: nothing is multiplied by the weight
    quantized: bool
    convolution: bool


def measure(
    full: Clip, quantized: Clip, bits: Bits | None, scope: str, granularity: Granularity = "channel"
) -> Coverage:
    """Measure how much of a model is quantized.

    Args:
        full: The full-precision model.
        quantized: The quantized copy of it.
        bits: The bits that weights must have at most. None: a weight is covered if it has changed, because a control
            rounds nothing.
        scope: The towers to look at: "vision", "text" or "both".
        granularity: The weights that share a grid, and so have 2^bits values among them.
    """
    if bits is not None and isinstance(quantized.module, OnnxClip):
        products = list(_graph_products(quantized, quantized.module, bits))
    else:
        products = list(_plain_products(full, quantized, bits, scope, granularity))
        if bits is not None:
            products += _library_products(full, quantized, bits, scope)
    rounded = {} if bits is None else {product.name: bits.weights for product in products if product.quantized}
    return Coverage(
        weights=_share(products, lambda product: product.elements),
        flops=_share(products, lambda product: product.flops),
        matrices=min(
            _share([product for product in products if not product.convolution], by)
            for by in (lambda product: product.elements, lambda product: product.flops)
        ),
        total_weights=sum(product.elements for product in products),
        missing=tuple(product.name for product in products if not product.quantized),
        size=size.model_size(quantized, rounded, granularity),
        full_size=size.model_size(full),
    )


def _share(products: list[_Product], by: Callable[[_Product], float]) -> float:
    total = sum(map(by, products))
    return sum(by(product) for product in products if product.quantized) / total if total else 0.0


def _plain_products(
    full: Clip, quantized: Clip, bits: Bits | None, scope: str, granularity: Granularity
) -> Iterator[_Product]:
    """Yield ordinary float weights, rounded in place or not at all."""
    # A quantizer may have unpacked the model or not: know the full-precision weights under either name.
    reference = dict(full.module.named_parameters()) | dict(unpack_layers(full, scope)[0].module.named_parameters())
    weights = {
        name: parameter
        for name, parameter in quantized.module.named_parameters()
        if parameter.ndim >= 2 and quantized.in_scope(name, scope) and not packed_weights.is_library_tensor(parameter)
    }
    watch = _ProductWatch(weights)
    with no_fused_attention(), torch.no_grad(), watch:
        encode_one(quantized, scope)
    for name, flops in watch.flops.items():
        weight, before = weights[name], reference.get(name)
        if bits is None:
            covered = before is None or not torch.equal(weight, before) or weight[0].numel() == 1
        else:
            covered = _rounded(weight, before, bits.weights, granularity)
            if bits.activations is not None:
                covered = covered and _input_rounded(quantized, name)
        yield _Product(
            name=name, elements=weight.numel(), flops=flops, quantized=covered, convolution=name in watch.convolutions
        )


def _library_products(full: Clip, quantized: Clip, bits: Bits, scope: str) -> Iterator[_Product]:
    """Yield the weights of libraries; a layer never called covers nothing."""
    # By parameter: one that is no layer's `weight` is multiplied by no one that can be watched.
    weights = {
        name: parameter
        for name, parameter in quantized.module.named_parameters()
        if packed_weights.is_library_tensor(parameter) and quantized.in_scope(name, scope)
    }
    layers = {name: quantized.module.get_submodule(name.rpartition(".")[0]) for name in weights}
    flops: dict[str, float] = dict.fromkeys(weights, 0.0)

    def watch(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: Any, out: torch.Tensor) -> None:
            flops[name] += 2.0 * out.numel() * args[0].shape[-1]

        return hook

    if not layers:
        return
    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers.items() if name.endswith(".weight")]
    try:
        encode_one(quantized, scope)
    finally:
        for handle in handles:
            handle.remove()
    idle = _idle(full, scope)
    for name, layer in layers.items():
        if name in idle and flops[name] == 0:
            continue
        stored = packed_weights.layer_format(layer) if name.endswith(".weight") else None
        fits = stored is not None and _fits(stored.bits, stored.activations, bits)
        elements = weights[name].numel() if stored is None else stored.elements
        yield _Product(
            name=name, elements=elements, flops=flops[name], quantized=fits and flops[name] > 0, convolution=False
        )


def _idle(full: Clip, scope: str) -> set[str]:
    """Return the names of weights that no feature comes from."""
    reference, layers = unpack_layers(full, scope)
    called = set()
    for name, layer in layers.items():
        layer.register_forward_hook(lambda layer, args, out, name=name: called.add(name))
    encode_one(reference, scope)
    return {f"{name}.weight" for name in layers.keys() - called}


def _graph_products(quantized: Clip, module: OnnxClip, bits: Bits) -> Iterator[_Product]:
    """Yield the weights of ONNX graphs; each graph is run once."""
    for which, tower in module.towers().items():
        graph = Graph(tower.graph())
        matrices = graph.matrices()
        x = quantized.tokenizer(["a photo"]) if which == "text" else one_image(quantized)
        flops = graph.flops(matrices, tower.batches(x)[0])
        for matrix in matrices:
            yield _Product(
                name=f"{which}.onnx: {matrix.name}",
                elements=matrix.elements,
                flops=flops[matrix.output],
                quantized=matrix.bits is not None and _fits(matrix.bits, matrix.activations, bits),
                convolution=matrix.convolution,
            )


def _fits(weights: int, activations: int | None, bits: Bits) -> bool:
    """Return whether weight and input widths are at most `bits`."""
    if bits.activations is not None and (activations is None or activations > bits.activations):
        return False
    return weights <= bits.weights


def _rounded(weight: torch.Tensor, before: torch.Tensor | None, bits: int, granularity: Granularity) -> bool:
    rows = grid.to_rows(weight.detach().nan_to_num(), granularity)
    if rows.shape[1] == 1:  # one weight per channel is on the channel's grid as it is
        return True
    picked = rows[:: max(1, len(rows) // SAMPLED_CHANNELS)]
    if any(len(row.unique()) > 2**bits for row in picked):
        return False
    # A short row has few values anyway: only a change shows that it was rounded.
    return rows.shape[1] > 2**bits or (before is not None and not torch.equal(weight, before))


def _input_rounded(clip: Clip, weight: str) -> bool:
    hook = find_input_quantizer(clip.module.get_submodule(weight.rpartition(".")[0]))
    return hook is not None and hook.called and hook.round is not None


class _ProductWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The counter of the FLOPs of products with given weights.

    It knows a weight by its memory.
    """

    OPERATIONS = frozenset({"mm", "addmm", "bmm", "baddbmm", "linear", "convolution"})

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names = {weight.untyped_storage().data_ptr(): name for name, weight in weights.items()}
        self.sizes = {name: weight.numel() for name, weight in weights.items()}
        self.flops: dict[str, float] = defaultdict(float)
        self.convolutions: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        operation = func.overloadpacket.__name__
        if operation in self.OPERATIONS:
            channels = out.shape[1 if operation == "convolution" else -1]
            matrices = [arg for arg in args if isinstance(arg, torch.Tensor) and arg.ndim >= 2]
            found = [self.names.get(matrix.untyped_storage().data_ptr()) for matrix in matrices]
            watched = [name for name in found if name is not None]
            if watched:  # of two, as with a learned query, the first is what the second is applied to
                name = watched[-1]
                self.flops[name] += 2 * out.numel() * self.sizes[name] / channels
                if operation == "convolution":
                    self.convolutions.add(name)
        return out
