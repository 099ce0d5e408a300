"""From embeddings to a measurement: every metric's value and the per-sample records it came from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from pytest_qreliab.embedding.records import Embeddings, ImageEmbeddings
from pytest_qreliab.evaluation.measurement.measurement import Features, Measurement
from pytest_qreliab.metrics import calibration, classification, ood, registry, robustness
from pytest_qreliab.metrics.classification import CHUNK_ROWS, Predictions
from pytest_qreliab.metrics.rank import RANKS
from pytest_qreliab.statistics.arrays import FloatArray


def measure(embeddings: Embeddings, classes: Sequence[str] = ()) -> Measurement:
    """Every metric that the embeddings allow; and the recall of each of `classes`, in label order.

    NaN or infinity in an image set makes its metrics NaN. Logits are computed in float64 from the float32 features,
    times the model's own logit scale.
    """
    images, labels = embeddings.in_distribution, embeddings.labels
    problems: dict[str, str] = {}
    predictions = rescaled = None
    id_scores: dict[str, FloatArray] = {}
    problem = _problem(embeddings, images, "in-distribution")
    labelled, labelled_problems = _further(embeddings)
    problems.update(labelled_problems)
    if problem:
        names = [*registry.of_aspect("accuracy"), *registry.of_aspect("calibration"), *registry.BAND_ACCURACIES]
        problems.update(dict.fromkeys([*names, *(registry.RECALL + name for name in classes)], problem))
    else:
        predictions, id_scores = _predictions(embeddings)
        refitted, rescaled_problem = _refitted_scale(embeddings)
        if refitted is not None:
            rescaled = classification.rescale(predictions, refitted / (embeddings.logit_scale or 1.0))
        problems.update(dict.fromkeys(registry.RESCALED_METRICS if rescaled_problem else (), rescaled_problem))
    ood_scores, ood_problems = _ood_scores(embeddings, id_scores, problem)
    problems.update(_by_metric(ood_problems, embeddings))
    high_band = _high_band(images, problems)
    features = _features(embeddings, problems)
    found = Measurement(
        classes,
        len(labels),
        embeddings.near,
        {},
        problems,
        predictions,
        rescaled,
        high_band,
        id_scores,
        ood_scores,
        labelled,
        features,
        images.blocks,
        images.sensitivity,
    )
    found.values.update(values(found))
    if "" in features:
        found.values.update({f"spectral.{name}": float(getattr(found.spectrum(""), name)) for name in RANKS})
    found.values.update(dict.fromkeys(problems, float("nan")))
    return found


def values(found: Measurement, wanted: Collection[str] | None = None) -> dict[str, float]:
    """Every metric's value, or those of the wanted ones and perhaps others, from the per-sample records alone."""
    result: dict[str, float] = {}
    for prefix, predictions in (("", found.predictions), (registry.RESCALED, found.rescaled)):
        if predictions is None:
            continue
        names = None if wanted is None else {name.removeprefix(prefix) for name in wanted if name.startswith(prefix)}
        if not prefix:
            result.update(_accuracy(predictions, found.classes))
        if names is None or names:
            result.update({prefix + name: value for name, value in _calibration(predictions, names).items()})
    if found.high_band is not None:
        result["spectral.high_band_energy"] = float(found.high_band.mean())
    result.update(robustness.values(found.labelled, wanted))
    return {**result, **_ood_values(found, wanted)}


def _problem(embeddings: Embeddings, images: ImageEmbeddings, name: str) -> str:
    """What in the features makes logits that are not finite numbers; empty if nothing does."""
    if images.logits is not None:
        bad = int((~np.isfinite(images.logits)).any(axis=1).sum())
        return f"NaN or infinity in {bad} of {len(images)} {name} logits" if bad else ""
    scale, bias, classifier = embeddings.logit_scale, embeddings.logit_bias, embeddings.classifier
    assert scale is not None
    assert classifier is not None
    assert images.features is not None
    if not np.isfinite([scale, bias]).all():
        return f"NaN or infinity in the logit scale ({scale:g}) or bias ({bias:g})"
    bad_classes = int((~np.isfinite(classifier)).any(axis=1).sum())
    if bad_classes:
        return f"NaN or infinity in the text features of {bad_classes} of {len(classifier)} classes"
    return _bad_features(images.features, f"{name} image features")


