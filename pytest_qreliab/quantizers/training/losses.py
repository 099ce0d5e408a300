"""The losses of quantization-aware training, and the features that they compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class TowerFeatures:
    """The features of one tower for a batch, as unit rows."""

    student: torch.Tensor  # (batch, dim), of the model in training; the teacher's if the tower is not in scope
    teacher: torch.Tensor  # (batch, dim), of the full-precision model


@dataclass(frozen=True, kw_only=True)
class Features:
    """The features of both towers for a batch."""

    image: TowerFeatures | None  # None: there are no images to train on
    text: TowerFeatures | None  # None: there are no captions to train on
    labels: torch.Tensor | None  # (batch,), equal for pairs that match each other; None: they are no pairs
    logit_scale: float

    def logits(self) -> torch.Tensor:
        """Return the student's similarities, (images, captions). Raises ValueError without images or captions."""
        image, text = self._both()
        return self.logit_scale * image.student @ text.student.T

    def teacher_logits(self) -> torch.Tensor:
        """Return the teacher's similarities, (images, captions). Raises ValueError without images or captions."""
        image, text = self._both()
        return self.logit_scale * image.teacher @ text.teacher.T

    def _both(self) -> tuple[TowerFeatures, TowerFeatures]:
        if self.image is None or self.text is None:
            raise ValueError("similarities need images and captions")
        return self.image, self.text


Loss = Callable[[Features], torch.Tensor]


def feature_mse(features: Features) -> torch.Tensor:
    """Return the squared distance of features from the teacher's.

    It is summed over dimensions and towers, and averaged over the batch.
    """
    return sum(
        (
            (tower.student - tower.teacher).square().sum(1).mean()
            for tower in (features.image, features.text)
            if tower is not None
        ),
        start=torch.zeros(()),
    )


def contrastive(features: Features) -> torch.Tensor:
    """Return CLIP's symmetric cross-entropy.

    All captions of an image's class are its targets, or its own caption and those that are equal to it. The targets are
    those of UniCL (Yang et al. 2022). A logit bias, which is the same for all pairs, would cancel.

    Raises:
        ValueError: The features are not those of pairs.
    """
    if features.labels is None:
        raise ValueError("the contrastive loss needs pairs")
    same = (features.labels[:, None] == features.labels).float()
    targets, logits = same / same.sum(1, keepdim=True), features.logits()
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def contrastive_and_mse(features: Features) -> torch.Tensor:
    """Return the sum of `contrastive` and `feature_mse`."""
    return contrastive(features) + feature_mse(features)


def distillation_loss(features: Features) -> torch.Tensor:
    """Return the KL divergence of the student's similarity softmax from the teacher's.

    It is the mean of that from images to captions and that from captions to images. These need not be pairs.
    """
    ours, theirs = features.logits(), features.teacher_logits()
    return sum(
        (
            F.kl_div(o.log_softmax(1), t.log_softmax(1), reduction="batchmean", log_target=True) / 2
            for o, t in ((ours, theirs), (ours.T, theirs.T))
        ),
        start=torch.zeros(()),
    )


def unit(features: torch.Tensor) -> torch.Tensor:
    """Return features (n, dim) as unit rows in float32."""
    return F.normalize(features.float(), dim=-1)
