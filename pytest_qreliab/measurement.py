"""From embeddings to a measurement: every metric's value and the per-sample records it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pytest_qreliab.embedding import Embeddings, ImageEmbeddings
from pytest_qreliab.metrics import calibration, classification, ood, registry, spectral
from pytest_qreliab.metrics.classification import Floats, Labels
from pytest_qreliab.statistics.delong import Placements


@dataclass(frozen=True)
class Measurement:
    """Values by metric name; a value that cannot be had is NaN, and `problems` says why.

    `records` holds `correct`, `confidence`, `nll` and `high_band` per in-distribution sample, shape (n,);
    the scores are by OOD score, and by set. All are there only where they are finite.
    """

    labels: Labels
    values: dict[str, float] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    records: Mapping[str, Floats] = field(default_factory=dict)
    id_scores: Mapping[str, Floats] = field(default_factory=dict)
    ood_scores: Mapping[str, Mapping[str, Floats]] = field(default_factory=dict)

    def placements(self, score: str, sets: list[str]) -> list[Placements]:
        """DeLong's components of one OOD score, one entry per set."""
        return [Placements(*ood.placements(self.id_scores[score], self.ood_scores[score][name])) for name in sets]


def measure(embeddings: Embeddings) -> Measurement:
    """Every metric that the embeddings allow. NaN or infinity in an image set makes its metrics NaN.

    Logits are computed in float64 from the float32 features, times the model's own logit scale.
    """
    values: dict[str, float] = {}
    problems: dict[str, str] = {}
    labels = embeddings.labels
    cosines, problem = _cosines(embeddings, embeddings.in_distribution, "in-distribution")
    records: dict[str, Floats] = {}
    if problem:
        for name in registry.names():
            if registry.lookup(name).aspect in ("accuracy", "calibration"):
                problems[name] = problem
    else:
        logits = embeddings.logit_scale * cosines + embeddings.logit_bias
        correct = classification.correct(logits, labels)
        confidence = classification.confidence(logits)
        nll = classification.negative_log_likelihood(logits, labels)
        records = {"correct": correct, "confidence": confidence, "nll": nll}
        values["accuracy"] = float(correct.mean())
        values["balanced_accuracy"] = float(classification.balanced_accuracy(correct, labels))
        values["nll"] = float(nll.mean())
        values["ece"] = float(calibration.expected_calibration_error(confidence, correct))
        values["confidence_gap"] = float(confidence.mean() - correct.mean())

    id_scores, ood_scores = _ood(embeddings, cosines, problem, values, problems)
    _spectrum(embeddings.in_distribution, values, problems, records)
    values.update(dict.fromkeys(problems, float("nan")))
    return Measurement(labels, values, problems, records, id_scores, ood_scores)


def _cosines(embeddings: Embeddings, images: ImageEmbeddings, name: str) -> tuple[Floats, str]:
    """Cosines to every class, float64 (n, classes), and a problem if any is not finite."""
    features = images.features.astype(np.float64)
    with np.errstate(all="ignore"):  # what is not finite is reported, by name, just below
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        cosines: Floats = unit @ embeddings.classifier.astype(np.float64).T
    scale, bias = embeddings.logit_scale, embeddings.logit_bias
    if not np.isfinite([scale, bias]).all():
        return cosines, f"NaN or infinity in the logit scale ({scale:g}) or bias ({bias:g})"
    bad_classes = int((~np.isfinite(embeddings.classifier)).any(axis=1).sum())
    if bad_classes:
        return cosines, f"NaN or infinity in the text features of {bad_classes} of {cosines.shape[1]} classes"
    bad = int((~np.isfinite(cosines)).any(axis=1).sum())
    if bad:
        return cosines, f"NaN, infinity or a zero vector in {bad} of {len(cosines)} {name} image features"
    return cosines, ""


def _ood(
    embeddings: Embeddings,
    id_cosines: Floats,
    id_problem: str,
    values: dict[str, float],
    problems: dict[str, str],
) -> tuple[dict[str, Floats], dict[str, dict[str, Floats]]]:
    scale, bias = embeddings.logit_scale, embeddings.logit_bias
    of_id = {} if id_problem else ood.scores(id_cosines, scale, bias)
    of_ood: dict[str, dict[str, Floats]] = {score: {} for score in registry.OOD_SCORES}
    problem = id_problem
    for name, images in embeddings.ood.items():
        cosines, own_problem = _cosines(embeddings, images, name)
        set_problem = id_problem or own_problem
        problem = problem or own_problem
        of_set = {} if set_problem else ood.scores(cosines, scale, bias)
        for score in registry.OOD_SCORES:
            auroc, fpr95 = f"ood.auroc.{score}.{name}", f"ood.fpr95.{score}.{name}"
            if set_problem:
                problems[auroc] = problems[fpr95] = set_problem
                continue
            of_ood[score][name] = of_set[score]
            values[auroc] = ood.auroc(of_id[score], of_set[score])
            values[fpr95] = float(ood.fpr_at_95(of_id[score], of_set[score]))
    if embeddings.ood:
        for statistic in registry.OOD_STATISTICS:
            for score in registry.OOD_SCORES:
                metric = f"ood.{statistic}.{score}"
                if problem:
                    problems[metric] = problem
                else:
                    values[metric] = float(np.mean([values[f"{metric}.{name}"] for name in embeddings.ood]))
    return of_id, of_ood


def _spectrum(
    images: ImageEmbeddings, values: dict[str, float], problems: dict[str, str], records: dict[str, Floats]
) -> None:
    rank, band = "spectral.effective_rank", "spectral.high_band_energy"
    bad = int((~np.isfinite(images.features)).any(axis=1).sum())
    if bad:
        problems[rank] = f"NaN or infinity in {bad} of {len(images.features)} in-distribution image features"
    else:
        values[rank] = spectral.effective_rank(images.features)
        if np.isnan(values[rank]):
            problems[rank] = "all in-distribution image features are the same"
    if images.high_band is None:
        problems[band] = "the image tower shows no patch map"
        return
    bad = int((~np.isfinite(images.high_band)).sum())
    if bad:
        total = len(images.high_band)
        problems[band] = f"NaN, infinity or nothing but a constant in {bad} of {total} patch maps"
        return
    values[band] = float(images.high_band.mean())
    records["high_band"] = images.high_band
