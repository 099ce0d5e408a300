"""Where the parts of a CLIP are in its module: in one of open_clip's, unless a subclass says otherwise."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from pytest_qreliab.models import local_features


class Layout:
    """open_clip's: `encode_image`, `encode_text`, `logit_scale`, the image tower in `visual`, the rest is text."""

    coverage = 1.0
    """The share of the towers' matmul and convolution weights that a quantizer is able to reach."""

    def encode_image(self, module: nn.Module, images: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, cast(Any, module).encode_image(images))

    def encode_image_with_map(
        self, module: nn.Module, images: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features and the last block's patch map, None where the image tower shows none."""
        visual = cast(Any, module).visual
        intermediates = getattr(visual, "forward_intermediates", None)
        # A timm tower has the method whether its trunk can do it or not.
        if intermediates is None or not hasattr(getattr(visual, "trunk", visual), "forward_intermediates"):
            return self.encode_image(module, images), None
        out = intermediates(images, indices=1, output_fmt="NCHW")
        return out["image_features"], out["image_intermediates"][-1]

    def encode_image_with_local(
        self, module: nn.Module, images: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Features, the last block's patch map and the local features, either None where the tower shows none."""
        visual = cast(Any, module).visual
        last = local_features.last_attention(visual)
        if last is None:
            return *self.encode_image_with_map(module, images), None
        read: list[torch.Tensor] = []
        with last.register_forward_pre_hook(lambda _, given: read.append(given[0])):
            features, patch_map = self.encode_image_with_map(module, images)
        return features, patch_map, local_features.features(visual, read[0])

    def encode_text(self, module: nn.Module, tokens: Any, device: torch.device) -> torch.Tensor:
        return cast(torch.Tensor, cast(Any, module).encode_text(tokens.to(device)))

    def log_scale(self, module: nn.Module) -> torch.Tensor:
        """The tensor that holds the logarithm of the logit scale."""
        return cast(torch.Tensor, module.logit_scale)

    def device(self, module: nn.Module) -> torch.device:
        return self.log_scale(module).device

    def in_scope(self, name: str, scope: str) -> bool:
        """Whether the module or parameter of that name, unpacked or not, is part of a tower in `scope`."""
        is_vision = name == "visual" or name.startswith("visual.")
        return scope == "both" or is_vision == (scope == "vision")

    def copied(self, module: nn.Module) -> tuple[Layout, nn.Module]:
        """A copy of the module with weights of its own, and the layout of the copy."""
        return self, copy.deepcopy(module)


@contextmanager
def no_fused_attention() -> Iterator[None]:
    """Without torch's fused kernels for attention, which are one operation, inside of which no product can be seen,
    and which pad otherwise than the layers do that they stand for."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


OPEN_CLIP = Layout()
