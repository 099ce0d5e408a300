"""The training methods by name."""

from __future__ import annotations

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.post_training.rotation import rotate
from pytest_qreliab.quantizers.request import Request
from pytest_qreliab.quantizers.training.loop import quantize
from pytest_qreliab.quantizers.training.losses import (
    contrastive,
    contrastive_and_mse,
    distillation_loss,
    feature_mse,
)
from pytest_qreliab.quantizers.training.parametrize import (
    learn_clipping,
    learn_low_rank,
    learn_soft_steps,
    learn_steps,
)


def lsq(clip: Clip, request: Request) -> Clip:
    """LSQ towards the full-precision features: no labels needed."""
    return quantize(clip, request, "lsq", loss=feature_mse, attach=learn_steps)


def lsq_contrastive(clip: Clip, request: Request) -> Clip:
    """LSQ with CLIP's own loss alone."""
    return quantize(clip, request, "lsq+contrastive", loss=contrastive, attach=learn_steps, paired=True)


def lsq_contrastive_mse(clip: Clip, request: Request) -> Clip:
    """LSQ with CLIP's own loss and the distance from the full-precision features."""
    return quantize(clip, request, "lsq+contrastive+mse", loss=contrastive_and_mse, attach=learn_steps, paired=True)


def quarot_lsq(clip: Clip, request: Request) -> Clip:
    """LSQ towards the full-precision features, after QuaRot's rotation of inputs and weights."""
    return quantize(clip, request, "quarot+lsq", loss=feature_mse, attach=learn_steps, transforms=rotate)


def distillation(clip: Clip, request: Request) -> Clip:
    """LSQ towards the full-precision model's similarities of images and captions."""
    return quantize(clip, request, "distillation", loss=distillation_loss, attach=learn_steps, paired=True)


def dsq(clip: Clip, request: Request) -> Clip:
    """Differentiable soft quantization towards the full-precision features."""
    return quantize(clip, request, "dsq", loss=feature_mse, attach=learn_soft_steps)


def lr_qat(clip: Clip, request: Request) -> Clip:
    """Low-rank QAT towards the full-precision features."""
    return quantize(clip, request, "lr-qat", loss=feature_mse, attach=learn_low_rank)


def omniquant(clip: Clip, request: Request) -> Clip:
    """OmniQuant's clipping and transformation, learned towards the full-precision features."""
    return quantize(clip, request, "omniquant", loss=feature_mse, attach=learn_clipping)
