"""The OOD scores of the image sets of a benchmark, whatever scores there are."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pytest_qreliab.embedding.records import EmbeddedSets, OutputsT
from pytest_qreliab.evaluation.measurement.logits import LogitSource, bad_features
from pytest_qreliab.metrics.names import MetricName
from pytest_qreliab.metrics.ood import STATISTICS
from pytest_qreliab.metrics.ood_scores import (
    SCORES,
    CalibrationFeatures,
    FeatureScorer,
    FittedScore,
    fitted_scores,
    score_samples,
)
from pytest_qreliab.statistics.arrays import FloatArray


@dataclass(frozen=True)
class SetScores:
    """The scores of all OOD sets, and why some are missing."""

    scores: dict[str, dict[str, FloatArray]]  # by score, in the order of the table, and set
    problems: dict[tuple[str, str], str]  # by score and set

    def problems_by_metric(self, near: frozenset[str]) -> dict[str, str]:
        """Return the problems of the metrics of a set and of every mean over it."""
        found: dict[str, str] = {}
        for (score, of), problem in self.problems.items():
            for statistic in STATISTICS:
                for part in ("", "near" if of in near else "far", of):
                    name = MetricName(family="ood", statistic=statistic, score=score, part=part)
                    found.setdefault(str(name), problem)
        return found


@dataclass(frozen=True)
class FittedScorers:
    """The scores that are fitted on calibration features, as functions, and why some are missing."""

    scorers: dict[str, FeatureScorer] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    @classmethod
    def fit(cls, calibration: CalibrationFeatures) -> FittedScorers:
        """Fit every score that the calibration features allow."""
        scores = fitted_scores(calibration)
        if problem := bad_features(calibration.features, "calibration image features"):
            return cls({}, dict.fromkeys(scores, problem))
        fitted = cls()
        for name, score in scores.items():
            fitted.add(name, score, calibration)
        return fitted

    def add(self, name: str, score: FittedScore, calibration: CalibrationFeatures) -> None:
        """Fit one more score, or note why it cannot be."""
        try:
            self.scorers[name] = score.fit(calibration)
        except ValueError as error:
            self.problems[name] = str(error)


def fit_scorers(sets: EmbeddedSets[OutputsT], source: LogitSource[OutputsT]) -> FittedScorers:
    """Fit the scores on the benchmark's calibration features, if there are any."""
    given = sets.calibration
    features = None if given is None else source.features(given.images)
    if given is None or features is None:
        return FittedScorers()
    return FittedScorers.fit(CalibrationFeatures(features, given.labels))


def score_features(images: OutputsT, source: LogitSource[OutputsT], fitted: FittedScorers) -> dict[str, FloatArray]:
    """Return the fitted scores of an image set; none without features."""
    features = source.features(images)
    return {} if features is None else {name: scorer(features) for name, scorer in fitted.scorers.items()}


def score_images(images: OutputsT, source: LogitSource[OutputsT]) -> dict[str, FloatArray]:
    """Return the scores of an image set that are read off its samples."""
    parts = [score_samples(samples) for _, samples in source.chunks(images, everything=True)]
    return {score: np.concatenate([part[score] for part in parts]) for score in parts[0]}


def score_ood_sets(
    sets: EmbeddedSets[OutputsT],
    source: LogitSource[OutputsT],
    fitted: FittedScorers,
    id_scores: dict[str, FloatArray],
    id_problem: str,
) -> SetScores:
    """Return the scores of every OOD set.

    Args:
        sets: The embeddings of the benchmark.
        source: The way to logits.
        fitted: The scores that are fitted on calibration features.
        id_scores: The scores of the in-distribution samples, by name.
        id_problem: Why the in-distribution samples have no scores; empty if they have.
    """
    scores: dict[str, dict[str, FloatArray]] = {score: {} for score in SCORES}
    problems: dict[tuple[str, str], str] = {}
    for of, images in sets.ood.items():
        if problem := id_problem or source.problem(images, of):
            problems.update({(score, of): problem for score in SCORES})
            continue
        for score, of_set in {**score_images(images, source), **score_features(images, source, fitted)}.items():
            # A score of patches can be NaN even if no feature is.
            bad = int((~np.isfinite(of_set)).sum()) + int((~np.isfinite(id_scores[score])).sum())
            if bad:
                problems[score, of] = f"the {score} score of {bad} samples is not a finite number"
            else:
                scores[score][of] = of_set
        problems.update({(score, of): text for score, text in fitted.problems.items()})
    return SetScores({score: of_sets for score, of_sets in scores.items() if of_sets}, problems)
