"""Classification metrics on logits of shape (n, classes) and int64 labels of shape (n,)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def correct(logits: Floats, labels: Labels) -> Floats:
    """1.0 where the largest logit is the label's, else 0.0; of equal logits the first class wins. Shape (n,)."""
    hits: Floats = (logits.argmax(axis=1) == labels).astype(np.float64)
    return hits


def negative_log_likelihood(logits: Floats, labels: Labels) -> Floats:
    """-log softmax(logits)[label] per sample, in nats, shape (n,). Never clipped."""
    picked: Floats = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    return picked


def confidence(logits: Floats) -> Floats:
    """Largest softmax probability per sample, in (0, 1], shape (n,)."""
    largest: Floats = np.exp(log_softmax(logits, axis=1).max(axis=1))
    return largest


def balanced_accuracy(correct: Floats, labels: Labels, counts: npt.NDArray[np.integer] | None = None) -> Floats:
    """Mean over the classes present of the recall: sklearn's `balanced_accuracy_score`.

    `counts`, (replicates, n), says how often each sample occurs in each replicate; the result has shape
    (replicates,), or () without them. Classes that a replicate lacks do not count in it.
    """
    order = np.argsort(labels, kind="stable")
    first = np.unique(labels[order], return_index=True)[1]
    weights = np.ones((1, len(labels))) if counts is None else counts[:, order].astype(np.float64)
    present = np.add.reduceat(weights, first, axis=1)
    hits = np.add.reduceat(weights * correct[order], first, axis=1)
    recall = np.divide(hits, present, out=np.zeros_like(hits), where=present > 0)
    result: Floats = recall.sum(axis=1) / (present > 0).sum(axis=1)
    return result if counts is not None else result[0]
