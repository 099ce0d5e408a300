"""Rounding of what a static integer runtime rounds beside the inputs of layers.

Such a runtime computes on integers from the pixels to the features. So it rounds the operands of products of two
activations, the results of softmax, both sides of adds, and what layers and norms write. ONNX Runtime's static
quantization does all of that by default.

The code of the towers stays as it is. While a tower encodes, a torch function mode sees each operation before it is
computed. A site is known by the tower, the module whose forward runs, the kind of value, and how many of that kind
came before in this call of the module. Calibration finds the sites. Later a site that it did not find is refused.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from pytest_qreliab.errors import InputError, listed
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.layout import PASS_CONTEXT
from pytest_qreliab.quantizers.engine import input_quantizer, observers
from pytest_qreliab.quantizers.engine.grid import Grid
from pytest_qreliab.quantizers.engine.input_quantizer import Round
from pytest_qreliab.quantizers.engine.layers import encode_probes, find_layers, own_formats
from pytest_qreliab.quantizers.parameters import INTEGER_PRODUCTS, rounded_products
from pytest_qreliab.quantizers.request import Request

IMAGES = 128  # the most calibration images from which ranges are taken
ATTENTION = frozenset({"query", "key", "value", "softmax"})
SCORES = "scores"  # the products of queries and keys, which are rounded with `output` to a static range

ADDS = frozenset({"add", "add_", "__add__", "__iadd__", "__radd__"})
PRODUCTS = frozenset({"matmul", "mm", "bmm", "__matmul__", "__rmatmul__"})
UNKNOWN_PRODUCTS = frozenset(
    {"einsum", "tensordot", "inner", "addmm", "addbmm", "baddbmm", "bilinear", "multi_head_attention_forward"}
)
ENTRIES = ("visual", "visual.trunk")  # which `forward_intermediates` enters as well: their operations are the model's


class Site(NamedTuple):
    """A value in a tower that an integer runtime rounds."""

    tower: str  # "vision" or "text"
    module: str  # the path of the module whose forward computes or reads the value
    kind: str
    number: int  # how many values of the kind came before in the same call of the module

    def __str__(self) -> str:
        return f"the {self.kind} {self.number} of {self.module or 'the model'} ({self.tower})"


Visit = Callable[[Site, torch.Tensor], torch.Tensor]


@dataclass
class _Frame:
    module: str
    layer: bool  # a Linear or a convolution, in which nothing but its own operation counts
    counts: Counter[str] = field(default_factory=Counter)
    shares: bool = False  # whether a softmax was computed whose product is to come


class Pass(TorchFunctionMode):
    """One pass of a tower, in which the values of some kinds are visited, and replaced by what comes back."""

    def __init__(self, tower: str, module: nn.Module, kinds: frozenset[str], visit: Visit) -> None:
        super().__init__()
        self.tower, self.kinds = tower, kinds
        self.folded: list[Site] = []  # values that no runtime rounds: it merges the operation that reads them
        self._visit_site = visit
        self._paths = {child: path for path, child in module.named_modules() if path and path not in ENTRIES}
        own = [*module.parameters(), *module.buffers()]
        self._own = frozenset(tensor.untyped_storage().data_ptr() for tensor in own)
        self._frames = [_Frame("", layer=False)]
        self._written: tuple[object, list[Site]] = None, []  # the last result of a convolution or an add

    def enter(self, module: nn.Module, args: object) -> None:
        """Note that the forward of a module begins."""
        path, frame = self._paths.get(module), self._frames[-1]
        if path is not None and not frame.layer:
            frame = _Frame(path, layer=isinstance(module, nn.Linear | nn.Conv2d))
        self._frames.append(frame)

    def leave(self, module: nn.Module, args: object, out: object) -> None:
        """Note that the forward of a module has ended."""
        ended = self._frames.pop()
        self._frames[-1].shares |= ended.shares  # of a softmax that is a module

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute an operation, with its values visited."""
        kwargs, name, frame = kwargs or {}, getattr(func, "__name__", ""), self._frames[-1]
        if frame.layer and name not in ("linear", "conv2d"):
            return func(*args, **kwargs)
        if name == "scaled_dot_product_attention" and self.kinds & {*ATTENTION, SCORES}:
            return self._attend(*args, **kwargs)
        if name in ADDS and _are_arrays(args):
            return self._add(func, name, args, kwargs)
        if name in PRODUCTS and _are_arrays(args) and self._activations(args[:2]) == 2:
            return self._multiply(func, name, args, kwargs)
        if name in UNKNOWN_PRODUCTS and self.kinds & ATTENTION and self._activations(args) > 1:
            raise InputError(
                f"products: {frame.module or 'the model'} multiplies activations by {name}, whose operands are not "
                "known; write it with torch.matmul or scaled_dot_product_attention, or set products to float"
            )
        if name == "linear":
            return self._linear(func, *args, **kwargs)
        if self._written[0] is not None and args and args[0] is self._written[0] and name in ("batch_norm", "softmax"):
            self.folded += self._written[1]  # a norm that is folded into its convolution, or a mask added to scores
        out = func(*args, **kwargs)
        frame.shares |= name == "softmax"
        if name == "conv2d":
            out = self._visit("output", out)
            self._written = out, [self._last("output")]
        return self._visit("output", out) if name == "layer_norm" else out

    def _visit(self, kind: str, x: torch.Tensor) -> torch.Tensor:
        if kind not in self.kinds:
            return x
        self._frames[-1].counts[kind] += 1
        return self._visit_site(self._last(kind), x)

    def _last(self, kind: str) -> Site:
        frame = self._frames[-1]
        return Site(self.tower, frame.module, kind, frame.counts[kind] - 1)

    def _activations(self, args: Any) -> int:
        """Return how many arrays among arguments are not the model's own."""
        return sum(_is_array(x) and x.untyped_storage().data_ptr() not in self._own for x in tree_leaves(args))

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        """Compute attention by its two products and its softmax."""
        if dropout_p or enable_gqa:
            raise InputError("products: attention with dropout or grouped queries is not known; set products to float")
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        query, key, value = self._visit("query", query), self._visit("key", key), self._visit("value", value)
        scores = self._visit(SCORES, query @ key.transpose(-2, -1) * factor)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None:
            hidden = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, float("-inf")) if hidden else scores + attn_mask
        return self._visit("softmax", scores.softmax(-1)) @ value

    def _multiply(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        frame, (left, right) = self._frames[-1], args[:2]
        if name == "__rmatmul__":
            func, left, right = torch.matmul, right, left
        if frame.shares:
            frame.shares = False
            return func(self._visit("softmax", left), self._visit("value", right), *args[2:], **kwargs)
        return self._visit(SCORES, func(self._visit("query", left), self._visit("key", right), *args[2:], **kwargs))

    def _add(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        before = self._frames[-1].counts["residual"]
        left, right = self._visit("residual", args[0]), self._visit("residual", args[1])
        if name in ("add_", "__iadd__"):  # others may hold the tensor that is changed
            out = args[0].copy_(self._visit("residual", torch.add(left, right, **kwargs)))
        else:
            out = self._visit("residual", func(left, right, *args[2:], **kwargs))
        last = self._last("residual")
        self._written = out, [last._replace(number=number) for number in range(before, last.number + 1)]
        return out

    def _linear(self, func: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Any:
        """Round the product of more than one token before its bias too, which exporters make an add of its own."""
        if bias is None or x.ndim < 3:
            return self._visit("output", func(x, weight, bias))
        return self._visit("output", self._visit("output", func(x, weight)) + bias)


def _is_array(x: object) -> bool:
    """Return whether a value is a float tensor of two dimensions or more, which no bias has."""
    return isinstance(x, torch.Tensor) and x.is_floating_point() and x.ndim > 1


def _are_arrays(args: Any) -> bool:
    return len(args) > 1 and _is_array(args[0]) and _is_array(args[1])


@dataclass
class ProductRounding:
    """The context in which the towers of one module encode: each site is rounded as calibration found."""

    rounds: dict[Site, Round | None]  # None: a site that stays as it is
    kinds: frozenset[str]
    running: bool = False

    @contextmanager
    def __call__(self, module: nn.Module, tower: str) -> Iterator[None]:
        """Encode with a tower of the module; a call within a call changes nothing."""
        if self.running or not any(site.tower == tower for site in self.rounds):
            yield
            return
        self.running = True
        try:
            with _passing(Pass(tower, module, self.kinds, self._round)):
                yield
        finally:
            self.running = False

    def _round(self, site: Site, x: torch.Tensor) -> torch.Tensor:
        if site not in self.rounds:
            raise InputError(
                f"products: calibration did not reach {site}, so that it has no range; leave its kind out of products"
            )
        rounding = self.rounds[site]
        return x if rounding is None else rounding(x)


@contextmanager
def _passing(one: Pass) -> Iterator[None]:
    with ExitStack() as stack:
        # The hooks of all modules run first: what a layer's own hook computes is then the layer's.
        stack.callback(register_module_forward_pre_hook(one.enter).remove)
        stack.callback(register_module_forward_hook(one.leave, always_call=True).remove)
        if "torch._dynamo" in sys.modules:  # compiled blocks would be compiled once more, for each site
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(one)
        yield


class _Ranges:
    """The context that finds the sites of the towers, and their ranges."""

    def __init__(self, kinds: frozenset[str]) -> None:
        self.kinds = kinds
        self.bounds: dict[Site, tuple[torch.Tensor, torch.Tensor]] = {}
        self.folded: set[Site] = set()

    @contextmanager
    def __call__(self, module: nn.Module, tower: str) -> Iterator[None]:
        """Encode with a tower of the module."""
        one = Pass(tower, module, self.kinds, self._widen)
        with _passing(one):
            yield
        self.folded.update(one.folded)

    def _widen(self, site: Site, x: torch.Tensor) -> torch.Tensor:
        lowest, highest = (bound.cpu() for bound in x.detach().aminmax())  # on the CPU a scalar serves every device
        if site in self.bounds:
            lowest = torch.minimum(lowest, self.bounds[site][0])
            highest = torch.maximum(highest, self.bounds[site][1])
        self.bounds[site] = lowest, highest
        return x


@dataclass(frozen=True)
class _RowQuantizer:
    """A rounding of every row of attention's values to a grid of its own."""

    rounding: Round

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.rounding(x.flatten(0, -2)).view(x.shape)


@torch.no_grad()
def round_products(clip: Clip, request: Request) -> None:
    """Make a quantized model round, in site, what the parameter `products` names.

    The ranges are those of the model as it is now, with its layers rounded.

    Args:
        clip: The model, unpacked and quantized.
        request: Gives the formats, the scope, the parameters and the calibration data.

    Raises:
        InputError: A product, or the range of a value, is not known.
        ValueError: Calibration data are needed, and the request has none.
    """
    kinds, dynamic = rounded_products(request.parameters, request.bits), request.parameters.activations == "dynamic"
    if not kinds:
        return
    if "output" in kinds and not dynamic:  # a row of scores has those of keys that a mask hides
        kinds |= {SCORES}
    seen = _Ranges(kinds)
    clip.module.__dict__[PASS_CONTEXT] = seen
    if dynamic:
        encode_probes(clip, request.scope)
    else:
        few = request.parameters.model_copy(update={"images": min(IMAGES, request.parameters.images)})
        observers.observe(clip, {}, replace(request, parameters=few), observers.MaxObserver)
    formats = own_formats(clip, find_layers(clip, request.scope), request)
    request = replace(request, formats={name: form for name, form in formats.items() if form is not None})
    kept = {name for name, form in formats.items() if form is None}
    rounds = {site: None if site.module in kept else _rounding(site, seen, request) for site in seen.bounds}
    clip.module.__dict__[PASS_CONTEXT] = ProductRounding(rounds, kinds)
    missing = [kind for kind in INTEGER_PRODUCTS if kind in kinds and kind not in {site.kind for site in rounds}]
    if missing and request.parameters.products != "integer":
        raise InputError(f"{clip.name}: products: scope {request.scope!r} has no {listed(missing, 6)}; leave it out")


def _rounding(site: Site, seen: _Ranges, request: Request) -> Round | None:
    """Return the rounding of a site; None if the value stays as it is."""
    scheme = request.input_scheme(site.module)
    if site in seen.folded or scheme is None:
        return None
    if site.kind == "softmax":
        scheme = replace(scheme, symmetric=False)  # shares are not negative
    first = site.number - site.number % 3  # of the two sides of an add and its sum
    of_add = [site._replace(number=first + side) for side in range(3)] if site.kind == "residual" else []
    if any(bool(torch.isneginf(seen.bounds[side][0])) for side in of_add):
        return None  # a mask
    lowest, highest = seen.bounds[site]
    without = input_quantizer.without_ranges(scheme, request.parameters.activations == "dynamic")
    if without is not None:
        return _RowQuantizer(without) if site.kind in ATTENTION else without
    if not bool(torch.isfinite(highest - lowest)):
        raise InputError(f"products: {site} holds infinity or NaN, and cannot be rounded; leave {site.kind} out")
    laid = scheme.fit(lowest, highest)
    return Grid(laid.scale, float(laid.low), float(laid.high), laid.number).round
