"""Time every metric, OOD score and interval, from embeddings, compared with a loop over other libraries.

    python benchmarks/performance/metrics_speed.py  # 50,000 samples, 1,000 classes, two OOD sets of 10,000
    python benchmarks/performance/metrics_speed.py --samples 5000 --no-others

Ours is two measurements (full precision and quantized) and the bounds on every change. The others are torchmetrics for
accuracy and calibration, and scikit-learn for OOD, with `scipy.stats.bootstrap` (percentile, paired) around them, for
the same metrics as far as they have them. Their bootstrap runs with few replicates, and its time is scaled up to 2000,
which is the number of subsets that our half-sampling takes. Metrics that they lack are not counted. Ratios are within
one run.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from pytest_qreliab.embedding.records import CalibrationEmbeddings, FeatureEmbeddings, FeatureOutputs
from pytest_qreliab.evaluation.measurement.comparison import compare
from pytest_qreliab.evaluation.measurement.measure import measure
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.metrics import registry

DIM, CLASSES, NEGATIVES, CALIBRATION = 512, 1000, 200, 1000
SCALE = 60.0
REPLICATES = 2000
FEW = 4
T = TypeVar("T")


def embeddings(n: int, n_ood: int, disturbed: float) -> FeatureEmbeddings:
    """Draw features around the vectors of the classes, and OOD features around none."""
    rng, noise = np.random.default_rng(0), np.random.default_rng(1)

    def unit(rows: int) -> np.ndarray:
        vectors = rng.standard_normal((rows, DIM), dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def images(features: np.ndarray) -> FeatureOutputs:
        moved = features + disturbed / DIM**0.5 * noise.standard_normal(features.shape, dtype=np.float32)
        return FeatureOutputs(features=moved, high_band=rng.random(len(moved)), local=-7 + rng.random(len(moved)))

    classifier = unit(CLASSES)
    labels, of_calibration = rng.integers(0, CLASSES, n), np.arange(CALIBRATION) % CLASSES
    inside, calibration = (0.16 * classifier[of] + unit(len(of)) for of in (labels, of_calibration))
    outside = {name: images(unit(n_ood) + 0.05) for name in ("one", "two")}
    held_out = np.arange(CALIBRATION) % 4 == 3
    return FeatureEmbeddings(
        in_distribution=images(inside),
        labels=labels,
        ood=outside,
        classifier=classifier,
        logit_scale=SCALE,
        logit_bias=0.0,
        negatives=unit(NEGATIVES),
        calibration=CalibrationEmbeddings(images=images(calibration), labels=of_calibration, held_out=held_out),
        near=frozenset({"one"}),
    )


def timed(what: str, function: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    result = function()
    taken = time.perf_counter() - started
    print(f"{what:60} {taken:8.2f} s", flush=True)
    return result, taken


def ours(n: int, n_ood: int) -> float:
    pair = [embeddings(n, n_ood, disturbed) for disturbed in (0.0, 0.1)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    names = [f"class {i}" for i in range(CLASSES)]
    baseline, first = timed("ours: all values, full precision", lambda: measure(pair[0], names))
    quantized, second = timed("ours: all values, quantized", lambda: measure(pair[1], names))
    changes, third = timed("ours: bounds on every change", lambda: bounded(baseline, quantized))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = first + second + third
    print(f"{'ours, ' + str(changes) + ' changes with bounds':60} {total:8.2f} s")
    print(f"memory: {peak / 2**20:.2f} GiB at most, {before / 2**20:.2f} GiB before\n")
    return total


def bounded(baseline: Measurement, quantized: Measurement) -> int:
    """Return the number of changes with bounds, after evaluating each."""
    wanted = {*quantized.values, *registry.names()}
    changes = compare(baseline, quantized, wanted).values()
    return sum(change.bounds is not None and change.bounds(0.05) is not None for change in changes)


def others(n: int, n_ood: int) -> float:
    """Return the seconds of other libraries for the values of both models and 2000 replicates."""
    models = []
    for disturbed in (0.0, 0.1):
        drawn = embeddings(n, n_ood, disturbed)
        inside, *outside = (
            SCALE
            * torch.nn.functional.normalize(torch.from_numpy(images.features))
            @ torch.from_numpy(drawn.classifier).T
            for images in (drawn.in_distribution, *drawn.ood.values())
        )
        models.append((inside, outside))
    labels = torch.from_numpy(drawn.labels)
    return _others_on_labels([inside for inside, _ in models], labels) + _others_on_ood(models)


def _others_on_labels(models: list[torch.Tensor], labels: torch.Tensor) -> float:
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

    probabilities = [logits.softmax(dim=1) for logits in models]
    metrics: dict[str, Callable[..., torch.Tensor]] = {
        "top-1": partial(multiclass_accuracy, average="micro"),
        "top-5": partial(multiclass_accuracy, top_k=5, average="micro"),
        "balanced accuracy": partial(multiclass_accuracy, average="macro"),
        "ECE": multiclass_calibration_error,
        "MCE": partial(multiclass_calibration_error, norm="max"),
    }
    total = 0.0
    for name, metric in metrics.items():

        def statistic(index: np.ndarray, metric: Callable[..., torch.Tensor] = metric) -> float:
            rows = torch.from_numpy(index.astype(np.int64))
            before, after = (float(metric(p[rows], labels[rows], num_classes=CLASSES)) for p in probabilities)
            return after - before

        total += _resampled(f"others: {name}", statistic, [len(labels)])
    return total


def _others_on_ood(models: list[tuple[torch.Tensor, list[torch.Tensor]]]) -> float:
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "msp": lambda z: -z.softmax(dim=1).amax(dim=1),
        "maxlogit": lambda z: -z.amax(dim=1),
        "energy": lambda z: -z.logsumexp(dim=1),
        "mcm": lambda z: -(z / SCALE).softmax(dim=1).amax(dim=1),
    }
    metrics: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
        "AUROC": roc_auc_score,
        "AUPR out": average_precision_score,
        "AUPR in": lambda y, s: average_precision_score(1 - y, -s),
        "FPR@95": lambda y, s: _fpr(1 - y, -s),
        "FPR@95 out": lambda y, s: _fpr(y, s),
    }
    total = 0.0
    for score, function in scores.items():
        scored = [(function(i).numpy(), [function(o).numpy() for o in outside]) for i, outside in models]
        sizes = [len(scored[0][0]), *map(len, scored[0][1])]
        for name, metric in metrics.items():
            statistic = partial(_ood_change, metric, scored)
            total += _resampled(f"others: {name} of {score}", statistic, sizes)
    return total


def _ood_change(
    metric: Callable[[np.ndarray, np.ndarray], float],
    scored: list[tuple[np.ndarray, list[np.ndarray]]],
    index: np.ndarray,
    *ood_indices: np.ndarray,
) -> float:
    """Return the change of a metric, as a mean over the OOD sets, on samples of these indices."""
    means = []
    for inside, outside in scored:
        values = []
        for ood_index, ood_scores in zip(ood_indices, outside, strict=True):
            both = np.concatenate([inside[index.astype(int)], ood_scores[ood_index.astype(int)]])
            values.append(metric(np.arange(len(both)) >= len(index), both))
        means.append(np.mean(values))
    return float(means[1] - means[0])


def _fpr(positive: np.ndarray, scores: np.ndarray) -> float:
    from sklearn.metrics import roc_curve

    fpr, tpr, _ = roc_curve(positive, scores, drop_intermediate=False)
    return float(fpr[np.argmax(tpr >= 0.95)])


def _resampled(what: str, statistic: Callable[..., float], sizes: list[int]) -> float:
    """Return the seconds of scipy's bootstrap of a statistic of sample indices, scaled up to 2000 replicates."""
    from scipy.stats import bootstrap

    started = time.perf_counter()
    bootstrap(
        [np.arange(size) for size in sizes],
        statistic,
        vectorized=False,
        method="percentile",
        n_resamples=FEW,
        rng=np.random.default_rng(0),
    )
    taken = (time.perf_counter() - started) * REPLICATES / FEW
    print(f"{what:60} {taken:8.0f} s, from {FEW} replicates", flush=True)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--ood", type=int, default=10_000)
    parser.add_argument("--no-others", action="store_true")
    args = parser.parse_args()
    mine = ours(args.samples, args.ood)
    if not args.no_others:
        theirs = others(args.samples, args.ood)
        print(f"\nothers {theirs:.0f} s for a part of it, ours {mine:.1f} s for all: {theirs / mine:.0f} times")


if __name__ == "__main__":
    main()
