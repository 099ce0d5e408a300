"""Reach the parts of a CLIP in its module: in the modules of open_clip, unless a subclass says otherwise."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from pytest_qreliab.models import local_features

# The attribute of a module with a function (module, tower) to the context in which the tower, "vision" or "text",
# encodes. A quantizer sets it that rounds more than what layers read.
PASS_CONTEXT = "pass_context"


def pass_context(module: nn.Module, tower: str) -> AbstractContextManager[None]:
    """Return the context in which a tower of a module encodes: that which a quantizer set, or none."""
    within = module.__dict__.get(PASS_CONTEXT)
    return nullcontext() if within is None else cast(AbstractContextManager[None], within(module, tower))


class LocalOutputs(NamedTuple):
    """The outputs of one pass of an image tower; None for what it does not show."""

    features: torch.Tensor  # (batch, dim), not normalised
    patch_map: torch.Tensor | None = None  # of the last block, (batch, channels, rows, columns)
    local: torch.Tensor | None = None  # features of each patch, (batch, patches, dim), not normalised


class Layout:
    """The layout of open_clip's modules: the image tower is `visual`, all else is text."""

    # The share of the towers' matmul and convolution weights that a quantizer is able to reach.
    coverage = 1.0

    def encode_image(self, module: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Return the features of images on the module's device, (batch, dim), not normalised."""
        with pass_context(module, "vision"):
            return cast(torch.Tensor, cast(Any, module).encode_image(images))

    def encode_image_with_map(
        self, module: nn.Module, images: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the features and the last block's patch map; None if the image tower shows none."""
        visual = cast(Any, module).visual
        intermediates = getattr(visual, "forward_intermediates", None)
        # A timm tower has the method whether its trunk can do it or not.
        if intermediates is None or not hasattr(getattr(visual, "trunk", visual), "forward_intermediates"):
            return self.encode_image(module, images), None
        with pass_context(module, "vision"):
            out = intermediates(images, indices=1, output_fmt="NCHW")
        return out["image_features"], out["image_intermediates"][-1]

    def encode_image_with_local(self, module: nn.Module, images: torch.Tensor) -> LocalOutputs:
        """Return the features, the last block's patch map and the local features."""
        visual = cast(Any, module).visual
        last = local_features.last_attention(visual)
        if last is None:
            return LocalOutputs(*self.encode_image_with_map(module, images))
        read: list[torch.Tensor] = []
        with last.register_forward_pre_hook(lambda _, args: read.append(args[0])):
            features, patch_map = self.encode_image_with_map(module, images)
        with pass_context(module, "vision"):
            return LocalOutputs(features, patch_map, local_features.encode_patches(visual, read[0]))

    def encode_text(self, module: nn.Module, tokens: Any, device: torch.device) -> torch.Tensor:
        """Return the features of tokenized texts, (texts, dim), not normalised."""
        with pass_context(module, "text"):
            return cast(torch.Tensor, cast(Any, module).encode_text(tokens.to(device)))

    def log_scale(self, module: nn.Module) -> torch.Tensor:
        """Return the tensor that holds the logarithm of the logit scale."""
        return cast(torch.Tensor, module.logit_scale)

    def device(self, module: nn.Module) -> torch.device:
        """Return the device of the module."""
        return self.log_scale(module).device

    def in_scope(self, name: str, scope: str) -> bool:
        """Return whether a module or parameter, unpacked or not, is part of a tower in `scope`.

        Args:
            name: The name of the module or parameter.
            scope: `vision`, `text` or `both`.
        """
        is_vision = name == "visual" or name.startswith("visual.")
        return scope == "both" or is_vision == (scope == "vision")

    def copy_module(self, module: nn.Module) -> tuple[Layout, nn.Module]:
        """Return the layout of the copy, and a copy of the module with weights of its own."""
        return self, copy.deepcopy(module)


@contextmanager
def no_fused_attention() -> Iterator[None]:
    """Switch torch's fused kernels for attention off.

    They are one operation that hides its products, and they pad otherwise than the layers that they
    stand for.
    """
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


OPEN_CLIP = Layout()
