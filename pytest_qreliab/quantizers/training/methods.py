"""The training methods by name: a loss, and what is learned."""

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
    learn_low_rank,
    learn_soft_steps,
    learn_steps,
)


def lsq(clip: Clip, request: Request) -> Clip:
    """Return a copy trained by LSQ towards the full-precision features.

    Labels are not needed.
    """
    return quantize(clip, request, "lsq", loss=feature_mse, parametrize=learn_steps)


def lsq_contrastive(clip: Clip, request: Request) -> Clip:
    """Return a copy trained by LSQ with CLIP's own loss alone."""
    return quantize(clip, request, "lsq+contrastive", loss=contrastive, parametrize=learn_steps, compared="pairs")


def lsq_contrastive_mse(clip: Clip, request: Request) -> Clip:
    """Return a copy trained by LSQ with two losses.

    They are CLIP's own and the distance from the full-precision features.
    """
    return quantize(
        clip, request, "lsq+contrastive+mse", loss=contrastive_and_mse, parametrize=learn_steps, compared="pairs"
    )


def quarot_lsq(clip: Clip, request: Request) -> Clip:
    """Return a copy trained by LSQ after QuaRot's rotation.

    It is trained towards the full-precision features.
    """
    return quantize(clip, request, "quarot+lsq", loss=feature_mse, parametrize=learn_steps, transforms=rotate)


def distillation(clip: Clip, request: Request) -> Clip:
    """Return a copy trained by LSQ towards the full-precision similarities.

    They are those of images and captions, which need not be pairs.
    """
    return quantize(
        clip, request, "distillation", loss=distillation_loss, parametrize=learn_steps, compared="similarities"
    )


def dsq(clip: Clip, request: Request) -> Clip:
    """Return a copy trained by differentiable soft quantization towards the full-precision features."""
    return quantize(clip, request, "dsq", loss=feature_mse, parametrize=learn_soft_steps)


def lr_qat(clip: Clip, request: Request) -> Clip:
    """Return a copy trained by low-rank QAT towards the full-precision features."""
    return quantize(clip, request, "lr-qat", loss=feature_mse, parametrize=learn_low_rank)
