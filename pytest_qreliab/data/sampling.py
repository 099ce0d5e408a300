"""Choose some samples of many, the same ones in every run."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def evenly_spaced(n: int, limit: int) -> npt.NDArray[np.int64]:
    """At most `limit` of n indices, evenly spaced."""
    limit = min(limit, n)
    return np.arange(limit, dtype=np.int64) * n // limit


def stratified_sample(n: int, labels: npt.NDArray[np.int64] | None, size: int, seed: int) -> npt.NDArray[np.int64]:
    """`size` of n indices, in increasing order: of each class its share, rounded down or up, if there are labels.

    Which classes get one more is drawn as well, those with the larger remainders first.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    if labels is None:
        return np.sort(order[:size])
    classes, counts = np.unique(labels, return_counts=True)
    shares = size * counts / n
    whole = np.floor(shares).astype(np.int64)
    by_remainder = np.lexsort((rng.random(len(classes)), -(shares - whole).round(9)))
    whole[by_remainder[: size - whole.sum()]] += 1
    shuffled = labels[order]
    picked = [order[shuffled == label][:count] for label, count in zip(classes, whole, strict=True)]
    return np.sort(np.concatenate(picked))
