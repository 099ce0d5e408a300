"""Looking metrics up by their names. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from pytest_qreliab.errors import unknown
from pytest_qreliab.metrics import ood, ood_scores, prediction_metrics, set_metrics, spectral_metrics
from pytest_qreliab.metrics.definitions import Metric
from pytest_qreliab.metrics.names import NEAR_FAR, PRIMARY_SCORE, RESCALED, MetricName, SetName

OOD_SCORES = tuple(ood_scores.SCORES)
OOD_STATISTICS = tuple(ood.STATISTICS)

# The calibration metrics with the logit scale of both models refitted on held-out calibration images.
RESCALED_METRICS = tuple(
    f"{RESCALED}.{name}" for name, metric in prediction_metrics.METRICS.items() if metric.aspect == "calibration"
)
# The metrics that have one name in every benchmark, but for the rescaled ones and those of OOD and of means over sets.
_METRICS: dict[str, Metric] = {**prediction_metrics.METRICS, **set_metrics.SPURIOUS, **spectral_metrics.METRICS}


def lookup(name: str) -> Metric:
    """Return the metric of a name.

    OOD metrics are `ood.STATISTIC.SCORE` (mean over the benchmark's OOD sets), `ood.STATISTIC.SCORE.near` and `.far`
    (over those sets alone) and `ood.STATISTIC.SCORE.SET`; `ood.auroc` is short for the `mcm` score. `rescaled.` goes
    before a calibration metric, and a number of bins, 1 to 100, behind one that has bins, as in `ece.equal_mass.20`.
    `recall.CLASS` is one class's. `shift.accuracy` is the mean over the shifted sets,
    `shift.accuracy.SET` of one; `corruption.accuracy` over the grid, `.KIND`, `.SEVERITY` or `.KIND.SEVERITY` of a part
    of it; both are there for `nll` and `ece`. `spurious.accuracy.SET` is on one set. `spectral.high_band_energy.N` and
    `spectral.map_error.N` are after block N of the image tower; behind the metrics by rank `.penultimate` and `.text`
    say which features are meant, if not the image's own.

    Raises:
        InputError: There is no such metric. The message has the nearest valid name.

    Example:
        >>> lookup("ood.auroc.knn.far").better
        'higher'
    """
    if name in _METRICS:
        return _METRICS[name]
    parsed = MetricName.parse(name)
    found = _FINDERS[parsed.family](parsed)
    if found is None or canonical(name) not in (name, f"{name}.{PRIMARY_SCORE}"):
        hint = "one set: ood.auroc.mcm.SET; one class: recall.CLASS; one block: spectral.high_band_energy.3"
        hint += "; other bins: ece.20"
        raise unknown("metric", name, names(), hint=hint)
    if found.name != name:
        return replace(found, name=name, header=found.header.removesuffix(f" {PRIMARY_SCORE}"))
    return found


def _find_prediction(name: MetricName) -> Metric | None:
    """Return a calibration metric with the logit scale refitted, or with another number of bins."""
    plain = prediction_metrics.find(name)
    if plain is None or plain.aspect != "calibration":
        return None
    if not name.rescaled:
        return replace(plain, name=str(name))
    return replace(
        plain,
        name=str(name),
        header=f"rescaled {plain.header}",
        help=f"{plain.help}, the logit scale refitted on held-out calibration images",
        needs=frozenset({"labels"}),
    )


def _find_recall(name: MetricName) -> Metric:
    return Metric(
        name=str(name),
        aspect="accuracy",
        better="higher",
        header=f"recall {name.part}",
        help="recall of one class",
        spread=_METRICS["accuracy"].spread,
        proportion=True,
    )


_FINDERS: dict[str, Callable[[MetricName], Metric | None]] = {
    "prediction": _find_prediction,
    "recall": _find_recall,
    "ood": ood.find,
    "shift": set_metrics.find,
    "corruption": set_metrics.find,
    "spurious": set_metrics.find_spurious,
    "spectral": spectral_metrics.find,
}


def canonical(name: str) -> str:
    """Return the name under which a measurement stores the metric: the short OOD forms spelled out.

    Example:
        >>> canonical("ood.auroc"), canonical("ece")
        ('ood.auroc.mcm', 'ece')
    """
    return str(MetricName.parse(name))


def names() -> list[str]:
    """Return every name that is valid for any benchmark, aspect by aspect.

    Example:
        >>> names()[:3]
        ['accuracy', 'top5_accuracy', 'balanced_accuracy']
    """
    short = [f"ood.{statistic}" for statistic in OOD_STATISTICS]
    scored = [f"{name}.{score}" for name in short for score in OOD_SCORES]
    return [*_METRICS, *RESCALED_METRICS, *set_metrics.MEANS, *short, *scored]


def of_aspect(aspect: str) -> list[str]:
    """Return the names of one aspect that are valid for any benchmark.

    Example:
        >>> of_aspect("ood")[0]
        'ood.auroc'
    """
    return [name for name in names() if lookup(name).aspect == aspect]


def image_sets(name: str, available: Iterable[str]) -> list[str]:
    """Return the image sets that a metric is measured on.

    Args:
        name: The name of a metric.
        available: The full names of the image sets that there are.

    Returns:
        Some of the available ones; none if the metric cannot be measured.

    Example:
        >>> image_sets("ood.auroc.mcm.near", ["in_distribution", "ood.near.letters", "ood.far.photos"])
        ['ood.near.letters']
    """
    metric = MetricName.parse(name)
    belongs = _BELONGS.get(metric.family)
    if belongs is None:
        return [of for of in available if of == "in_distribution"]
    sets = {of: parsed for of in available if (parsed := SetName.parse(of)).category == metric.family}
    if str(metric) in _OF_PAIR:
        pair = [f"{metric.family}.{of}" for of in set_metrics.SPURIOUS_PAIR]
        return pair if sets.keys() >= set(pair) else []
    return [of for of, parsed in sets.items() if not metric.part or belongs(metric.part, parsed)]


def parts(name: str, classes: Iterable[str], available: Iterable[str]) -> list[str]:
    """Return what may end a metric's name on a benchmark.

    Args:
        name: The name of a metric on one class, or on image sets.
        classes: The names of the benchmark's classes.
        available: The full names of its image sets.

    Returns:
        Names of classes; or of image sets, and of groups of them.

    Example:
        >>> parts("ood.auroc.mcm.lettres", [], ["in_distribution", "ood.near.letters"])
        ['near', 'letters']
        >>> parts("corruption.ece", [], ["corruption.fog.1", "corruption.fog.3"])
        ['fog', '1', 'fog.1', '3', 'fog.3']
    """
    metric = MetricName.parse(name)
    if metric.family == "recall":
        return list(dict.fromkeys(classes))
    found: dict[str, None] = {}
    for of in map(SetName.parse, available):
        if of.category == metric.family:
            found.update(dict.fromkeys(filter(None, (of.group, of.name))))
            if of.category == "corruption":
                found[f"{of.group}.{of.name}"] = None
    return list(found)


def with_other_scores(name: str) -> list[str]:
    """Return the same OOD metric with each other score.

    Example:
        >>> with_other_scores("ood.auroc")[:2]
        ['ood.auroc.msp', 'ood.auroc.maxlogit']
        >>> with_other_scores("ece")
        []
    """
    metric = MetricName.parse(name)
    if metric.family != "ood":
        return []
    return [str(replace(metric, score=score)) for score in OOD_SCORES if score != metric.score]


# Whether the part of a metric's name means an image set, by the family of the metric.
_BELONGS: dict[str, Callable[[str, SetName], bool]] = {
    "ood": lambda part, of: part == (of.group if part in NEAR_FAR else of.name),
    "shift": lambda part, of: part == of.name,
    "corruption": lambda part, of: {*part.split(".")} <= {of.group, of.name},
    "spurious": lambda part, of: part == of.name,
}
_OF_PAIR = ("spurious.gap", "spurious.vulnerability")


def is_distance(name: str) -> bool:
    """Return whether a metric measures how far a model is from full precision.

    Two models cannot differ in such a metric.

    Example:
        >>> is_distance("kl"), is_distance("nll")
        (True, False)
    """
    return lookup(name).distance


def names_image_set(name: str) -> bool:
    """Return whether a metric is on image sets that it names, and that not every benchmark calls so.

    Example:
        >>> names_image_set("shift.accuracy.sketch"), names_image_set("ood.auroc.mcm.near")
        (True, False)
    """
    metric = MetricName.parse(name)
    everywhere = {"ood": NEAR_FAR, "shift": (), "corruption": (), "spurious": set_metrics.SPURIOUS_PAIR}
    return bool(metric.part) and metric.part not in everywhere.get(metric.family, (metric.part,))
