"""Doubts about a baseline: signs that the full-precision model is not the one that was meant.

Every gate is on the change from full precision. So a model whose class names are in another order than the labels
passes them all, as it is no worse when quantized. Doubts are told by the numbers that no model of use has, and only if
an interval shows them: few samples raise none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.evaluation.verdicts.gates import Verdict
from pytest_qreliab.metrics import registry
from pytest_qreliab.metrics.classification import Predictions
from pytest_qreliab.metrics.definitions import ID
from pytest_qreliab.metrics.names import MetricName, SetName
from pytest_qreliab.statistics.arrays import IntArray
from pytest_qreliab.statistics.influence import Estimate, paired_mean
from pytest_qreliab.statistics.proportions import score_interval, wilson_interval

FEWEST = 20  # samples, below which nothing is said of a set
LEAST_ACCURACY = 0.05  # a baseline that may reach it is not doubted, however many classes there are
LARGEST_GAP = 0.5  # of confidence and accuracy
FAR_BETTER = 0.1  # accuracy that another order of the classes gains
MOST_CLASSES = 2000  # whose best order is looked for: it takes a second
NAMED = 3  # classes that a message names
SEED = 0


def find_doubts(baseline: Measurement, gated: Collection[str], alpha: float) -> tuple[str, ...]:
    """Say why a full-precision model is probably not the one that was meant.

    Args:
        baseline: The measurement in full precision.
        gated: The metrics that are gated. Only what they are measured on is looked at, apart from the in-distribution
            samples.
        alpha: The one-sided error probability of each finding.

    Returns:
        One sentence for each doubt, with the likely cause. None if there is nothing to say.
    """
    found = [*_in_distribution(baseline, alpha)]
    shifted = {of for name in gated for of in registry.image_sets(name, baseline.labelled)}
    for of in sorted(shifted):
        classes = baseline.candidates.get(of, 0)
        if SetName.parse(of).category == "shift" and classes and not found:
            found += _at_chance(baseline.labelled[of], classes, f"on {of}", alpha)
    return (*found, *_guessing_ood(baseline, gated, alpha))


def refuse(verdicts: Iterable[Verdict], doubts: Collection[str]) -> list[Verdict]:
    """Return the verdicts of a case whose baseline is doubted: every gate fails, with the doubts as its problem."""
    text = "; ".join(doubts)
    return [
        replace(verdict, outcome="fail", passed=False, problem="; ".join(filter(None, [verdict.problem, text])))
        for verdict in verdicts
    ]


def _in_distribution(baseline: Measurement, alpha: float) -> list[str]:
    """Return the doubt that the in-distribution samples raise: the one that explains the others."""
    predictions = baseline.predictions
    if predictions is None or len(predictions) < FEWEST:
        return []
    return (
        _in_another_order(predictions, baseline, alpha)
        or _at_chance(predictions, predictions.logits.shape[1], "", alpha)
        or _far_from_confidence(predictions, alpha)
    )


def _at_chance(predictions: Predictions, classes: int, where: str, alpha: float) -> list[str]:
    """Return the doubt of an accuracy that is not shown above chance, though so many samples would show a useful one.

    A useful one is twice chance, half way from chance to 1, or 5 %.
    """
    n, hits, chance = len(predictions), int(predictions.correct.sum()), 1 / classes
    low, high = wilson_interval(hits, n, alpha)
    useful = max(min(2 * chance, (1 + chance) / 2), LEAST_ACCURACY)
    if n < FEWEST or classes < 2 or low > chance or high > useful:
        return []
    return [
        f"the full-precision accuracy {where + ' ' if where else ''}is {hits / n:.3g} on {n} samples, not above chance "
        f"(1 of {classes} classes): check that labels and class names belong together, the preprocessing and the "
        "weights"
    ]


def _far_from_confidence(predictions: Predictions, alpha: float) -> list[str]:
    """Return the doubt of a mean confidence that is far from the accuracy."""
    low, high = paired_mean(predictions.confidence - predictions.correct, ID).pad().interval(alpha)
    if low <= LARGEST_GAP and high >= -LARGEST_GAP:
        return []
    cause = "too large, or labels are wrong" if low > 0 else "missing or too small, as in cosines given for logits"
    return [
        f"the full-precision confidence is {predictions.confidence.mean():.3g} on average, beside an accuracy of "
        f"{predictions.correct.mean():.3g}: the logit scale may be {cause}"
    ]


def _guessing_ood(baseline: Measurement, gated: Collection[str], alpha: float) -> list[str]:
    """Return the doubts of OOD sets that gated scores find more in-distribution than the in-distribution samples."""
    found = {}
    for name in map(MetricName.parse, gated):
        scored = baseline.ood_scores.get(name.score, {}) if name.family == "ood" else {}
        for of in baseline.ood_sets(name) if scored else ():
            if of not in scored or min(len(scored[of]), baseline.samples) < FEWEST:
                continue
            ranked = baseline.ranked(name.score, of)
            influence = ranked.auroc_influence()
            estimate = Estimate(ranked.auroc(), {ID: influence.of_id, of: influence.of_ood})
            if estimate.pad().interval(alpha).high < 0.5:
                found[name.score, of] = (
                    f"the full-precision AUROC of {of} by {name.score} is {estimate.value:.3g}, below the 0.5 of "
                    "guessing: in-distribution and OOD images may be swapped, or the logits' sign"
                )
    return list(found.values())


def _in_another_order(predictions: Predictions, baseline: Measurement, alpha: float) -> list[str]:
    """Return the doubt that the classes are in another order than the labels.

    The best order is found on one half of the samples and tried on the other, so that it can gain nothing by chance.
    """
    n, classes = len(predictions), predictions.logits.shape[1]
    if classes > MOST_CLASSES:
        return []
    half = np.random.default_rng(SEED).permutation(n) % 2 == 0
    hits = np.zeros(n)
    for fitted in (half, ~half):
        order = _best_order(predictions, classes, fitted)
        hits[~fitted] = order[predictions.predicted[~fitted]] == predictions.labels[~fitted]
    gained, lost = (int((sign * (hits - predictions.correct) > 0).sum()) for sign in (1, -1))
    if score_interval(gained, lost, n, alpha).low <= FAR_BETTER:
        return []
    swaps = "; ".join(_swaps(predictions, baseline.classes))
    return [
        f"the full-precision accuracy is {predictions.correct.mean():.3g}, and would be {hits.mean():.3g} if the class "
        f"names were in another order ({swaps}): `classes` and the labels are probably not in the same order"
    ]


def _best_order(predictions: Predictions, classes: int, rows: npt.NDArray[np.bool_]) -> IntArray:
    """Return the label that each predicted class stands for, so that most of these samples are right."""
    counts = np.zeros((classes, classes))
    np.add.at(counts, (predictions.predicted[rows], predictions.labels[rows]), 1)
    counts[np.diag_indices(classes)] += 0.5 / classes  # of equal orders the one that is given
    return linear_sum_assignment(counts, maximize=True)[1].astype(np.int64)


def _swaps(predictions: Predictions, names: Collection[str]) -> list[str]:
    """Return the classes that are most often taken for the one that the best order has in their place."""
    classes, words = predictions.logits.shape[1], list(names)
    order = _best_order(predictions, classes, np.ones(len(predictions), dtype=bool))
    found = []
    for predicted, label in enumerate(order):
        count = int(((predictions.predicted == predicted) & (predictions.labels == label)).sum())
        if label != predicted and count:
            a, b = (repr(words[k]) if k < len(words) else f"class {k}" for k in (label, predicted))
            found.append((-count, f"samples labelled {a} are classified as {b}"))
    return [text for _, text in sorted(found)[:NAMED]]
