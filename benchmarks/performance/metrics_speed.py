"""How long every metric, OOD score and interval takes, from embeddings, beside a loop over other libraries.

    python benchmarks/performance/metrics_speed.py  # 50,000 samples, 1,000 classes, two OOD sets of 10,000
    python benchmarks/performance/metrics_speed.py --samples 5000 --no-others

Ours: two measurements (full precision and quantized) and the bounds on every change. The others: torchmetrics for
accuracy and calibration, scikit-learn for OOD, and `scipy.stats.bootstrap` (percentile, paired) around them, for
the same metrics where they have them. Their bootstrap is run with few replicates and the time scaled up to 2000, the
number that the halves and quarters of ours come to; those it does not have are not counted. Ratios are within one run.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
import torch

from pytest_qreliab.embedding.records import CalibrationEmbeddings, Embeddings, ImageEmbeddings
from pytest_qreliab.evaluation.measurement.comparison import compare
from pytest_qreliab.evaluation.measurement.measure import measure
from pytest_qreliab.metrics import registry

DIM, CLASSES, NEGATIVES, CALIBRATION = 512, 1000, 200, 1000
SCALE = 60.0
REPLICATES = 2000
FEW = 4


def embeddings(n: int, n_ood: int, disturbed: float) -> Embeddings:
    """Features round the classes' vectors, and of the OOD sets round none; `disturbed` is what quantization adds."""
    rng, noise = np.random.default_rng(0), np.random.default_rng(1)

    def unit(rows: int) -> np.ndarray:
        vectors = rng.standard_normal((rows, DIM), dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def images(features: np.ndarray) -> ImageEmbeddings:
        found = features + disturbed / DIM**0.5 * noise.standard_normal(features.shape, dtype=np.float32)
        return ImageEmbeddings(found, rng.random(len(found)), -7 + rng.random(len(found)))

    classifier = unit(CLASSES)
    labels, of_calibration = rng.integers(0, CLASSES, n), np.arange(CALIBRATION) % CLASSES
    inside, calibration = (0.16 * classifier[of] + unit(len(of)) for of in (labels, of_calibration))
    outside = {name: images(unit(n_ood) + 0.05) for name in ("one", "two")}
    held_out = np.arange(CALIBRATION) % 4 == 3
    return Embeddings(
        images(inside),
        labels,
        outside,
        classifier,
        SCALE,
        0.0,
        unit(NEGATIVES),
        CalibrationEmbeddings(images(calibration).features, of_calibration, held_out),
        frozenset({"one"}),
    )


def timed(what: str, function: Callable[[], object]) -> tuple[object, float]:
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


def bounded(baseline: object, quantized: object) -> int:
    """The number of changes with bounds, each evaluated."""
    wanted = {*quantized.values, *registry.names()}
    changes = compare(baseline, quantized, wanted).values()
    return sum(change.bounds is not None and change.bounds(0.05) is not None for change in changes)


def others(n: int, n_ood: int) -> float:
    """The same, as far as the libraries go, of both models: seconds for values and 2000 replicates."""
    from sklearn.metrics import average_precision_score, roc_auc_score
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

    models = []
    for disturbed in (0.0, 0.1):
        found = embeddings(n, n_ood, disturbed)
        classifier = torch.from_numpy(found.classifier)

        def logits(features: np.ndarray, classifier: torch.Tensor = classifier) -> torch.Tensor:
            return SCALE * torch.nn.functional.normalize(torch.from_numpy(features)) @ classifier.T

        inside = logits(found.in_distribution.features)
        outside = [logits(images.features) for images in found.ood.values()]
        models.append((inside.softmax(dim=1), inside, outside))
    labels = torch.from_numpy(found.labels)
    total = 0.0
    for name, function in {
        "top-1": lambda p, y: multiclass_accuracy(p, y, CLASSES, average="micro"),
        "top-5": lambda p, y: multiclass_accuracy(p, y, CLASSES, top_k=5, average="micro"),
        "balanced accuracy": lambda p, y: multiclass_accuracy(p, y, CLASSES, average="macro"),
        "ECE": lambda p, y: multiclass_calibration_error(p, y, CLASSES),
        "MCE": lambda p, y: multiclass_calibration_error(p, y, CLASSES, norm="max"),
    }.items():

        def statistic(index: np.ndarray, function: Callable[..., torch.Tensor] = function) -> float:
            of = torch.from_numpy(index.astype(np.int64))
            before, after = (float(function(p[of], labels[of])) for p, _, _ in models)
            return after - before

        total += _resampled(f"others: {name}", statistic, [n])
    scores = {
        "msp": lambda z: -z.softmax(dim=1).amax(dim=1),
        "maxlogit": lambda z: -z.amax(dim=1),
        "energy": lambda z: -z.logsumexp(dim=1),
        "mcm": lambda z: -(z / SCALE).softmax(dim=1).amax(dim=1),
    }
    for score, function in scores.items():
        found_scores = [(function(i).numpy(), [function(o).numpy() for o in outside]) for _, i, outside in models]
        for name, metric in {
            "AUROC": roc_auc_score,
            "AUPR out": average_precision_score,
            "AUPR in": lambda y, s: average_precision_score(1 - y, -s),
            "FPR@95": lambda y, s: _fpr(1 - y, -s),
            "FPR@95 out": lambda y, s: _fpr(y, s),
        }.items():

            def statistic(
                index: np.ndarray,
                *of_sets: np.ndarray,
                metric: Callable[..., float] = metric,
                found_scores: list[tuple[np.ndarray, list[np.ndarray]]] = found_scores,
            ) -> float:
                means = []
                for inside, outside in found_scores:
                    of_set = []
                    for index_ood, scores_ood in zip(of_sets, outside, strict=True):
                        both = np.concatenate([inside[index.astype(int)], scores_ood[index_ood.astype(int)]])
                        of_set.append(metric(np.arange(len(both)) >= len(index), both))
                    means.append(np.mean(of_set))
                return float(means[1] - means[0])

            total += _resampled(f"others: {name} of {score}", statistic, [n, n_ood, n_ood])
    return total


def _fpr(positive: np.ndarray, scores: np.ndarray) -> float:
    from sklearn.metrics import roc_curve

    fpr, tpr, _ = roc_curve(positive, scores, drop_intermediate=False)
    return float(fpr[np.argmax(tpr >= 0.95)])


def _resampled(what: str, statistic: Callable[..., float], sizes: list[int]) -> float:
    """The seconds that scipy's bootstrap of a statistic of sample indices takes, scaled up to 2000 replicates."""
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
