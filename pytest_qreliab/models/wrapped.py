"""Models that are not open_clip's: any object that encodes images and texts, checked once and then used alike."""

from __future__ import annotations

import copy
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from pytest_qreliab.errors import InputError, describe_exception, unknown
from pytest_qreliab.models import probes
from pytest_qreliab.models.layout import Layout, LocalOutputs, no_fused_attention, pass_context
from pytest_qreliab.models.logit_scale import MEND, check_factor, check_logarithm

Towers = Mapping[str, frozenset[str]]  # the towers that each module and parameter is part of, by its name


class Opaque(nn.Module):
    """The holder of a model that is no torch module: it has no weights to quantize, and stays on its device."""

    def __init__(self, model: object) -> None:
        super().__init__()
        self.model = model
        self.logit_bias = getattr(model, "logit_bias", None)

    def __deepcopy__(self, memo: object) -> Opaque:
        raise InputError(f"{type(self.model).__name__} is no torch module, so it can be measured but not quantized")


@dataclass(frozen=True, kw_only=True)
class WrapOptions:
    """The arguments of `Clip.wrap`, which describes them."""

    preprocess: Callable[[Image.Image], torch.Tensor] | None = None
    tokenizer: Callable[[list[str]], Any] | None = None
    logit_scale: float | None = None
    encode_image: Callable[[Any, torch.Tensor], Any] | None = None
    encode_text: Callable[[Any, Any], torch.Tensor] | None = None
    vision: Sequence[str] = ()
    coverage: float = 1.0


