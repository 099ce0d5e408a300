"""Coverage: the share of a model that really is quantized.

It counts weights and matmul FLOPs, seen from outside. A quantizer's own word is not taken. A few images and prompts run
through the model while every matrix product and convolution is watched, and each weight that takes part is looked at. A
float weight is covered if its values lie on a grid, whether they were moved for that or not. For a library's tensor the
stored numbers count, for an ONNX graph the types that its nodes read.

What is in no matrix product and no convolution with a weight is not counted: embeddings, positions, norms, biases, and
layers that none of these inputs reaches. Products of two activations, as attention has them, count in a share of their
own, of all products. They are covered if the values of both sides lie on grids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pytest_qreliab.config.formats import Format, Number, integer
from pytest_qreliab.errors import InputError
from pytest_qreliab.models import probes
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.layout import no_fused_attention
from pytest_qreliab.models.onnx_towers import OnnxClip
from pytest_qreliab.quantizers.engine import grid, grid_recognition, packed_weights
from pytest_qreliab.quantizers.engine.grid import Granularity
from pytest_qreliab.quantizers.engine.grid import granularity as granularity_of
from pytest_qreliab.quantizers.engine.input_quantizer import find_input_quantizer
from pytest_qreliab.quantizers.engine.layers import encode_probes, find_layers, probe_images, unpack_layers
from pytest_qreliab.quantizers.engine.transform import Transform
from pytest_qreliab.quantizers.inspection import size
from pytest_qreliab.quantizers.inspection.product_watch import ProductWatch
from pytest_qreliab.quantizers.libraries.onnx_graph import Graph

CHANGED = "was to be kept in full precision, and has changed"
KEPT = "is kept in full precision, as `layers` says"
FULL_BITS = 32  # of a weight that is not rounded
WIDEST = 8  # bits of the widest weights that count as quantized


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """The quantized part of the weights of the towers in scope.

    The weights are those of matrix products and convolutions. Embeddings, norms and biases are not counted.
    """

    weights: float  # the share of elements, 0 to 1
    flops: float  # the share of the FLOPs of as many images as prompts, 0 to 1
    products: float  # the share of the FLOPs of all products, those of two activations too, 0 to 1
    matrices: float  # `asked` without the convolutions
    total_weights: int  # the number of elements, quantized or not
    mean_bits: float | None  # of the weights that are quantized or kept on purpose; None for a control
    asked: float  # the smaller of the two shares, without what is kept in full precision on purpose
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
        covered = self.asked if convolutions else self.matrices
        if covered < declared - 1e-9:
            shown = ", ".join(self.missing[:4]) + (", ..." if len(self.missing) > 4 else "")
            counted = "matrix products and convolutions" if convolutions else "matrix products"
            raise InputError(
                f"{what} declares to quantize {declared:.1%} of the weights of {counted} but covers {covered:.1%} (of "
                f"all, {self.weights:.1%} of the weights, {self.flops:.1%} of the FLOPs); not or not fully quantized: "
                f"{shown}; the first of them {self.reason}{mend}"
            )


@dataclass(frozen=True)
class _Asked:
    bits: Format | None
    granularity: Granularity
    formats: Mapping[str, Format | None]

    def of(self, weight: str) -> Format | None:
        """Return the format of a weight; None if its layer is kept."""
        return self.formats.get(weight.partition(".weight")[0], self.bits)  # a graph adds to the name


@dataclass(frozen=True, kw_only=True)
class _Product:
    name: str  # of the weight
    elements: int
    flops: float  # of all inputs that were tried; 0: nothing is multiplied by the weight
    problem: str | None  # why it does not count as quantized; None: it does
    form: Format | None  # that is asked for; None: none, or it is kept in full precision
    convolution: bool

    @property
    def quantized(self) -> bool:
        return self.problem is None


@dataclass(frozen=True)
class _OfActivations:
    """The FLOPs of products of two activations."""

    flops: float
    rounded: float  # of products with both sides rounded

    def share_with(self, products: list[_Product]) -> float:
        """Return the share of the FLOPs of these and of products of weights that is quantized."""
        total = self.flops + sum(map(_flops, products))
        done = self.rounded + sum(product.flops for product in products if product.quantized)
        return done / total if total else 0.0


def measure(
    full: Clip,
    quantized: Clip,
    bits: Format | None,
    scope: str,
    granularity: Granularity = "channel",
    formats: Mapping[str, Format | None] | None = None,
) -> Coverage:
    """Measure how much of a model is quantized.

    Args:
        full: The full-precision model.
        quantized: The quantized copy of it.
        bits: The format that weights must have, or fewer bits. None, for a control, which rounds nothing: a weight is
            covered if it has changed, or lies on a grid already, on which a quantizer does not err.
        scope: The towers to look at: "vision", "text" or "both".
        granularity: The weights that share a grid, and so have 2^bits values among them, if the format does not say it.
        formats: The formats of layers that have their own, by name; None: the layer is kept in full precision.
    """
    asked = _Asked(bits, granularity, formats or {})
    if bits is not None and isinstance(quantized.module, OnnxClip):
        products, of_two = _graph_products(quantized, quantized.module, asked)
    else:
        products, of_two = _plain_products(full, quantized, asked, scope)
        if bits is not None:
            products += _library_products(full, quantized, asked, scope)
    rounded = {product.name: form for product in products if product.quantized and (form := product.form)}
    missing = [product for product in products if not product.quantized]
    missing.sort(key=lambda product: product.problem == KEPT)  # what is kept on purpose comes last
    measures, not_kept = (_elements, _flops), [product for product in products if product.problem != KEPT]
    return Coverage(
        weights=_share(products, measures[0]),
        flops=_share(products, measures[1]),
        products=of_two.share_with(products),
        matrices=min(_share([product for product in not_kept if not product.convolution], by) for by in measures),
        total_weights=sum(product.elements for product in products),
        mean_bits=None if bits is None else _mean_bits(products),
        asked=min(_share(not_kept, by) for by in measures),
        missing=tuple(product.name for product in missing),
        reason=next((product.problem for product in missing if product.problem), ""),
        size=size.model_size(quantized, rounded, granularity),
        full_size=size.model_size(full),
    )


def _elements(product: _Product) -> float:
    return product.elements


def _flops(product: _Product) -> float:
    return product.flops


def _share(products: list[_Product], by: Callable[[_Product], float]) -> float:
    total = sum(map(by, products))
    return sum(by(product) for product in products if product.quantized) / total if total else 0.0


def _mean_bits(products: list[_Product]) -> float | None:
    """Return the mean bits of the weights that are quantized, or kept on purpose, without scales."""
    total = elements = 0.0
    for product in products:
        if product.quantized or product.problem == KEPT:
            total += product.elements * (FULL_BITS if product.form is None else product.form.weights.bits)
            elements += product.elements
    return total / elements if elements else None


def _plain_products(full: Clip, quantized: Clip, asked: _Asked, scope: str) -> tuple[list[_Product], _OfActivations]:
    """Return ordinary float weights, rounded in place or not at all, and products of two activations."""
    weights = {
        name: parameter
        for name, parameter in quantized.module.named_parameters()
        if parameter.ndim >= 2 and quantized.in_scope(name, scope) and not packed_weights.is_library_tensor(parameter)
    }
    watch = ProductWatch(weights, None if asked.bits is None else asked.bits.activations, _turns(quantized, scope))
    with no_fused_attention(), torch.no_grad(), watch:
        encode_probes(quantized, scope)
    found: list[_Product] = []
    compared = asked.bits is None or None in asked.formats.values()
    changed = _changed(full, weights, scope) if compared else set()
    for name, flops in watch.flops.items():
        weight, form = weights[name], asked.of(name)
        if asked.bits is None:
            moved = name in changed or _rounded(weight, integer(WIDEST), "channel")
            problem = None if moved else "is as in full precision"
        elif form is None:
            problem = CHANGED if name in changed else KEPT
        elif not _rounded(weight, form.weights, granularity_of(form, asked.granularity)):
            levels = f"{2**form.weights.bits} levels" if form.weights.kind == "integer" else form.weights.name
            problem = f"does not lie on grids of {levels}"
        else:
            unread = form.activations is not None and not _input_rounded(quantized, name)
            problem = "is rounded, and its input is not" if unread else None
        product = _Product(
            name=name,
            elements=weight.numel(),
            flops=flops,
            problem=problem,
            form=form,
            convolution=name in watch.convolutions,
        )
        found.append(product)
    return found, _OfActivations(watch.of_activations, watch.of_rounded)


def _turns(clip: Clip, scope: str) -> list[torch.Tensor]:
    """Return the matrices that turn what layers read, which a deployed model folds into its weights."""
    hooks = [find_input_quantizer(layer) for layer in find_layers(clip, scope).values()]
    turns = [hook.transform.rotation for hook in hooks if hook is not None and isinstance(hook.transform, Transform)]
    return [matrix for turn in turns if turn is not None for matrix in (turn.left, turn.right)]


def _changed(full: Clip, weights: Mapping[str, torch.Tensor], scope: str) -> set[str]:
    """Return the names of weights that are others than in full precision, packed or unpacked."""
    before = dict(full.module.named_parameters()) | dict(unpack_layers(full, scope)[0].module.named_parameters())
    return {name for name, weight in weights.items() if name not in before or not torch.equal(weight, before[name])}


def _library_products(full: Clip, quantized: Clip, asked: _Asked, scope: str) -> Iterator[_Product]:
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
    with ExitStack() as hooks:
        for name, layer in layers.items():
            if name.endswith(".weight"):
                hooks.enter_context(layer.register_forward_hook(watch(name)))
        encode_probes(quantized, scope)
    idle = _idle(full, scope)
    for name, layer in layers.items():
        if name in idle and flops[name] == 0:
            continue
        stored = packed_weights.layer_format(layer) if name.endswith(".weight") else None
        elements = weights[name].numel() if stored is None else stored.elements
        problem: str | None = "is stored in no known format"
        form = asked.of(name)
        if flops[name] == 0:
            problem = "belongs to a layer that is never called"
        elif stored is not None:
            problem = CHANGED if form is None else _misfit(stored.bits, stored.activations, form)
        yield _Product(name=name, elements=elements, flops=flops[name], problem=problem, form=form, convolution=False)


def _idle(full: Clip, scope: str) -> set[str]:
    """Return the names of weights that no feature comes from."""
    reference, layers = unpack_layers(full, scope)
    called = set()
    for name, layer in layers.items():
        layer.register_forward_hook(lambda layer, args, out, name=name: called.add(name))
    encode_probes(reference, scope)
    return {f"{name}.weight" for name in layers.keys() - called}


def _graph_products(quantized: Clip, module: OnnxClip, asked: _Asked) -> tuple[list[_Product], _OfActivations]:
    """Return the weights of ONNX graphs, whose nodes tell the width; a run of each graph counts the FLOPs."""
    found: list[_Product] = []
    of_activations = of_rounded = 0.0
    for which, tower in module.towers().items():
        graph = Graph(tower.graph())
        matrices = graph.matrices()
        x = quantized.tokenizer(list(probes.PROMPTS)) if which == "text" else probe_images(quantized)
        of_graph = graph.activation_products()
        flops = graph.flops(matrices, tower.batches(x)[0], of_graph)
        for one in of_graph:
            of_activations += flops[one.output]
            wanted = None if asked.bits is None else asked.bits.activations
            if one.bits is not None and wanted is not None and one.bits <= wanted.bits:
                of_rounded += flops[one.output]
        for matrix in matrices:
            form = asked.of(matrix.name)
            if form is None:
                problem: str | None = KEPT if matrix.bits is None else CHANGED
            else:
                problem = "is a float" if matrix.bits is None else _misfit(matrix.bits, matrix.activations, form)
            product = _Product(
                name=f"{which}.onnx: {matrix.name}",
                elements=matrix.elements,
                flops=flops[matrix.output],
                problem=problem,
                form=form,
                convolution=matrix.convolution,
            )
            found.append(product)
    return found, _OfActivations(of_activations, of_rounded)


def _misfit(weights: int, activations: int | None, form: Format) -> str | None:
    """Return how widths exceed those of a format; None if they do not."""
    if weights > form.weights.bits:
        return f"has {weights} bits"
    if form.activations is not None and (activations is None or activations > form.activations.bits):
        return "has an input that is a float" if activations is None else f"has an input of {activations} bits"
    return None


def _rounded(weight: torch.Tensor, number: Number, granularity: Granularity) -> bool:
    """Return whether the values of some channels or groups of a weight lie on grids."""
    rows = grid.to_rows(weight.detach().nan_to_num(), granularity, fill=torch.nan)
    some = (row[~row.isnan()] for row in grid_recognition.some_rows(rows))  # what fills up a group is on no grid
    return all(grid_recognition.is_rounded(row, number) for row in some)


def _input_rounded(clip: Clip, weight: str) -> bool:
    hook = find_input_quantizer(clip.module.get_submodule(weight.rpartition(".")[0]))
    return hook is not None and hook.called and hook.round is not None
