"""What the tests of quantizers share: small models of every architecture, calibration data, and requests."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from pytest_qreliab.config.formats import integer
from pytest_qreliab.data.images import from_arrays
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.tiny_digits import ByteTokenizer
from pytest_qreliab.quantizers.calibration import Calibration
from pytest_qreliab.quantizers.engine import grid
from pytest_qreliab.quantizers.engine.grid import Scheme
from pytest_qreliab.quantizers.request import Request

PROMPTS = ["a handwritten two.", "the digit seven", "9"]


@pytest.fixture(scope="session")
def calibration() -> Calibration:
    """Sixteen noise images of three classes, a quarter held out, and six prompts."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    images = from_arrays("noise", pixels, np.arange(16) % 3)
    return Calibration.split(images, ("two", "seven", "nine"), ("a handwritten {}.", "{}"))


@pytest.fixture(scope="session")
def ask(calibration):
    """Makes requests: bits, scope, and parameters of a quantizer, all else at its default."""

    def make(bits, scope="both", quantizer="minmax", data=calibration, **parameters) -> Request:
        recipe = Catalog().recipe(quantizer)
        chosen = recipe.quantizer.parameters.model_validate(parameters) if parameters else recipe.parameters
        request = Request(bits=bits, scope=scope, parameters=chosen, calibration=data)
        if recipe.matched is not None:
            request = replace(request, matched=partial(recipe.matched.quantize, request=request))
        return request

    return make


@pytest.fixture(scope="session")
def quantize(ask):
    """Quantizes a model as an evaluator would."""

    def apply(clip, quantizer, bits, scope="both", **parameters) -> Clip:
        return Catalog().recipe(quantizer).apply()(clip, ask(bits, scope, quantizer, **parameters))

    return apply


@pytest.fixture(scope="session")
def exported_once():
    """The exporter takes seconds and gives the same for the same tower: of each model, keep what it gave."""
    from pytest_qreliab.quantizers.libraries import onnxruntime

    exported, export = {}, onnxruntime.export

    def cached(clip: Clip, name: str) -> bytes:
        part = onnxruntime._part(clip, name)
        key = clip.name, name, tuple(float(parameter.double().sum()) for parameter in part.parameters())
        if key not in exported:
            exported[key] = export(clip, name)
        return exported[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "export", cached)
        yield


@pytest.fixture(scope="session")
def noise():
    """Random preprocessed images of a model's own size."""

    def make(clip: Clip, count: int = 4) -> torch.Tensor:
        size = clip.module.visual.image_size
        side = size[0] if isinstance(size, tuple) else size
        return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))

    return make


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    return PROMPTS


@pytest.fixture(scope="session")
def error(noise):
    """Largest distance of unit features, of images and of texts, between a model and its quantized copy."""

    def measure(clip: Clip, other: Clip, images: torch.Tensor | None = None) -> tuple[float, float]:
        images = noise(clip) if images is None else images
        return tuple(
            float((F.normalize(a, dim=-1) - F.normalize(b, dim=-1)).norm(dim=-1).max())
            for a, b in (
                (clip.encode_image(images), other.encode_image(images)),
                (clip.encode_text(PROMPTS), other.encode_text(PROMPTS)),
            )
        )

    return measure


@pytest.fixture(scope="session")
def rounded_rows():
    """Rounds each output channel of a weight."""

    def round_rows(weight, bits):
        rows = grid.to_rows(weight, "channel")
        return grid.from_rows(Scheme(number=integer(bits)).fit_values(rows, grid.minmax).round(rows), weight, "channel")

    return round_rows


def small(vision: dict, text: dict | None = None, kind=open_clip.CLIP, embed_dim=16, **more) -> Clip:
    torch.manual_seed(0)
    text = {"context_length": 24, "vocab_size": 258, "width": 32, "heads": 2, "layers": 1} | (text or {})
    module = kind(embed_dim=embed_dim, vision_cfg=vision, text_cfg=text, **more).eval().requires_grad_(False)
    transform = open_clip.image_transform(module.visual.image_size, is_train=False)
    return Clip("small", module, transform, ByteTokenizer(24))


VIT = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
ARCHITECTURES = {
    "vit": lambda: small(VIT),
    "vit-average-pool": lambda: small(VIT | {"pool_type": "avg", "no_ln_pre": True}),
    "vit-attention-pool": lambda: small(
        VIT | {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2}
    ),
    "resnet": lambda: small({"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}),
    "custom-text": lambda: small(VIT, {"proj_bias": True}, open_clip.CustomTextCLIP),
    "siglip-like": lambda: small(
        VIT, {"no_causal_mask": True, "pool_type": "last"}, open_clip.CustomTextCLIP, init_logit_bias=-10.0
    ),
    "coca": lambda: small(
        VIT | {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2, "output_tokens": True},
        {"embed_cls": True, "output_tokens": True},
        open_clip.CoCa,
        multimodal_cfg={"context_length": 24, "vocab_size": 258, "width": 32, "heads": 2, "layers": 1},
    ),
    "convnext": lambda: small(
        {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear", "image_size": 64}
    ),
    "convnext-atto": lambda: small(
        {"timm_model_name": "convnext_atto", "timm_pool": "", "timm_proj": "linear", "image_size": 32}
    ),
    "timm-vit": lambda: small(
        {"timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none", "image_size": 160}, embed_dim=64
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def architecture_of():
    """Small random models by name, each made once; tests must not change them."""
    return cache(lambda name: replace(ARCHITECTURES[name](), name=name))


@pytest.fixture(scope="session", params=[name for name in ARCHITECTURES if name != "convnext-atto"])
def architecture(request, architecture_of) -> Clip:
    """Each of them but the largest, or those that `indirect` names."""
    return architecture_of(request.param)
