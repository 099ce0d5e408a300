"""Classification: the predictions of a model, and how often they are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from pytest_qreliab.statistics.arrays import FloatArray, IntArray

CHUNK_ROWS = 512


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The predictions for n labelled samples, under one logit scale.

    Fields have an entry for each sample, except for `factor`.
    """

    labels: IntArray
    # (n, classes), up to a constant per sample and times `factor`. They take most memory, so predictions under several
    # logit scales share them.
    logits: npt.NDArray[np.float32]
    factor: float
    predicted: IntArray  # the class of the largest logit; the first of equal ones
    in_top5: FloatArray  # 1.0 if the label is among the five largest logits, else 0.0
    confidence: FloatArray  # the largest probability, in (0, 1]
    nll: FloatArray  # -log of the label's probability, in nats; never clipped
    brier: FloatArray  # squared distance to the one-hot label, summed over the classes, in [0, 2]

    @cached_property
    def correct(self) -> FloatArray:
        """1.0 if the largest logit is the label's, else 0.0."""
        hits: FloatArray = (self.predicted == self.labels).astype(np.float64)
        return hits

    @cached_property
    def memo(self) -> dict[Any, Any]:
        """Results computed from these predictions that may be needed again."""
        return {}

    def __len__(self) -> int:
        return len(self.labels)

    def log_probs(self, rows: slice = slice(None)) -> torch.Tensor:
        """Return natural logarithms of the probabilities of some samples, float64 (rows, classes)."""
        return torch.log_softmax(torch.from_numpy(self.logits[rows]).double().mul_(self.factor), dim=1)

    def probabilities(self, rows: slice | npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Return the probabilities of some samples, float32 (rows, classes)."""
        return torch.softmax(self.factor * torch.from_numpy(self.logits[rows]), dim=1).numpy()

    def take(self, index: npt.NDArray[np.integer]) -> Predictions:
        """Return the predictions for some samples in order, with repeats if wanted."""
        taken: dict[str, Any] = {name: getattr(self, name)[index] for name in PER_SAMPLE}
        return replace(self, **taken)


PER_SAMPLE = tuple(field.name for field in fields(Predictions) if field.name != "factor")


def predict(logits: torch.Tensor, labels: IntArray, probabilities: torch.Tensor | None = None) -> Predictions:
    """Compute the predictions from logits.

    Args:
        logits: Finite logits, float64, shape (n, classes).
        labels: Labels, int64, shape (n,).
        probabilities: Probabilities that were recorded, float64 in [0, 1], shape (n, classes), with their finite
            logarithms as the logits. Confidence, nll and brier are then those of the rows as they are, whatever
            their sums.

    Returns:
        The predictions. They keep log probabilities in float32; everything else comes from float64.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> logits = torch.log(torch.tensor([[0.75, 0.25], [0.5, 0.5]], dtype=torch.float64))
        >>> predictions = predict(logits, np.array([0, 1]))
        >>> predictions.predicted.tolist(), predictions.confidence.round(6).tolist()
        ([0, 0], [0.75, 0.5])
        >>> predictions.correct.tolist(), predictions.brier.round(6).tolist()
        ([1.0, 0.0], [0.125, 0.5])
    """
    own = logits.gather(1, torch.from_numpy(labels)[:, None])
    sample, other = (logits == own).nonzero(as_tuple=True)
    first = other < torch.from_numpy(labels)[sample]  # of equal logits the first class counts as larger
    ahead = (logits > own).sum(dim=1) + torch.bincount(sample[first], minlength=len(logits))
    log_probs = torch.log_softmax(logits, dim=1)
    scores = _label_scores(log_probs if probabilities is None else logits, labels, probabilities)
    return Predictions(
        labels=labels,
        logits=log_probs.float().numpy(),
        factor=1.0,
        predicted=logits.numpy().argmax(axis=1),
        in_top5=(ahead < 5).double().numpy(),
        confidence=scores.confidence,
        nll=scores.nll,
        brier=scores.brier,
    )


class _LabelScores(NamedTuple):
    confidence: FloatArray
    nll: FloatArray
    brier: FloatArray


def _label_scores(log_probs: torch.Tensor, labels: IntArray, probabilities: torch.Tensor | None = None) -> _LabelScores:
    own = torch.from_numpy(labels)[:, None]
    nll = -log_probs.gather(1, own)[:, 0]
    if probabilities is None:
        confidence, of_label, squares = log_probs.amax(dim=1).exp(), torch.exp(-nll), (2 * log_probs).exp_()
    else:  # of which the logarithms do not tell a 0
        confidence, of_label, squares = probabilities.amax(dim=1), probabilities.gather(1, own)[:, 0], probabilities**2
    brier = (squares.sum(dim=1) + 1 - 2 * of_label).clamp_(min=0)
    return _LabelScores(confidence.numpy(), nll.numpy(), brier.numpy())


def join(parts: Sequence[Predictions]) -> Predictions:
    """Join predictions for different samples.

    Args:
        parts: Predictions under the same logit scale.

    Returns:
        The predictions for the samples of all parts, one part after the other.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> part = predict(torch.eye(2, dtype=torch.float64), np.array([0, 1]))
        >>> len(join([part, part]))
        4
    """
    joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in PER_SAMPLE}
    return replace(parts[0], **joined)


def rescale(predictions: Predictions, factor: float) -> Predictions:
    """Multiply all logits by a factor.

    Args:
        predictions: The predictions, whose float32 logits the result shares.
        factor: The factor, above 0.

    Returns:
        The predictions under the new logit scale.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> predictions = predict(torch.log(torch.tensor([[0.75, 0.25]], dtype=torch.float64)), np.array([0]))
        >>> rescale(predictions, 2.0).confidence.round(6).tolist()
        [0.9]
    """
    scaled = replace(predictions, factor=predictions.factor * factor)
    parts = []
    for start in range(0, len(predictions), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        parts.append(_label_scores(scaled.log_probs(rows), predictions.labels[rows]))
    confidence, nll, brier = (np.concatenate(part) for part in zip(*parts, strict=True))
    return replace(scaled, confidence=confidence, nll=nll, brier=brier)


def mix(first: Predictions, second: Predictions, take_second: npt.NDArray[np.bool_]) -> Predictions:
    """Mix the predictions of two models for the same samples.

    Args:
        first: Predictions of the first model, shape (n,).
        second: Predictions of the second model, shape (n,).
        take_second: True for the samples that are taken from the second model, shape (n,).

    Returns:
        The predictions, under the logit scale of the first model.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> logits, labels = torch.eye(2, dtype=torch.float64), np.array([0, 1])
        >>> mix(predict(logits, labels), predict(-logits, labels), np.array([False, True])).predicted.tolist()
        [0, 0]
    """
    picked: dict[str, Any] = {}
    for name in PER_SAMPLE:
        a, b = getattr(first, name), getattr(second, name)
        if name == "logits":
            b = b * np.float32(second.factor / first.factor)
        picked[name] = np.where(take_second.reshape(-1, *[1] * (a.ndim - 1)), b, a)
    return replace(first, **picked)


def class_weights(labels: IntArray) -> FloatArray:
    """Compute weights under which every class counts the same.

    Args:
        labels: Labels, int64, shape (n,).

    Returns:
        Weights of mean 1, shape (n,).

    Example:
        >>> import numpy as np
        >>> class_weights(np.array([0, 0, 0, 1])).round(3).tolist()
        [0.667, 0.667, 0.667, 2.0]
    """
    _, member, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    weights: FloatArray = len(labels) / (len(sizes) * sizes[member].astype(np.float64))
    return weights


def balanced_accuracy(correct: FloatArray, labels: IntArray) -> float:
    """Compute the mean recall over the classes that are present.

    It is `balanced_accuracy_score` of scikit-learn.

    Args:
        correct: 1.0 if the prediction is right, else 0.0, shape (n,).
        labels: Labels, int64, shape (n,).

    Returns:
        The balanced accuracy, in [0, 1].

    Example:
        >>> import numpy as np
        >>> balanced_accuracy(np.array([1.0, 1.0, 1.0, 0.0]), np.array([0, 0, 1, 1]))
        0.75
    """
    return float((class_weights(labels) * correct).mean())


def recalls(correct: FloatArray, labels: IntArray, classes: int) -> FloatArray:
    """Compute the recall of each class.

    Args:
        correct: 1.0 if the prediction is right, else 0.0, shape (n,).
        labels: Labels, int64, shape (n,).
        classes: The number of classes.

    Returns:
        Recalls in [0, 1], shape (classes,). A class without samples has NaN.

    Example:
        >>> import numpy as np
        >>> recalls(np.array([1.0, 1.0, 1.0, 0.0]), np.array([0, 0, 1, 1]), 3).tolist()
        [1.0, 0.5, nan]
    """
    present = np.bincount(labels, minlength=classes).astype(np.float64)
    hits = np.bincount(labels, weights=correct, minlength=classes)
    recall: FloatArray = np.divide(hits, present, out=np.full(classes, np.nan), where=present > 0)
    return recall


def kl_divergence(baseline: Predictions, quantized: Predictions) -> FloatArray:
    """Compute KL(baseline || quantized) of the probabilities of each sample.

    Log probabilities are float32, so values below some 1e-6 are rounding.

    Args:
        baseline: Predictions of the baseline.
        quantized: Predictions of the quantized model for the same samples.

    Returns:
        Divergences in nats, at least 0, shape (n,).

    Example:
        >>> import numpy as np
        >>> import torch
        >>> logits, labels = torch.log(torch.tensor([[0.75, 0.25]], dtype=torch.float64)), np.array([0])
        >>> kl_divergence(predict(logits, labels), predict(0 * logits, labels)).round(3).tolist()
        [0.131]
    """
    divergence = []
    for start in range(0, len(baseline), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        p, q = (model.log_probs(rows) for model in (baseline, quantized))
        divergence.append(F.kl_div(q, p, reduction="none", log_target=True).sum(dim=1).clamp_(min=0).numpy())
    return np.concatenate(divergence)
