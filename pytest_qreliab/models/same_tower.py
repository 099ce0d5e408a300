"""Tell whether a tower of two models is the same, so that its features are the same to the bit.

What decides are the numbers and the code: every parameter and buffer, the class of every module, its hooks and other
attributes, the encoding functions and the preprocessing. Inputs alone do not tell: black pixels hide the first layer of
a model without normalisation. A few inputs are tried in addition. What cannot be compared counts as another tower,
which costs an encoding and no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from pytest_qreliab.models import probes
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.layout import OPEN_CLIP
from pytest_qreliab.models.onnx_towers import OnnxClip

Tower = Literal["vision", "text"]

# Attributes of a module that are compared name by name, or not at all.
BY_NAME = ("_parameters", "_buffers", "_modules")
COMPILED = "_compiled_call_impl"  # another object in each module, of the same code
SCALES = ("logit_scale", "logit_bias")  # which go with features, and are no part of a tower
HEAP_TYPE = 1 << 9  # the flag of a class that is written in Python


def same_tower(clip: Clip, full: Clip, tower: Tower) -> bool:
    """Return whether a tower of two models gives the same features to the bit.

    Args:
        clip: A model, in most cases a quantized copy of the other.
        full: The other model.
        tower: "vision" or "text".
    """
    pair = [(model, source) for model in (clip, full) if (source := _source(model, tower)) is not None]
    if len(pair) < 2 or type(clip.layout) is not type(full.layout):
        return False
    comparison = _Comparison()
    same = comparison.same(*(_ends(model, tower) for model, _ in pair))
    kinds = [type(source) for _, source in pair]
    if OnnxClip not in kinds:  # whose encoding functions are ours
        same = same and kinds[0] is kinds[1] and comparison.same(*(_attributes(source) for _, source in pair))
    same = same and comparison.same(*(dict(_parts(model, source, tower)) for model, source in pair))
    return same and _same_features(clip, full, tower)


def _ends(clip: Clip, tower: Tower) -> dict[str, Any]:
    """Return what stands before and around the module: the layout's functions, and the preprocessing or tokenizer."""
    given = clip.preprocess if tower == "vision" else clip.tokenizer
    return {**vars(clip.layout), "scale": None, "towers": None, "given": given}


def _source(clip: Clip, tower: Tower) -> nn.Module | None:
    """Return the module that holds a tower; None if the tower is a graph."""
    module = clip.module
    if not isinstance(module, OnnxClip):
        return module
    if ("visual" if tower == "vision" else "text") in module.towers():
        return None
    return module if module.original is None else module.original


def _parts(clip: Clip, source: nn.Module, tower: Tower) -> Iterator[tuple[str, Any]]:
    """Yield everything that the tower may read: all but what is part of the other tower alone."""
    other = "text" if tower == "vision" else "vision"
    for name, module in source.named_modules(remove_duplicate=False):
        if clip.in_scope(name, tower) or not clip.in_scope(name, other):
            yield name, (type(module), _attributes(module))
    buffers = source.named_buffers(remove_duplicate=False)
    for name, tensor in chain(source.named_parameters(remove_duplicate=False), buffers):
        inside = clip.in_scope(name, tower)
        if name in SCALES and (clip.layout is OPEN_CLIP or not inside):
            continue
        if inside or not clip.in_scope(name, other):
            yield f"{name} (tensor)", tensor


def _attributes(module: nn.Module) -> dict[str, Any]:
    given = {name: value for name, value in vars(module).items() if name not in (*BY_NAME, COMPILED)}
    return {**given, COMPILED: getattr(module, COMPILED, None) is not None}


@torch.no_grad()
def _same_features(clip: Clip, full: Clip, tower: Tower) -> bool:
    if tower == "text":
        a, b = (model.encode_text(probes.PROMPTS) for model in (clip, full))
    else:
        images = probes.images()
        a, b = (model.encode_image(torch.stack([*map(model.preprocess, images)])) for model in (clip, full))
    return torch.equal(a, b)


class _Comparison:
    """A comparison of two things and of all that they hold; whatever it does not know is different."""

    def __init__(self) -> None:
        self._met: dict[tuple[int, int], Any] = {}  # with the things themselves, so that no id is used twice

    def same(self, a: Any, b: Any) -> bool:
        """Return whether two things are of one class and hold the same."""
        if a is b:
            return True
        if type(a) is not type(b) or isinstance(a, FunctionType | BuiltinFunctionType | type):
            return False
        if (id(a), id(b)) in self._met:  # it holds itself, or is compared already
            return True
        self._met[id(a), id(b)] = a, b
        if isinstance(a, torch.Tensor):
            return _same_tensor(a, b) and self.same(vars(a), vars(b))
        if isinstance(a, np.ndarray):
            return a.dtype == b.dtype and not a.dtype.hasobject and np.array_equal(a, b)
        if isinstance(a, Mapping):
            return list(a) == list(b) and all(self.same(a[key], b[key]) for key in a)
        if isinstance(a, list | tuple):
            return len(a) == len(b) and all(map(self.same, a, b))
        if isinstance(a, partial):
            return all(self.same(getattr(a, part), getattr(b, part)) for part in ("func", "args", "keywords"))
        if isinstance(a, MethodType):
            return a.__func__ is b.__func__ and self.same(a.__self__, b.__self__)
        if _is_plain(a):
            return self.same(vars(a), vars(b))
        return (a == b) is True


def _is_plain(thing: object) -> bool:
    """Return whether all that an object holds is in its attributes."""
    kinds = [kind for kind in type(thing).__mro__ if kind is not object]
    written = all(kind.__flags__ & HEAP_TYPE and not vars(kind).get("__slots__") for kind in kinds)
    return written and hasattr(thing, "__dict__")


def _same_tensor(a: torch.Tensor, b: torch.Tensor) -> bool:
    if type(a) not in (torch.Tensor, nn.Parameter):  # a library's own storage
        return False
    if (a.dtype, a.shape, a.device, a.layout) != (b.dtype, b.shape, b.device, b.layout) or a.layout != torch.strided:
        return False
    return not a.is_quantized and a.stride() == b.stride() and torch.equal(a, b)
