"""Losses of quantization-aware training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Features:
    """Of one batch: unit rows, (batch, dim), of the model in training and of its full-precision teacher.

    Of a tower that is not in scope, the student's are the teacher's, or both None. `labels` are the images' and
    captions' classes, where they are pairs.
    """

    image: torch.Tensor | None
    text: torch.Tensor | None
    teacher_image: torch.Tensor | None
    teacher_text: torch.Tensor | None
    labels: torch.Tensor | None
    logit_scale: float

    def logits(self) -> torch.Tensor:
        """(images, captions), the student's."""
        assert self.image is not None
        assert self.text is not None
        return self.logit_scale * self.image @ self.text.T

    def teacher_logits(self) -> torch.Tensor:
        """(images, captions), the teacher's."""
        assert self.teacher_image is not None
        assert self.teacher_text is not None
        return self.logit_scale * self.teacher_image @ self.teacher_text.T


Loss = Callable[[Features], torch.Tensor]


def feature_mse(features: Features) -> torch.Tensor:
    """Squared distance of unit features from the teacher's, summed over dimensions and towers, meaned over a batch."""
    towers = ((features.image, features.teacher_image), (features.text, features.teacher_text))
    return sum(
        ((ours - theirs).square().sum(1).mean() for ours, theirs in towers if ours is not None and theirs is not None),
        start=torch.zeros(()),
    )


def contrastive(features: Features) -> torch.Tensor:
    """CLIP's symmetric cross-entropy, all captions of an image's class its targets (UniCL, Yang et al. 2022).

    A logit bias, the same for all pairs, would cancel.
    """
    assert features.labels is not None
    same = (features.labels[:, None] == features.labels).float()
    targets, logits = same / same.sum(1, keepdim=True), features.logits()
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def contrastive_and_mse(features: Features) -> torch.Tensor:
    """The sum of both."""
    return contrastive(features) + feature_mse(features)


def distillation_loss(features: Features) -> torch.Tensor:
    """KL divergence of the student's from the teacher's similarity softmax, images to captions and back, meaned."""
    ours, theirs = features.logits(), features.teacher_logits()
    return sum(
        (
            F.kl_div(o.log_softmax(1), t.log_softmax(1), reduction="batchmean", log_target=True) / 2
            for o, t in ((ours, theirs), (ours.T, theirs.T))
        ),
        start=torch.zeros(()),
    )


def unit(features: torch.Tensor) -> torch.Tensor:
    return F.normalize(features.float(), dim=-1)
