"""What a CLIP is here: the module with its image transform, its tokenizer and its logit scale."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

import torch
from PIL import Image
from torch import nn


class ClipModule(Protocol):
    """The part of an open_clip model that is used here."""

    visual: nn.Module
    logit_scale: torch.Tensor

    def encode_image(self, image: torch.Tensor) -> torch.Tensor: ...

    def encode_text(self, text: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True)
class Clip:
    """A CLIP ready to encode, full precision or quantized, on one device, in eval mode, in float32.

    `preprocess` maps a PIL image to a float32 tensor (3, height, width); `tokenizer` maps texts to an
    int64 tensor (texts, context).
    """

    name: str
    module: nn.Module
    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenizer: Callable[[Sequence[str]], torch.Tensor]

    @property
    def clip(self) -> ClipModule:
        return cast(ClipModule, self.module)

    @property
    def device(self) -> torch.device:
        return self.clip.logit_scale.device

    @property
    def logit_scale(self) -> float:
        """The factor from cosines to logits: the exponential of the learned parameter."""
        return float(self.clip.logit_scale.detach().double().exp())

    def set_logit_scale(self, factor: float) -> None:
        """Change the module's learned logit scale, in place."""
        with torch.no_grad():
            self.clip.logit_scale.fill_(math.log(factor))

    @property
    def logit_bias(self) -> float:
        """The constant added to every logit (SigLIP), 0 where the model has none."""
        bias = getattr(self.module, "logit_bias", None)
        return 0.0 if bias is None else float(bias)

    @torch.no_grad()
    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """Image features, (batch, dim), not normalised."""
        return self.clip.encode_image(images.to(self.device))

    @torch.no_grad()
    def encode_image_with_map(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Image features (batch, dim) and the last block's patch map (batch, channels, rows, columns).

        The map comes from the same forward pass; it is None where the image tower shows none.
        """
        visual = self.clip.visual
        intermediates = getattr(visual, "forward_intermediates", None)
        # A timm tower has the method whether its trunk can do it or not.
        if intermediates is None or not hasattr(getattr(visual, "trunk", visual), "forward_intermediates"):
            return self.encode_image(images), None
        out = intermediates(images.to(self.device), indices=1, output_fmt="NCHW")
        return out["image_features"], out["image_intermediates"][-1]

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Text features, (texts, dim), not normalised."""
        return self.clip.encode_text(self.tokenizer(list(texts)).to(self.device))

    def copy(self) -> Clip:
        """The same model with weights of its own."""
        return replace(self, module=copy.deepcopy(self.module))
