"""Coverage: the share of a model that really is quantized.

It counts weights and matmul FLOPs, seen from outside. A quantizer's own word is not taken. A few images and prompts run
through the model while every matrix product and convolution is watched, and each weight that takes part is looked at. A
float weight is covered if its values lie on a grid, whether they were moved for that or not. For a library's tensor the
stored numbers count, for an ONNX graph the types that its nodes read.

What is in no matrix product and no convolution with a weight is not counted: embeddings, positions, norms, biases,
products of two activations, and layers that none of these inputs reaches.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.errors import InputError
from pytest_qreliab.models import probes
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.layout import no_fused_attention
from pytest_qreliab.models.onnx_towers import OnnxClip
from pytest_qreliab.quantizers.engine import grid, packed_weights
from pytest_qreliab.quantizers.engine.grid import Granularity
from pytest_qreliab.quantizers.engine.input_quantizer import find_input_quantizer
from pytest_qreliab.quantizers.engine.layers import encode_probes, probe_images, unpack_layers
from pytest_qreliab.quantizers.inspection import size
from pytest_qreliab.quantizers.libraries.onnx_graph import Graph

SAMPLED_CHANNELS = 16
WIDEST = 8  # bits of the widest weights that count as quantized


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """The quantized part of the weights of the towers in scope.

    The weights are those of matrix products and convolutions. Embeddings, norms and biases are not counted.
    """

    weights: float  # the share of elements, 0 to 1
    flops: float  # the share of the FLOPs of as many images as prompts, 0 to 1
    matrices: float  # the smaller of the two shares without the convolutions
    total_weights: int  # the number of elements, quantized or not
    missing: tuple[str, ...]  # the names of the weights that are not, or not fully, quantized
    reason: str  # why the first of them does not count
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
            counted = "matrix products and convolutions" if convolutions else "matrix products"
            raise InputError(
                f"{what} declares to quantize {declared:.1%} of the weights of {counted} but covers {covered:.1%} (of "
                f"all, {self.weights:.1%} of the weights, {self.flops:.1%} of the FLOPs); not or not fully quantized: "
                f"{shown}; the first of them {self.reason}{mend}"
            )


@dataclass(frozen=True, kw_only=True)
class _Product:
    name: str  # of the weight
    elements: int
    flops: float  # of all inputs that were tried; 0: nothing is multiplied by the weight
    problem: str | None  # why it does not count as quantized; None: it does
    convolution: bool

    @property
    def quantized(self) -> bool:
        return self.problem is None


def measure(
    full: Clip, quantized: Clip, bits: Bits | None, scope: str, granularity: Granularity = "channel"
) -> Coverage:
    """Measure how much of a model is quantized.

    Args:
        full: The full-precision model.
        quantized: The quantized copy of it.
        bits: The bits that weights must have at most. None, for a control, which rounds nothing: a weight is covered if
            it has changed, or lies on a grid already, on which a quantizer does not err.
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
    missing = [product for product in products if not product.quantized]
    return Coverage(
        weights=_share(products, lambda product: product.elements),
        flops=_share(products, lambda product: product.flops),
        matrices=min(
            _share([product for product in products if not product.convolution], by)
            for by in (lambda product: product.elements, lambda product: product.flops)
        ),
        total_weights=sum(product.elements for product in products),
        missing=tuple(product.name for product in missing),
        reason=next((product.problem for product in missing if product.problem), ""),
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
    weights = {
        name: parameter
        for name, parameter in quantized.module.named_parameters()
        if parameter.ndim >= 2 and quantized.in_scope(name, scope) and not packed_weights.is_library_tensor(parameter)
    }
    watch = _ProductWatch(weights)
    with no_fused_attention(), torch.no_grad(), watch:
        encode_probes(quantized, scope)
    changed = _changed(full, weights, scope) if bits is None else set()
    for name, flops in watch.flops.items():
        weight = weights[name]
        if bits is None:
            problem = None if name in changed or _rounded(weight, WIDEST, "channel") else "is as in full precision"
        elif not _rounded(weight, bits.weights, granularity):
            problem = f"does not lie on grids of {2**bits.weights} levels"
        else:
            unread = bits.activations is not None and not _input_rounded(quantized, name)
            problem = "is rounded, and its input is not" if unread else None
        yield _Product(
            name=name, elements=weight.numel(), flops=flops, problem=problem, convolution=name in watch.convolutions
        )


def _changed(full: Clip, weights: Mapping[str, torch.Tensor], scope: str) -> set[str]:
    """Return the names of weights that are others than in full precision, packed or unpacked."""
    before = dict(full.module.named_parameters()) | dict(unpack_layers(full, scope)[0].module.named_parameters())
    return {name for name, weight in weights.items() if name not in before or not torch.equal(weight, before[name])}


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
        encode_probes(quantized, scope)
    finally:
        for handle in handles:
            handle.remove()
    idle = _idle(full, scope)
    for name, layer in layers.items():
        if name in idle and flops[name] == 0:
            continue
        stored = packed_weights.layer_format(layer) if name.endswith(".weight") else None
        elements = weights[name].numel() if stored is None else stored.elements
        problem: str | None = "is stored in no known format"
        if flops[name] == 0:
            problem = "belongs to a layer that is never called"
        elif stored is not None:
            problem = _misfit(stored.bits, stored.activations, bits)
        yield _Product(name=name, elements=elements, flops=flops[name], problem=problem, convolution=False)


def _idle(full: Clip, scope: str) -> set[str]:
    """Return the names of weights that no feature comes from."""
    reference, layers = unpack_layers(full, scope)
    called = set()
    for name, layer in layers.items():
        layer.register_forward_hook(lambda layer, args, out, name=name: called.add(name))
    encode_probes(reference, scope)
    return {f"{name}.weight" for name in layers.keys() - called}


def _graph_products(quantized: Clip, module: OnnxClip, bits: Bits) -> Iterator[_Product]:
    """Yield the weights of ONNX graphs, whose nodes tell the width; a run of each graph counts the FLOPs."""
    for which, tower in module.towers().items():
        graph = Graph(tower.graph())
        matrices = graph.matrices()
        x = quantized.tokenizer(list(probes.PROMPTS)) if which == "text" else probe_images(quantized)
        flops = graph.flops(matrices, tower.batches(x)[0])
        for matrix in matrices:
            yield _Product(
                name=f"{which}.onnx: {matrix.name}",
                elements=matrix.elements,
                flops=flops[matrix.output],
                problem="is a float" if matrix.bits is None else _misfit(matrix.bits, matrix.activations, bits),
                convolution=matrix.convolution,
            )


def _misfit(weights: int, activations: int | None, bits: Bits) -> str | None:
    """Return how widths exceed `bits`; None if they do not."""
    if weights > bits.weights:
        return f"has {weights} bits"
    if bits.activations is not None and (activations is None or activations > bits.activations):
        return "has an input that is a float" if activations is None else f"has an input of {activations} bits"
    return None


def _rounded(weight: torch.Tensor, bits: int, granularity: Granularity) -> bool:
    """Return whether the values of some channels or groups of a weight lie on grids."""
    rows = grid.to_rows(weight.detach().nan_to_num(), granularity)
    return all(grid.lies_on_grid(row, bits) for row in rows[:: max(1, len(rows) // SAMPLED_CHANNELS)])


def _input_rounded(clip: Clip, weight: str) -> bool:
    hook = find_input_quantizer(clip.module.get_submodule(weight.rpartition(".")[0]))
    return hook is not None and hook.called and hook.round is not None


class _ProductWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The counter of the FLOPs of products with given weights.

    It knows a weight by its memory, which may be a part of one storage.
    """

    OPERATIONS = frozenset({"mm", "addmm", "bmm", "baddbmm", "linear", "convolution"})

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.spans = sorted((w.data_ptr(), w.data_ptr() + w.nbytes, name) for name, w in weights.items())
        self.sizes = {name: weight.numel() for name, weight in weights.items()}
        self.flops: dict[str, float] = defaultdict(float)
        self.convolutions: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        operation = func.overloadpacket.__name__
        if operation in self.OPERATIONS:
            channels = out.shape[1 if operation == "convolution" else -1]
            watched = self._weights(args)
            if watched:  # of two, as with a learned query, the first is what the second is applied to
                name = watched[-1]
                self.flops[name] += 2 * out.numel() * self.sizes[name] / channels
                if operation == "convolution":
                    self.convolutions.add(name)
        elif "rnn" in operation or "lstm" in operation:  # a whole recurrent layer, whose products are not seen
            for name in self._weights(args):
                self.flops[name] += 2 * args[0].numel() / args[0].shape[-1] * self.sizes[name]
        return out

    def _weights(self, args: Any) -> list[str]:
        """Return the names of the weights among arguments, or of which they are views."""
        found = []
        for matrix in tree_leaves(args):
            if isinstance(matrix, torch.Tensor) and matrix.ndim >= 2:
                place = bisect_right(self.spans, matrix.data_ptr(), key=lambda span: span[0]) - 1
                if place >= 0 and matrix.data_ptr() < self.spans[place][1]:
                    found.append(self.spans[place][2])
        return found