def _bad_features(features: npt.NDArray[np.floating], name: str) -> str:
    bad = int((~np.isfinite(features).all(axis=1) | ~features.any(axis=1)).sum())
    return f"NaN, infinity or a zero vector in {bad} of {len(features)} {name}" if bad else ""


def _unit(features: npt.NDArray[np.floating]) -> torch.Tensor:
    return F.normalize(torch.from_numpy(features).double(), dim=1, eps=0.0)  # zero vectors are problems


def _predictions(embeddings: Embeddings) -> tuple[Predictions, dict[str, FloatArray]]:
    """The predictions on the in-distribution samples, and their scores."""
    parts: list[Predictions] = []
    n, classes = len(embeddings.labels), _classes(embeddings, embeddings.in_distribution)
    kept = np.empty((n, classes), np.float32)  # not twice, in parts and joined

    def look(rows: slice, logits: torch.Tensor) -> None:
        part = classification.predict(logits, embeddings.labels[rows])
        kept[rows] = part.logits
        parts.append(replace(part, logits=kept[:0]))

    scores = _scores(embeddings, embeddings.in_distribution, look)
    return replace(classification.join(parts), logits=kept), scores


def _further(embeddings: Embeddings) -> tuple[dict[str, Predictions], dict[str, str]]:
    """The predictions on further labelled sets, without their logits; and by metric why there are none."""
    found: dict[str, Predictions] = {}
    problems: dict[str, str] = {}
    for name, given in embeddings.labelled.items():
        if problem := _problem(embeddings, given.images, name):
            problems.update(dict.fromkeys(robustness.metrics_on_set(name), problem))
            continue
        labels, parts = given.labels, []
        if given.among is not None:
            labels = np.searchsorted(given.among, labels)
        for rows, _, _, logits in _chunks(embeddings, given.images):
            if given.among is not None:
                logits = logits[:, torch.from_numpy(given.among)]
            part = classification.predict(logits, labels[rows])
            parts.append(replace(part, logits=part.logits[:, :0]))
        found[name] = classification.join(parts)
    return found, problems


def _classes(embeddings: Embeddings, images: ImageEmbeddings) -> int:
    of_all = embeddings.classifier if images.logits is None else images.logits.T
    assert of_all is not None
    return len(of_all)


