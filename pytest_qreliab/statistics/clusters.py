"""Samples that are not independent: the same image in many corruptions, or many images of one scene.

Whole clusters are what is drawn from the world, so clusters, not samples, are resampled and counted.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pytest_qreliab.statistics.arrays import Floats, finite
from pytest_qreliab.statistics.influence import Estimate
from pytest_qreliab.statistics.influence import mean as mean_of_samples
from pytest_qreliab.statistics.interval import Interval


def grid_mean(values: npt.ArrayLike, group: str) -> Estimate:
    """The mean over (kinds, severities, n) values of the same n >= 2 images in every cell: a mean of image means.

    Every cell counts alike. Raises ValueError for another shape, NaN or infinity.
    """
    return mean_of_samples(finite(values, group, 1, 1, 2).mean(axis=(0, 1)), group)


def mean(values: npt.ArrayLike, clusters: npt.ArrayLike, group: str) -> Estimate:
    """The mean of `values`, (n,), over samples whose clusters, (n,), at least 2, may differ in size.

    Samples count alike, hence a large cluster more than a small one; `clusters` are ids of any sortable kind. The
    influences are those of whole clusters, in the order of their ids. The variance is the cluster-robust one with
    the correction G / (G - 1) (Liang & Zeger 1986, CR1), and the interval has G - 1 degrees of freedom.
    Raises ValueError for another shape, NaN, infinity or a single cluster.
    """
    x = finite(values, group, 2)
    ids = np.asarray(clusters)
    if ids.shape != x.shape:
        raise ValueError(f"{group}: {x.shape} values, but clusters of shape {ids.shape}")
    member = np.unique(ids, return_inverse=True)[1]
    value = float(x.mean())
    surplus: Floats = np.bincount(member, weights=x - value).astype(np.float64)
    if len(surplus) < 2:
        raise ValueError(f"{group}: at least 2 clusters are needed")
    influence: Floats = surplus * (len(surplus) / len(x))
    return Estimate(value, {group: influence})


def interval(differences: npt.ArrayLike, clusters: npt.ArrayLike, alpha: float) -> Interval:
    """Interval on the mean of paired differences, (n,), of samples in clusters, (n,): see `mean`."""
    return mean(differences, clusters, "differences").interval(alpha)


def sample_counts(cluster_counts: npt.NDArray[np.int64], clusters: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """From how often each cluster is drawn, (replicates, clusters), how often each sample is, (replicates, n).

    Column k of `cluster_counts` is the k-th smallest id in `clusters`, (n,). For values of shape (kinds, severities,
    n), flattened, the clusters are `numpy.tile(numpy.arange(n), kinds * severities)`; a mean over cells of a metric
    per cell needs no such copy: give each cell the cluster counts themselves. Raises ValueError where the numbers
    of clusters differ.
    """
    ids, member = np.unique(np.asarray(clusters).ravel(), return_inverse=True)
    if cluster_counts.ndim != 2 or cluster_counts.shape[1] != len(ids):
        raise ValueError(f"counts of shape {cluster_counts.shape} for {len(ids)} clusters")
    return cluster_counts[:, member]
