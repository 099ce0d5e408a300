"""Classification metrics: what a model says of each sample, and how often it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from pytest_qreliab.statistics.arrays import FloatArray

Labels = npt.NDArray[np.int64]

CHUNK_ROWS = 512


@dataclass(frozen=True)
class Predictions:
    """What a model says of n labelled samples under one logit scale. Everything is per sample, shape (n,), but:

    `logits`, float32 (n, classes), up to a constant per sample and times `factor`. Predictions under several logit
    scales share them, as they are what takes memory.
    """

    labels: Labels
    logits: npt.NDArray[np.float32]
    factor: float
    predicted: Labels  # of equal logits the first class
    in_top5: FloatArray  # 1.0 where the label is among the five largest logits, else 0.0
    confidence: FloatArray  # the largest probability, in (0, 1]
    nll: FloatArray  # -log of the label's probability, in nats; never clipped
    brier: FloatArray  # squared distance to the one-hot label, summed over the classes, in [0, 2]

    @cached_property
    def correct(self) -> FloatArray:
        """1.0 where the largest logit is the label's, else 0.0."""
        hits: FloatArray = (self.predicted == self.labels).astype(np.float64)
        return hits

    @cached_property
    def memo(self) -> dict[Any, Any]:
        """What has been made of these predictions and may be wanted again."""
        return {}

    def __len__(self) -> int:
        return len(self.labels)

    def log_probs(self, rows: slice = slice(None)) -> torch.Tensor:
        """Natural logarithms of the softmax probabilities of those samples, float64 (rows, classes)."""
        return torch.log_softmax(torch.from_numpy(self.logits[rows]).double().mul_(self.factor), dim=1)

    def probabilities(self, rows: slice | npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Softmax probabilities of those samples in float32, (rows, classes)."""
        return torch.softmax(self.factor * torch.from_numpy(self.logits[rows]), dim=1).numpy()

    def take(self, index: npt.NDArray[np.integer]) -> Predictions:
        """Those samples, in that order; a sample may be taken more than once."""
        taken: dict[str, Any] = {name: getattr(self, name)[index] for name in PER_SAMPLE}
        return replace(self, **taken)


PER_SAMPLE = tuple(field.name for field in fields(Predictions) if field.name != "factor")


def predict(logits: torch.Tensor, labels: Labels) -> Predictions:
    """The predictions from float64 logits, (n, classes), which must be finite, and labels, (n,)."""
    own = logits.gather(1, torch.from_numpy(labels)[:, None])
    sample, other = (logits == own).nonzero(as_tuple=True)
    first = other < torch.from_numpy(labels)[sample]  # of equal logits the first class counts as larger
    ahead = (logits > own).sum(dim=1) + torch.bincount(sample[first], minlength=len(logits))
    log_probs = torch.log_softmax(logits, dim=1)
    predicted = logits.numpy().argmax(axis=1)
    kept = log_probs.float().numpy()
    return Predictions(labels, kept, 1.0, predicted, (ahead < 5).double().numpy(), *_of_labels(log_probs, labels))


def _of_labels(log_probs: torch.Tensor, labels: Labels) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Confidence, negative log-likelihood and Brier score of each sample."""
    confidence = log_probs.amax(dim=1).exp()
    nll = -log_probs.gather(1, torch.from_numpy(labels)[:, None])[:, 0]
    squares = (2 * log_probs).exp_().sum(dim=1)
    return confidence.numpy(), nll.numpy(), (squares + 1 - 2 * torch.exp(-nll)).clamp_(min=0).numpy()


def join(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of all parts, one after the other."""
    joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in PER_SAMPLE}
    return replace(parts[0], **joined)


def rescale(predictions: Predictions, factor: float) -> Predictions:
    """The predictions with all logits times a positive factor; from the float32 logits, which are shared."""
    scaled = replace(predictions, factor=predictions.factor * factor)
    parts = []
    for start in range(0, len(predictions), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        parts.append(_of_labels(scaled.log_probs(rows), predictions.labels[rows]))
    confidence, nll, brier = (np.concatenate(part) for part in zip(*parts, strict=True))
    return replace(scaled, confidence=confidence, nll=nll, brier=brier)


def mixed(one: Predictions, other: Predictions, take_other: npt.NDArray[np.bool_]) -> Predictions:
    """The predictions of `one`, and where `take_other`, (n,), says so those of `other`, on the same samples."""

    picked: dict[str, Any] = {}
    for name in PER_SAMPLE:
        a, b = getattr(one, name), getattr(other, name)
        if name == "logits":
            b = b * np.float32(other.factor / one.factor)
        picked[name] = np.where(take_other.reshape(-1, *[1] * (a.ndim - 1)), b, a)
    return replace(one, **picked)


def class_weights(labels: Labels) -> FloatArray:
    """Weights, (n,), of mean 1, under which every class present counts the same."""
    _, member, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    weights: FloatArray = len(labels) / (len(sizes) * sizes[member].astype(np.float64))
    return weights


def balanced_accuracy(correct: FloatArray, labels: Labels) -> float:
    """Mean over the classes present of the recall: sklearn's `balanced_accuracy_score`."""
    return float((class_weights(labels) * correct).mean())


def recalls(correct: FloatArray, labels: Labels, classes: int) -> FloatArray:
    """The recall of each class, (classes,); NaN for a class without samples."""
    present = np.bincount(labels, minlength=classes).astype(np.float64)
    hits = np.bincount(labels, weights=correct, minlength=classes)
    recall: FloatArray = np.divide(hits, present, out=np.full(classes, np.nan), where=present > 0)
    return recall


def kl_divergence(baseline: Predictions, quantized: Predictions) -> FloatArray:
    """KL(baseline || quantized) of each sample's probabilities, in nats, at least 0, shape (n,).

    From float32 log probabilities, so that values below some 1e-6 are rounding.
    """
    divergence = []
    for start in range(0, len(baseline), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        p, q = (model.log_probs(rows) for model in (baseline, quantized))
        divergence.append(F.kl_div(q, p, reduction="none", log_target=True).sum(dim=1).clamp_(min=0).numpy())
    return np.concatenate(divergence)
