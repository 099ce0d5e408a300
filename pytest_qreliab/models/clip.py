"""A CLIP ready to encode: the module with its image transform, its tokenizer and its logit scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from torch import nn

from pytest_qreliab.models.layout import OPEN_CLIP, Layout, LocalOutputs
from pytest_qreliab.models.wrapped import WrapOptions, inspect_model


@dataclass(frozen=True)
class Clip:
    """A CLIP ready to encode, full precision or quantized, on one device, in eval mode, in float32.

    Example:
        >>> class Towers(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.image, self.text = nn.Linear(3, 8), nn.Embedding(256, 8)
        ...     def encode_image(self, images):
        ...         return self.image(images.mean((2, 3)))
        ...     def encode_text(self, tokens):
        ...         return self.text(tokens)
        >>> clip = Clip.wrap(
        ...     Towers(),
        ...     preprocess=lambda image: torch.full((3, 32, 32), 0.5),
        ...     tokenizer=lambda texts: torch.tensor([ord(text[0]) for text in texts]),
        ...     logit_scale=100.0,
        ... )
        >>> clip.encode_text(["a cat", "a dog"]).shape
        torch.Size([2, 8])
        >>> clip.in_scope("image.weight", "vision"), clip.in_scope("image.weight", "text")
        (True, False)
    """

    name: str
    module: nn.Module
    preprocess: Callable[[Image.Image], torch.Tensor]  # PIL image to float32 (3, height, width)
    tokenizer: Callable[[list[str]], Any]  # texts to the input of the text tower, in open_clip int64 (texts, context)
    layout: Layout = field(default=OPEN_CLIP, kw_only=True)  # where the module has its parts

    @staticmethod
    def wrap(
        module: object,
        preprocess: Callable[[Image.Image], torch.Tensor] | None = None,
        tokenizer: Callable[[list[str]], Any] | None = None,
        *,
        logit_scale: float | None = None,
        encode_image: Callable[[Any, torch.Tensor], Any] | None = None,
        encode_text: Callable[[Any, Any], torch.Tensor] | None = None,
        vision: Sequence[str] = (),
        coverage: float = 1.0,
    ) -> Clip:
        """Wrap a model of your own; it encodes a few images and prompts, which are checked.

        Args:
            module: The model, best an `nn.Module` in float32, which is taken over and put into eval mode. Any other
                object can be measured, but not quantized.
            preprocess: Maps a PIL image to a float32 tensor (3, height, width). The default is `module.preprocess`.
            tokenizer: Maps a list of texts to anything that `encode_text` takes. The default is `module.tokenizer`.
            logit_scale: The factor from cosines to logits. The default is exp of the tensor `module.logit_scale`.
            encode_image: A function (module, images) in place of the method. It returns features (batch, dim), or
                those and the last patch map (batch, channels, rows, columns), for the high-band energy.
            encode_text: A function (module, tokens) in place of the method. It returns features (texts, dim).
            vision: Names of the modules and parameters of the image tower; all else is text, and what the other tower
                reads as well is part of both. By default a tower is what a few images, or prompts, pass through.
            coverage: The share of the towers' weights that quantizers can reach, in (0, 1]. It is below 1 if the
                module computes with bare parameters. A quantizer that promises all weights must reach this share.

        Returns:
            The model without a name, which it gets where it is registered.

        Raises:
            InputError: The model does not encode images and prompts to finite features.
        """
        options = WrapOptions(
            preprocess=preprocess,
            tokenizer=tokenizer,
            logit_scale=logit_scale,
            encode_image=encode_image,
            encode_text=encode_text,
            vision=vision,
            coverage=coverage,
        )
        wrapped, layout = inspect_model(module, options)
        return Clip(name="", module=wrapped, preprocess=layout.preprocess, tokenizer=layout.tokenizer, layout=layout)

    @property
    def device(self) -> torch.device:
        """The device that the module is on."""
        return self.layout.device(self.module)

    @property
    def logit_scale(self) -> float:
        """The factor from cosines to logits: the exponential of the learned parameter."""
        return float(self.layout.log_scale(self.module).detach().double().exp())

    def set_logit_scale(self, factor: float) -> None:
        """Change the model's logit scale, in place."""
        with torch.no_grad():
            self.layout.log_scale(self.module).fill_(math.log(factor))

    @property
    def logit_bias(self) -> float:
        """The constant added to every logit (SigLIP), 0 if the model has none."""
        bias = getattr(self.module, "logit_bias", None)
        return 0.0 if bias is None else float(bias)

    @torch.no_grad()
    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """Encode preprocessed images, float32 (batch, 3, height, width), to features (batch, dim), not normalised."""
        return self.layout.encode_image(self.module, images.to(self.device))

    @torch.no_grad()
    def encode_image_with_map(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Encode images to features, and return the last block's patch map of the same pass.

        Args:
            images: Preprocessed images, float32 (batch, 3, height, width).

        Returns:
            Features (batch, dim), not normalised, and the map (batch, channels, rows, columns). The map is None if the
            image tower shows none.
        """
        return self.layout.encode_image_with_map(self.module, images.to(self.device))

    @torch.no_grad()
    def encode_image_with_local(self, images: torch.Tensor) -> LocalOutputs:
        """Encode images to features, and return the last block's patch map and local features of the same pass.

        Local features are the patches in the common space, not mixed by the last attention. They cost one more block.
        Models that are not open_clip's, timm's towers and ONNX graphs show none.

        Args:
            images: Preprocessed images, float32 (batch, 3, height, width).
        """
        return self.layout.encode_image_with_local(self.module, images.to(self.device))

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Encode texts to features, (texts, dim), not normalised."""
        return self.layout.encode_text(self.module, self.tokenizer(list(texts)), self.device)

    def in_scope(self, name: str, scope: str) -> bool:
        """Return whether a module or parameter belongs to a tower in a scope.

        In a module that is not open_clip's it may belong to both towers.

        Args:
            name: The name of the module or parameter, which unpacking may have made.
            scope: `vision`, `text` or `both`.
        """
        return self.layout.in_scope(name, scope)

    def copy(self) -> Clip:
        """Return the same model with weights of its own.

        Raises:
            InputError: The module cannot be copied.
        """
        layout, module = self.layout.copy_module(self.module)
        return replace(self, module=module, layout=layout)
