"""What a CLIP is here: the module with its image transform, its tokenizer and its logit scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from torch import nn

from pytest_qreliab.models import wrapped
from pytest_qreliab.models.layout import OPEN_CLIP, Layout


@dataclass(frozen=True)
class Clip:
    """A CLIP ready to encode, full precision or quantized, on one device, in eval mode, in float32.

    `preprocess` maps a PIL image to a float32 tensor (3, height, width); `tokenizer` maps texts to what the
    module's text tower reads, in open_clip an int64 tensor (texts, context). `layout` says where the module
    has its parts; `Clip.wrap` finds it out for a module that is not open_clip's.
    """

    name: str
    module: nn.Module
    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenizer: Callable[[list[str]], Any]
    layout: Layout = field(default=OPEN_CLIP, kw_only=True)

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
        """A model of your own as a Clip, yet without a name: any object with `encode_image` and `encode_text`.

        Args:
            module: the model, best an `nn.Module` in float32, which is taken over and put into eval mode. Anything
                else can be measured, but not quantized.
            preprocess: maps a PIL image to a float32 tensor (3, height, width); by default `module.preprocess`.
            tokenizer: maps a list of texts to anything that `encode_text` takes; by default `module.tokenizer`.
            logit_scale: the factor from cosines to logits; by default exp of the tensor `module.logit_scale`.
            encode_image: a function (module, images) in place of the method, where that has another name. It gives
                features (batch, dim), or those and the last patch map (batch, channels, rows, columns), which the
                high-band energy is measured on.
            encode_text: a function (module, tokens) in place of the method: features (texts, dim).
            vision: names of the modules and parameters of the image tower; all else is text. By default each tower is
                what one image, or one prompt, is seen to pass through.
            coverage: the share of the towers' weights that quantizers can reach, 1 unless the module computes
                with bare parameters. A quantizer that promises all must then reach this share.

        Raises InputError for a model that does not encode one image and one prompt to finite features.
        """
        module, layout = wrapped.inspect(
            module, preprocess, tokenizer, logit_scale, encode_image, encode_text, vision, coverage
        )
        return Clip("", module, layout.preprocess, layout.tokenizer, layout=layout)

    @property
    def device(self) -> torch.device:
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
        """The constant added to every logit (SigLIP), 0 where the model has none."""
        bias = getattr(self.module, "logit_bias", None)
        return 0.0 if bias is None else float(bias)

    @torch.no_grad()
    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """Image features, (batch, dim), not normalised."""
        return self.layout.encode_image(self.module, images.to(self.device))

    @torch.no_grad()
    def encode_image_with_map(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Image features (batch, dim) and the last block's patch map (batch, channels, rows, columns).

        The map comes from the same forward pass; it is None where the image tower shows none.
        """
        return self.layout.encode_image_with_map(self.module, images.to(self.device))

    @torch.no_grad()
    def encode_image_with_local(
        self, images: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """As `encode_image_with_map`, and the local features, (batch, patches, dim), not normalised.

        These are the patches in the common space, not mixed by the last attention. They cost one more block, and
        are None where the image tower shows none: in models that are not open_clip's, in timm's towers, in ONNX.
        """
        return self.layout.encode_image_with_local(self.module, images.to(self.device))

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Text features, (texts, dim), not normalised."""
        return self.layout.encode_text(self.module, self.tokenizer(list(texts)), self.device)

    def in_scope(self, name: str, scope: str) -> bool:
        """Whether the module or parameter of that name belongs to a tower in `scope`; to both, it may, of a
        module that is not open_clip's. Names that unpacking made count as well."""
        return self.layout.in_scope(name, scope)

    def copy(self) -> Clip:
        """The same model with weights of its own. Raises InputError for one that cannot be copied."""
        layout, module = self.layout.copied(self.module)
        return replace(self, module=module, layout=layout)