@dataclass(frozen=True, kw_only=True)
class WrappedLayout(Layout):
    """The parts of one wrapped module, which runs without the fused attention that no quantized copy has."""

    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenizer: Callable[[list[str]], Any]
    image_encoder: Callable[[Any, torch.Tensor], Any]
    text_encoder: Callable[[Any, Any], torch.Tensor]
    scale: torch.Tensor | None  # the logarithm of the logit scale; None: it is the module's own parameter
    towers: Towers
    coverage: float

    def encode_image(self, module: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Return checked features, (batch, dim)."""
        return self.encode_image_with_map(module, images)[0]

    def encode_image_with_map(
        self, module: nn.Module, images: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return checked features, (batch, dim), and the patch map if the user's function returns one."""
        with _explained("encode_image"), no_fused_attention(), pass_context(module, "vision"):
            out = self.image_encoder(_inner(module), images)
        features, patch_map = out if isinstance(out, tuple) and len(out) == 2 else (out, None)
        _check_features(features, "encode_image", len(images))
        if patch_map is not None and (not isinstance(patch_map, torch.Tensor) or patch_map.ndim != 4):
            raise InputError(f"encode_image gave a patch map of {_shown(patch_map)}; (batch, channels, rows, columns)")
        return features, patch_map

    def encode_image_with_local(self, module: nn.Module, images: torch.Tensor) -> LocalOutputs:
        """Return features and the patch map; a wrapped tower shows no local features."""
        return LocalOutputs(*self.encode_image_with_map(module, images))

    def encode_text(self, module: nn.Module, tokens: Any, device: torch.device) -> torch.Tensor:
        """Return checked features, (texts, dim)."""
        with _explained("encode_text"), no_fused_attention(), pass_context(module, "text"):
            features: torch.Tensor = self.text_encoder(_inner(module), _to_device(tokens, device))
        _check_features(features, "encode_text", None)
        return features

    def log_scale(self, module: nn.Module) -> torch.Tensor:
        """Return the module's own parameter, or the tensor beside it."""
        return super().log_scale(module) if self.scale is None else self.scale

    def device(self, module: nn.Module) -> torch.device:
        """Return the device of the first parameter, the CPU if there is none."""
        return next((p.device for p in module.parameters()), torch.device("cpu"))

    def in_scope(self, name: str, scope: str) -> bool:
        """Return whether a module or parameter is part of a tower in `scope`, or of both."""
        while name not in self.towers and "." in name:  # a name that unpacking made, below the unpacked module's
            name = name.rpartition(".")[0]
        towers = self.towers.get(name, frozenset())
        return bool(towers) if scope == "both" else scope in towers

    def copy_module(self, module: nn.Module) -> tuple[WrappedLayout, nn.Module]:
        """Return the layout of the copy, and a copy of the module; raise InputError if it cannot be copied."""
        try:
            copied = copy.deepcopy(module)
        except InputError:
            raise
        except Exception as error:  # of any kind: the module is the user's
            raise InputError(
                f"{type(module).__name__} cannot be copied, and so not be quantized: {describe_exception(error)}"
            ) from error
        return replace(self, scale=None if self.scale is None else self.scale.clone()), copied


def inspect_model(model: object, options: WrapOptions) -> tuple[nn.Module, WrappedLayout]:
    """Return a model as a module, and its layout, found by encoding a few images and prompts.

    Raises:
        InputError: The model does not encode them to finite features.
    """
    if isinstance(model, type):
        raise InputError(f"{model.__name__} is a class; give an instance of it")
    preprocess = options.preprocess or _attribute(model, "preprocess", "give preprocess=, a function from a PIL image")
    tokenizer = options.tokenizer or _attribute(model, "tokenizer", "give tokenizer=, a function from a list of texts")
    if options.encode_image is None:
        _attribute(model, "encode_image", "give encode_image=, a function of the module and a batch of images")
    if options.encode_text is None:
        _attribute(model, "encode_text", "give encode_text=, a function of the module and tokens")
    if not 0 < options.coverage <= 1:
        raise InputError(f"coverage={options.coverage!r}: give a share above 0, at most 1")
    module = model.eval().requires_grad_(False) if isinstance(model, nn.Module) else Opaque(model)
    _check_float32(module)
    layout = WrappedLayout(
        preprocess=preprocess,
        tokenizer=tokenizer,
        image_encoder=options.encode_image or (lambda module, images: module.encode_image(images)),
        text_encoder=options.encode_text or (lambda module, tokens: module.encode_text(tokens)),
        scale=_scale(model, options.logit_scale),
        towers={},
        coverage=options.coverage,
    )
    _check_bias(getattr(module, "logit_bias", None))
    read = _trial(module, layout)
    towers = _towers_by_use(module, read)
    if options.vision:
        towers = _towers_by_name(module, options.vision, towers)
    return module, replace(layout, towers=towers)


def _check_float32(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise InputError(
                f"{name} is in {str(parameter.dtype).removeprefix('torch.')}; the full-precision model is measured "
                "in float32: call .float() on it"
            )


def _check_bias(bias: object) -> None:
    if bias is not None and not (isinstance(bias, float | int | torch.Tensor) and torch.as_tensor(bias).numel() == 1):
        raise InputError(f"logit_bias is {_shown(bias)}; it must be one number, or not be there")


def _scale(model: object, given: float | None) -> torch.Tensor | None:
    """Return the logarithm of the given factor; None if the module's own parameter counts."""
    if given is not None:
        if isinstance(given, bool) or not isinstance(given, float | int):
            raise InputError(f"logit_scale={given!r}; {MEND}")
        check_factor(given, "logit_scale")
        return torch.tensor(math.log(given))
    own = getattr(model, "logit_scale", None)
    if not isinstance(own, torch.Tensor) or own.numel() != 1:
        has = "has no logit_scale" if own is None else f"has a logit_scale that is {_shown(own)}"
        raise InputError(f"{type(model).__name__} {has}; {MEND}")
    check_logarithm(float(own), "logit_scale")
    return None if isinstance(model, nn.Module) else own.detach().clone()


@torch.no_grad()
def _trial(module: nn.Module, layout: WrappedLayout) -> dict[str, list[int]]:
    """Encode images and prompts, check the features, and return the addresses that each tower read, in order.

    They are passed one by one and together. What is used for some inputs only is seen if it is for one of these.
    """
    images = [_preprocess(layout, image) for image in probes.images()]
    device = layout.device(module)
    with _MemoryWatch() as vision:
        for batch in ([images[0]] * 2, *([image] for image in images)):
            image_features = layout.encode_image(module, torch.stack(batch).to(device))
            if not bool(image_features.isfinite().all()):
                raise InputError(
                    f"encode_image gave NaN or infinity for {'a black' if batch[0] is images[0] else 'an'} image"
                )
    with _MemoryWatch() as text:
        for prompts in (probes.PROMPTS[:2], probes.PROMPTS, *([prompt] for prompt in probes.PROMPTS)):
            with _explained("tokenizer"):
                tokens = layout.tokenizer(list(prompts))
            text_features = layout.encode_text(module, tokens, device)
            if len(text_features) != len(prompts):
                raise InputError(
                    f"encode_text gave {_shown(text_features)} for {len(prompts)} texts; (texts, dim) is needed"
                )
            if not bool(text_features.isfinite().all()):
                raise InputError("encode_text gave NaN or infinity for a prompt")
    if image_features.shape[1] != text_features.shape[1]:
        raise InputError(
            f"encode_image gives {image_features.shape[1]} features and encode_text {text_features.shape[1]}; "
            "both must be after their projection into the common space"
        )
    return {"vision": sorted(vision.addresses), "text": sorted(text.addresses)}


def _preprocess(layout: WrappedLayout, image: Image.Image) -> torch.Tensor:
    with _explained("preprocess"):
        tensor = layout.preprocess(image)
    if not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.float32 or tensor.ndim != 3 or len(tensor) != 3:
        raise InputError(f"preprocess gave {_shown(tensor)}; a float32 tensor (3, height, width) is needed")
    return tensor


class _MemoryWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A record of where every tensor begins that an operation reads."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.addresses: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read = (leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor))
        self.addresses |= {t.data_ptr() for t in read if t.layout == torch.strided and t.numel()}
        return func(*args, **(kwargs or {}))


def _towers_by_use(module: nn.Module, read: Mapping[str, list[int]]) -> Towers:
    """Return the towers by the addresses that each read. Parameters may be parts of one storage."""
    towers: dict[str, set[str]] = {name: set() for name, _ in module.named_modules(remove_duplicate=False)}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        begin, end = parameter.data_ptr(), parameter.data_ptr() + parameter.nbytes
        towers[name] = {
            which for which, places in read.items() if bisect_left(places, begin) < bisect_left(places, end)
        }
        for end in [place for place, sign in enumerate(name) if sign == "."]:
            towers[name[:end]] |= towers[name]
    return {name: frozenset(which) for name, which in towers.items()}


def _towers_by_name(module: nn.Module, vision: Sequence[str], used: Towers) -> Towers:
    """Return the towers by the names that the user gave; what the other tower reads as well is part of both."""
    wanted = [vision] if isinstance(vision, str) else vision
    names = [name for name, _ in module.named_modules(remove_duplicate=False) if name]
    names += [name for name, _ in module.named_parameters(remove_duplicate=False)]
    for name in wanted:
        if name not in names:
            raise unknown("module or parameter in vision=", name, names)
    inside = tuple(f"{name}." for name in wanted)
    return {name: used[name] | {"vision" if f"{name}.".startswith(inside) else "text"} for name in names}


def _inner(module: nn.Module) -> Any:
    return module.model if isinstance(module, Opaque) else module


def _attribute(model: object, name: str, mend: str) -> Any:
    attribute = getattr(model, name, None)
    if not callable(attribute):
        raise InputError(f"{type(model).__name__} has no {name}; {mend}")
    return attribute


def _to_device(tokens: Any, device: torch.device) -> Any:
    """Return what a tokenizer made with its tensors on the device."""
    if hasattr(tokens, "to"):
        return tokens.to(device)
    return tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf, tokens)


def _check_features(features: object, what: str, count: int | None) -> None:
    if not isinstance(features, torch.Tensor) or features.ndim != 2 or count not in (None, len(features)):
        expected = "" if count is None else f" for {count} images"
        raise InputError(f"{what} gave {_shown(features)}{expected}; a tensor (batch, dim) is needed")


def _shown(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor {tuple(value.shape)}"
    return "None" if value is None else f"a {type(value).__name__}"


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn an error in the user's own code into an InputError that says where it was raised."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # of any kind: the code is the user's
        raise InputError(f"{what} raised {describe_exception(error)}") from error
