"""Measure embeddings: every metric's value, and the per-sample records it came from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pytest_qreliab.embedding.records import EmbeddedSets, Embeddings, FeatureEmbeddings, FeatureOutputs, OutputsT
from pytest_qreliab.evaluation.measurement.families import FAMILIES
from pytest_qreliab.evaluation.measurement.logits import FeatureLogits, LogitSource, RecordedLogits
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.evaluation.measurement.scoring import fit_scorers, score_features, score_ood_sets
from pytest_qreliab.metrics import calibration, classification, registry, robustness, spectral_metrics
from pytest_qreliab.metrics.classification import Predictions
from pytest_qreliab.metrics.names import MetricName
from pytest_qreliab.metrics.ood_scores import score_samples
from pytest_qreliab.metrics.prediction_metrics import OWN
from pytest_qreliab.statistics.arrays import FloatArray, IntArray


def measure(
    embeddings: Embeddings, classes: Sequence[str] = (), units: Mapping[str, IntArray] | None = None
) -> Measurement:
    """Measure every metric that the embeddings allow.

    NaN or infinity in an image set makes its metrics NaN. Logits are computed in float64 from the float32 features,
    times the model's own logit scale.

    Args:
        embeddings: The outputs of one model for a benchmark.
        classes: The classes whose recalls are measured, in label order.
        units: The number of the unit that each sample shows, (n,), by the full name of the set.
    """
    if isinstance(embeddings, FeatureEmbeddings):
        found = _measure(embeddings, FeatureLogits(embeddings), classes)
        images, problems = embeddings.in_distribution, found.problems
        found = replace(
            found,
            high_band=_high_band(images, problems),
            features=_features(embeddings, problems),
            blocks=images.blocks,
            sensitivity=images.sensitivity,
        )
    else:
        found = _measure(embeddings, RecordedLogits(embeddings), classes)
    found = replace(found, units=units or {})
    found.values.update(values(found))
    found.values.update(dict.fromkeys(found.problems, float("nan")))
    return found


def values(measurement: Measurement, wanted: Collection[str] | None = None) -> dict[str, float]:
    """Return the value of every metric, or of the wanted ones, from the per-sample records alone."""
    found: dict[str, float] = {}
    for family in FAMILIES:
        found.update(family.values(measurement, wanted))
    return found


def _measure(sets: EmbeddedSets[OutputsT], source: LogitSource[OutputsT], classes: Sequence[str]) -> Measurement:
    """Return a measurement with the records that come from logits and OOD scores, and no values yet."""
    further = _further(sets, source)
    problems = dict(further.problems)
    predictions = rescaled = None
    id_scores: dict[str, FloatArray] = {}
    fitted = fit_scorers(sets, source)
    if problem := source.problem(sets.in_distribution, "in-distribution"):
        problems.update(dict.fromkeys(_metrics_of_predictions(classes), problem))
    else:
        predictions, id_scores = _predictions(sets, source)
        id_scores.update(score_features(sets.in_distribution, source, fitted))
        refitted = _refitted_scale(sets, source)
        if refitted.scale is not None:
            rescaled = classification.rescale(predictions, refitted.scale / (source.logit_scale or 1.0))
        problems.update(dict.fromkeys(registry.RESCALED_METRICS if refitted.problem else (), refitted.problem))
        problems.update(_undefined(predictions, rescaled))
    scored = score_ood_sets(sets, source, fitted, id_scores=id_scores, id_problem=problem)
    problems.update(scored.problems_by_metric(sets.near))
    return Measurement(
        classes=classes,
        samples=len(sets.labels),
        near=sets.near,
        problems=problems,
        predictions=predictions,
        rescaled=rescaled,
        id_scores=id_scores,
        ood_scores=scored.scores,
        labelled=further.predictions,
        candidates={
            of: source.classes(given.images) if given.candidates is None else len(given.candidates)
            for of, given in sets.labelled.items()
        },
        warnings=sets.warnings,
    )


def _metrics_of_predictions(classes: Sequence[str]) -> list[str]:
    names = [*registry.of_aspect("accuracy"), *registry.of_aspect("calibration"), *spectral_metrics.BAND_ACCURACIES]
    return [*names, *(f"recall.{name}" for name in classes)]


def _undefined(predictions: Predictions, rescaled: Predictions | None) -> dict[str, str]:
    """Return why predictions do not define a metric, by its name."""
    of = {name: (metric, predictions) for name, metric in OWN.items()}
    if rescaled is not None:
        of |= {name: (OWN[MetricName.parse(name).statistic], rescaled) for name in registry.RESCALED_METRICS}
    problems = {name: metric.problem(of_model) for name, (metric, of_model) in of.items()}
    return {name: problem for name, problem in problems.items() if problem}


def _predictions(
    sets: EmbeddedSets[OutputsT], source: LogitSource[OutputsT]
) -> tuple[Predictions, dict[str, FloatArray]]:
    """Return the predictions on the in-distribution samples, and the OOD scores that are read off them."""
    images, parts, scores = sets.in_distribution, [], []
    kept = np.empty((len(sets.labels), source.classes(images)), np.float32)  # not twice, in parts and joined
    for rows, samples in source.chunks(images, everything=True):
        part = classification.predict(samples.logits, sets.labels[rows], samples.probabilities)
        kept[rows] = part.logits
        parts.append(replace(part, logits=kept[:0]))
        scores.append(score_samples(samples))
    joined = {score: np.concatenate([part[score] for part in scores]) for score in scores[0]}
    return replace(classification.join(parts), logits=kept), joined


class _Further(NamedTuple):
    predictions: dict[str, Predictions]  # by set
    problems: dict[str, str]  # by metric


def _further(sets: EmbeddedSets[OutputsT], source: LogitSource[OutputsT]) -> _Further:
    """Return the predictions on further labelled sets, without their logits, and why some are missing."""
    found: dict[str, Predictions] = {}
    problems: dict[str, str] = {}
    for name, given in sets.labelled.items():
        if problem := source.problem(given.images, name):
            problems.update(dict.fromkeys(robustness.metrics_on_set(name), problem))
            continue
        labels, parts = given.labels, []
        if given.candidates is not None:
            labels = np.searchsorted(given.candidates, labels)
        for rows, samples in source.chunks(given.images):
            logits, probabilities = samples.logits, samples.probabilities
            if given.candidates is not None:  # the probabilities among them alone
                logits, probabilities = logits[:, torch.from_numpy(given.candidates)], None
            part = classification.predict(logits, labels[rows], probabilities)
            parts.append(replace(part, logits=part.logits[:, :0]))
        found[name] = classification.join(parts)
    return _Further(found, problems)


class _Refitted(NamedTuple):
    scale: float | None = None
    problem: str = ""


def _refitted_scale(sets: EmbeddedSets[OutputsT], source: LogitSource[OutputsT]) -> _Refitted:
    """Return the logit scale fitted on the held-out calibration images, if there are any."""
    given = sets.calibration
    if given is None or given.labels is None or not given.held_out.any():
        return _Refitted()
    held_out = source.take(given.images, given.held_out)
    if problem := source.problem(held_out, "held-out calibration"):
        return _Refitted(problem=problem)
    chunks = (samples for _, samples in source.chunks(held_out))
    cosines = [samples.logits if samples.cosines is None else samples.cosines for samples in chunks]
    return _Refitted(calibration.fit_logit_scale(torch.cat(cosines).numpy(), given.labels[given.held_out]))


def _high_band(images: FeatureOutputs, problems: dict[str, str]) -> FloatArray | None:
    """Return the high-band energy share of each sample, or note the problem."""
    if images.high_band is None:
        return None
    bad = int((~np.isfinite(images.high_band)).sum())
    if bad:
        problems["spectral.high_band_energy"] = (
            f"NaN, infinity or nothing but a constant in {bad} of {len(images.high_band)} patch maps"
        )
        return None
    return images.high_band


def _features(embeddings: FeatureEmbeddings, problems: dict[str, str]) -> dict[str, npt.NDArray[np.float32]]:
    """Return the features whose spectra are looked at, or note the problems."""
    images = embeddings.in_distribution
    given = {"": images.features, "penultimate": images.penultimate, "text": embeddings.classifier}
    found = {}
    for part, features in given.items():
        if features is None:
            continue
        what = {"": "in-distribution image", "text": "text"}.get(part, part)
        bad = int((~np.isfinite(features)).any(axis=1).sum())
        problem = f"NaN or infinity in {bad} of {len(features)} {what} features" if bad else ""
        if not problem and (features == features[0]).all():
            problem = f"all {what} features are the same"
        if problem:
            names = [*spectral_metrics.BY_RANK, *([] if part else spectral_metrics.BAND_ACCURACIES)]
            problems.update((f"{name}.{part}" if part else name, problem) for name in names)
        else:
            found[part] = features
    return found
