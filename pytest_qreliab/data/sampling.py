"""Choose some samples of many, the same ones in every run."""

from __future__ import annotations

import numpy as np

from pytest_qreliab.statistics.arrays import IntArray


def evenly_spaced(n: int, limit: int) -> IntArray:
    """Return at most `limit` of n indices, evenly spaced, int64 (k,)."""
    limit = min(limit, n)
    return np.arange(limit, dtype=np.int64) * n // limit


def stratified_sample(n: int, labels: IntArray | None, size: int, seed: int) -> IntArray:
    """Draw some of n indices at random, of every class in proportion.

    Each class gets its share of `size`, rounded down or up. Those with the larger remainders get one more first, and
    equal remainders are drawn.

    Args:
        n: The number of samples.
        labels: int64 (n,); None draws without regard to classes.
        size: How many to draw, at most n.
        seed: Of the random generator.

    Returns:
        Indices in increasing order, int64 (size,).
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    if labels is None or size == 0:
        return np.sort(order[:size])
    classes, counts = np.unique(labels, return_counts=True)
    shares = size * counts / n
    whole = np.floor(shares).astype(np.int64)
    by_remainder = np.lexsort((rng.random(len(classes)), -(shares - whole).round(9)))
    whole[by_remainder[: size - whole.sum()]] += 1
    shuffled = labels[order]
    picked = [order[shuffled == label][:count] for label, count in zip(classes, whole, strict=True)]
    return np.sort(np.concatenate(picked))


def one_of_each_stretch(n: int, count: int, rng: np.random.Generator) -> IntArray:
    """Draw one index from each of equal stretches of n, at random.

    They are as evenly spread as a fixed step would make them. But what repeats with a period, like the channels and
    tokens of a flattened tensor, is not always met at the same place of it.

    Args:
        n: The number of indices.
        count: How many to draw; all n if there are fewer.
        rng: The random generator, which goes on from draw to draw.

    Returns:
        Indices in increasing order, int64 (min(count, n),).
    """
    count = min(count, n)
    ends = np.arange(count + 1, dtype=np.int64) * n // max(count, 1)
    drawn: IntArray = ends[:-1] + (rng.random(count) * np.diff(ends)).astype(np.int64)
    return drawn
