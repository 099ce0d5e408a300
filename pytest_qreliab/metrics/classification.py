"""Classification metrics: what a model says of each sample, and how often it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

CHUNK_ROWS = 4096


@dataclass(frozen=True)
class Predictions:
    """What a model says of n labelled samples under one logit scale. Everything is per sample, shape (n,), but:

    `log_probs`, float32 (n, classes), natural logarithms of the softmax probabilities.
    """

    labels: Labels
    log_probs: npt.NDArray[np.float32]
    predicted: Labels  # of equal logits the first class
    in_top5: Floats  # 1.0 where the label is among the five largest logits, else 0.0
    confidence: Floats  # the largest probability, in (0, 1]
    nll: Floats  # -log of the label's probability, in nats; never clipped
    brier: Floats  # squared distance to the one-hot label, summed over the classes, in [0, 2]

    @cached_property
    def correct(self) -> Floats:
        """1.0 where the largest logit is the label's, else 0.0."""
        hits: Floats = (self.predicted == self.labels).astype(np.float64)
        return hits

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: npt.NDArray[np.integer]) -> Predictions:
        """Those samples, in that order; a sample may be taken more than once."""
        return Predictions(*(getattr(self, name)[index] for name in FIELDS))


FIELDS = tuple(field.name for field in fields(Predictions))


def predict(logits: torch.Tensor, labels: Labels) -> Predictions:
    """The predictions from float64 logits, (n, classes), which must be finite, and labels, (n,)."""
    own = logits.gather(1, torch.from_numpy(labels)[:, None])
    sample, other = (logits == own).nonzero(as_tuple=True)
    first = other < torch.from_numpy(labels)[sample]  # of equal logits the first class counts as larger
    ahead = (logits > own).sum(dim=1) + torch.bincount(sample[first], minlength=len(logits))
    log_probs = torch.log_softmax(logits, dim=1)
    nll = -log_probs.gather(1, torch.from_numpy(labels)[:, None])[:, 0]
    squares = (2 * log_probs).exp_().sum(dim=1)
    return Predictions(
        labels,
        log_probs.float().numpy(),
        logits.numpy().argmax(axis=1),
        (ahead < 5).double().numpy(),
        log_probs.amax(dim=1).exp().numpy(),
        nll.numpy(),
        (squares + 1 - 2 * torch.exp(-nll)).clamp_(min=0).numpy(),
    )


def join(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of all parts, one after the other."""
    return Predictions(*(np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS))


def mixed(one: Predictions, other: Predictions, take_other: npt.NDArray[np.bool_]) -> Predictions:
    """The predictions of `one`, and where `take_other`, (n,), says so those of `other`, on the same samples."""
    pick = {name: (getattr(one, name), getattr(other, name)) for name in FIELDS}
    return Predictions(
        *(np.where(take_other.reshape(-1, *[1] * (a.ndim - 1)), b, a) for a, b in pick.values())  # of (n,) or (n, k)
    )


def class_weights(labels: Labels) -> Floats:
    """Weights, (n,), of mean 1, under which every class present counts the same."""
    _, member, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    weights: Floats = len(labels) / (len(sizes) * sizes[member].astype(np.float64))
    return weights


def balanced_accuracy(correct: Floats, labels: Labels) -> float:
    """Mean over the classes present of the recall: sklearn's `balanced_accuracy_score`."""
    return float((class_weights(labels) * correct).mean())


def recalls(correct: Floats, labels: Labels, classes: int) -> Floats:
    """The recall of each class, (classes,); NaN for a class without samples."""
    present = np.bincount(labels, minlength=classes).astype(np.float64)
    hits = np.bincount(labels, weights=correct, minlength=classes)
    recall: Floats = np.divide(hits, present, out=np.full(classes, np.nan), where=present > 0)
    return recall


def kl_divergence(baseline: Predictions, quantized: Predictions) -> Floats:
    """KL(baseline || quantized) of each sample's probabilities, in nats, at least 0, shape (n,).

    From float32 log probabilities, so that values below some 1e-6 are rounding.
    """
    divergence = []
    for start in range(0, len(baseline), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        p, q = (torch.from_numpy(model.log_probs[rows]).double() for model in (baseline, quantized))
        divergence.append(((p - q) * p.exp()).sum(dim=1).clamp_(min=0).numpy())
    return np.concatenate(divergence)