def _chunks(
    embeddings: Embeddings, images: ImageEmbeddings
) -> Iterator[tuple[slice, torch.Tensor | None, torch.Tensor | None, torch.Tensor]]:
    """Some rows at a time, unit features, cosines and logits, in float64; of recorded logits what follows from them.

    The logits of 50,000 samples and 1,000 classes would take 400 MB.
    """
    scale, bias = embeddings.logit_scale, embeddings.logit_bias
    classifier = None if embeddings.classifier is None else torch.from_numpy(embeddings.classifier).double()
    for start in range(0, len(images), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        if images.logits is not None:
            logits = torch.from_numpy(images.logits[rows]).double()
            yield rows, None, None if scale is None else (logits - bias) / scale, logits
            continue
        assert classifier is not None
        assert images.features is not None
        assert scale is not None
        unit = _unit(images.features[rows])
        cosines = unit @ classifier.T
        yield rows, unit, cosines, (scale * cosines).add_(bias)


def _scores(
    embeddings: Embeddings,
    images: ImageEmbeddings,
    look: Callable[[slice, torch.Tensor], None] = lambda rows, logits: None,
) -> dict[str, FloatArray]:
    """The OOD scores of an image set that need no calibration features. `look` is shown the logits as they are made."""
    negatives = None if embeddings.negatives is None else torch.from_numpy(_infinity_as_nan(embeddings.negatives))
    local = None if images.local is None else _infinity_as_nan(images.local)
    scale, bias = embeddings.logit_scale, embeddings.logit_bias
    parts: list[dict[str, FloatArray]] = []
    for rows, unit, cosines, logits in _chunks(embeddings, images):
        look(rows, logits)
        others = None
        if negatives is not None and unit is not None and scale is not None:
            others = (unit @ negatives.T).mul_(scale).add_(bias)
        parts.append(ood.scores(cosines, logits, others, None if local is None else local[rows]))
    unknown = {"maxlogit", "energy"} if embeddings.probabilities else set()  # of a constant that was lost
    return {score: np.concatenate([part[score] for part in parts]) for score in parts[0].keys() - unknown}


def _infinity_as_nan(values: npt.NDArray[np.floating]) -> FloatArray:
    """In float64: exp(-infinity) is a number, and would hide it."""
    return np.where(np.isfinite(values), values, np.nan).astype(np.float64)


def _accuracy(predictions: Predictions, classes: Sequence[str]) -> dict[str, float]:
    of_all = classification.recalls(predictions.correct, predictions.labels, predictions.logits.shape[1])
    recalls: dict[str, float] = {}
    for name, recall in zip(classes, of_all[: len(classes)], strict=True):
        if np.isfinite(recall):  # of a class without samples there is none to measure
            recalls.setdefault(registry.RECALL + name, float(recall))  # ImageNet has two missiles: the first
    return {
        "accuracy": float(predictions.correct.mean()),
        "top5_accuracy": float(predictions.in_top5.mean()),
        "balanced_accuracy": classification.balanced_accuracy(predictions.correct, predictions.labels),
        **recalls,
    }


def _calibration(predictions: Predictions, names: Collection[str] | None = None) -> dict[str, float]:
    """The calibration metrics; of those in bins, which cost more, only what is named."""
    confidence, correct = predictions.confidence, predictions.correct
    binned = {}
    for table in calibration.tables(predictions, calibration.BINNED.keys() & (names or calibration.BINNED.keys())):
        binned.update({name: float(value[0]) for name, value in table.values(table.sums()).items()})
    return {
        "nll": float(predictions.nll.mean()),
        "brier": float(predictions.brier.mean()),
        **binned,
        "confidence_gap": float(confidence.mean() - correct.mean()),
        "aurc": calibration.aurc(confidence, correct),
        "eaurc": calibration.excess_aurc(confidence, correct),
    }


def _refitted_scale(embeddings: Embeddings) -> tuple[float | None, str]:
    """The logit scale fitted on the held-out calibration images, if there are any; or what is wrong with them."""
    given = embeddings.calibration
    if given is None or given.labels is None or not given.held_out.any():
        return None, ""
    apart = given.held_out
    held_out = ImageEmbeddings(
        None if given.features is None else given.features[apart],
        logits=None if given.logits is None else given.logits[apart],
    )
    if problem := _problem(embeddings, held_out, "held-out calibration"):
        return None, problem
    cosines = [logits if cosines is None else cosines for _, _, cosines, logits in _chunks(embeddings, held_out)]
    return calibration.fit_logit_scale(torch.cat(cosines).numpy(), given.labels[apart]), ""


def _ood_scores(
    embeddings: Embeddings, id_scores: dict[str, FloatArray], id_problem: str
) -> tuple[dict[str, dict[str, FloatArray]], dict[tuple[str, str], str]]:
    """The scores of every OOD set, by score and set, and why there are none, by score and set.

    Scores on calibration features are added to those of the in-distribution samples as well.
    """
    found: dict[str, dict[str, FloatArray]] = {}
    problems: dict[tuple[str, str], str] = {}
    on_features, feature_problems = _feature_scores(embeddings)
    of_id = embeddings.in_distribution.features
    if not id_problem and of_id is not None:
        for score, function in on_features.items():
            id_scores[score] = function(of_id)
    for name, images in embeddings.ood.items():
        problem = id_problem or _problem(embeddings, images, name)
        if problem:
            problems.update({(score, name): problem for score in registry.OOD_SCORES})
            continue
        scores = _scores(embeddings, images)
        if (features := images.features) is not None:
            scores.update({score: function(features) for score, function in on_features.items()})
        for score, of_set in scores.items():
            # A score of patches can be NaN where none of features is.
            bad = int((~np.isfinite(of_set)).sum()) + int((~np.isfinite(id_scores[score])).sum())
            if bad:
                problems[score, name] = f"the {score} score of {bad} samples is not a finite number"
            else:
                found.setdefault(score, {})[name] = of_set
        problems.update({(score, name): text for score, text in feature_problems.items()})
    return found, problems


def _feature_scores(embeddings: Embeddings) -> tuple[dict[str, Callable[[Features], FloatArray]], dict[str, str]]:
    """The scores that are fitted on calibration features, as functions of features, and why one cannot be."""
    given = embeddings.calibration
    if given is None or given.features is None:
        return {}, {}
    known = given.features
    names = ("knn",) if given.labels is None else ("knn", "mahalanobis")
    if problem := _bad_features(known, "calibration image features"):
        return {}, dict.fromkeys(names, problem)
    functions: dict[str, Callable[[Features], FloatArray]] = {"knn": lambda features: ood.knn(features, known)}
    if given.labels is not None:
        try:
            fit = ood.fit_mahalanobis(known, given.labels)
        except ValueError as error:
            return functions, {"mahalanobis": str(error)}
        functions["mahalanobis"] = lambda features: ood.mahalanobis(features, fit)
    return functions, {}


def _by_metric(problems: dict[tuple[str, str], str], embeddings: Embeddings) -> dict[str, str]:
    """From problems of a score on a set to the metrics that they touch: of that set, and of every mean over it."""
    found: dict[str, str] = {}
    for (score, name), problem in problems.items():
        for statistic in ood.STATISTICS:
            for suffix in ("", ".near" if name in embeddings.near else ".far", f".{name}"):
                found.setdefault(f"ood.{statistic}.{score}{suffix}", problem)
    return found


def _ood_values(found: Measurement, wanted: Collection[str] | None) -> dict[str, float]:
    """The OOD metrics, the wanted ones or all: of each set, and the means over all, the near and the far sets."""
    if wanted is None:
        wanted = [
            f"ood.{statistic}.{score}{suffix}"
            for score, sets in found.ood_scores.items()
            for suffix in ("", *(f".{name}" for name in (*registry.NEAR_FAR, *sets)))
            for statistic in ood.STATISTICS
        ]

    @cache
    def value(statistic: str, score: str, name: str) -> float:
        return ood.STATISTICS[statistic][0](found.ranked(score, name))

    result = {}
    for metric in wanted:
        if metric.startswith("ood."):
            statistic, score, sets = found.ood_sets(metric)
            if sets and all(name in found.ood_scores.get(score, ()) for name in sets):
                result[metric] = float(np.mean([value(statistic, score, name) for name in sets]))
    return result


def _high_band(images: ImageEmbeddings, problems: dict[str, str]) -> FloatArray | None:
    """The high-band energy share of each sample; or what is wrong with them."""
    name = "spectral.high_band_energy"
    if images.features is None:
        return None
    if images.high_band is None:
        problems[name] = "the image tower shows no patch map"
        return None
    bad = int((~np.isfinite(images.high_band)).sum())
    if bad:
        problems[name] = f"NaN, infinity or nothing but a constant in {bad} of {len(images.high_band)} patch maps"
        return None
    return images.high_band


def _features(embeddings: Embeddings, problems: dict[str, str]) -> dict[str, npt.NDArray[np.float32]]:
    """The features whose spectra are looked at; and what is wrong with them."""
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
            names = [*registry.BY_RANK, *([] if part else registry.BAND_ACCURACIES)]
            problems.update((f"{name}.{part}" if part else name, problem) for name in names)
        else:
            found[part] = features
    return found
