"""What each metric is called, which aspect it belongs to and which way is better. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pytest_qreliab.errors import unknown

Direction = Literal["higher", "lower", "neither"]
Need = Literal[
    "labels",
    "calibration",
    "negatives",
    "local",
    "shift",
    "corruption",
    "spurious",
    "blocks",
    "penultimate",
    "gratings",
    "weights",
]

ASPECTS = ("accuracy", "calibration", "robustness", "ood", "spectrum")


@dataclass(frozen=True)
class Metric:
    """One metric: `better` says which direction is an improvement, "neither" that any move is harm.

    `spread` is the standard error of its change, times the root of the number of samples, as
    benchmarks/studies/spreads.py measures it for minmax w4a8 of a CLIP trained on CIFAR-10: with it a plan tells,
    before anything has run, what it can see. None where no interval is computed. `needs` is what it is measured
    with beyond the in-distribution and OOD images: "calibration" images, those with "labels", "negatives" (class
    names that are none), "local" features of patches, "shift", "corruption" or "spurious" image sets, spectra of
    all "blocks", "penultimate" features, images with "gratings" added, or the "weights" of both models.
    """

    name: str
    aspect: str
    better: Direction
    header: str
    help: str
    spread: float | None = None
    needs: frozenset[Need] = frozenset()

    def harm(self, change: float) -> float:
        """The change turned so that positive is worse."""
        return {"higher": -change, "lower": change, "neither": abs(change)}[self.better]


RANK_BANDS = ("low_rank", "mid_rank", "high_rank")
GRATINGS = {"low": 1 / 16, "mid": 1 / 4, "high": 7 / 16}  # cycles per pixel of the image as the model sees it
WITH_GRATINGS = 128  # images, at most, that gratings are added to
FEATURES = ("penultimate", "text")  # after the name of a metric by rank: other features than the image's own
_OF_BAND = {"low_rank": "the first ranks", "mid_rank": "the middle ranks", "high_rank": "the last ranks"}
# The spreads of what is of all ranks and of each band.
_SQNR_SPREADS, _RESIDUAL_SPREADS, _ACCURACY_SPREADS = (
    (2.6, 13.0, 8.5, 3.4),
    (0.016, 0.013, 0.036, 1.9),
    (0.23, 0.16, 0.29),
)


def _by_rank() -> Iterator[Metric]:
    """The metrics of features and weights by rank."""
    varies = "of the centred image features"
    yield Metric(
        "spectral.effective_rank",
        "spectrum",
        "neither",
        "effective rank",
        f"exp of the entropy of the squared singular values {varies}",
        0.85,
    )
    yield Metric(
        "spectral.stable_rank",
        "spectrum",
        "neither",
        "stable rank",
        f"sum over maximum of the squared singular values {varies}",
        0.61,
    )
    yield Metric(
        "spectral.participation_ratio",
        "spectrum",
        "neither",
        "participation ratio",
        f"squared sum over sum of squares of the squared singular values {varies}",
        0.96,
    )
    for index, band in enumerate(("", *RANK_BANDS)):
        name, header = (f"_{band}", f" {band.replace('_', ' ')}") if band else ("", "")
        of = f", along {_OF_BAND[band]} of full precision" if band else ""
        text = f"mean squares of the centred image features over those of what quantization adds to them, dB{of}"
        yield Metric(f"spectral.sqnr{name}", "spectrum", "higher", f"SQNR{header}", text, _SQNR_SPREADS[index])
        text = f"mean squares of what quantization adds to the image features over those of the features, centred{of}"
        yield Metric(
            f"spectral.residual{name}", "spectrum", "lower", f"residual{header}", text, _RESIDUAL_SPREADS[index]
        )
    for band, spread in zip(RANK_BANDS, _ACCURACY_SPREADS, strict=True):
        text = f"top-1 accuracy of {_OF_BAND[band]} of the image features alone"
        yield Metric(
            f"spectral.accuracy_{band}", "spectrum", "higher", f"accuracy {band.replace('_', ' ')}", text, spread
        )
    yield Metric(
        "spectral.cka", "spectrum", "higher", "CKA", "linear CKA of the image features with full precision's", 0.012
    )
    yield Metric(
        "spectral.principal_angle",
        "spectrum",
        "lower",
        "principal angle",
        "largest angle of the first ranks to those of full precision, degrees",
    )
    for (which, frequency), spread in zip(GRATINGS.items(), (0.12, 0.19, 0.081), strict=True):
        text = f"relative change of the image features by gratings of {frequency:g} cycles per pixel, over their RMS"
        yield Metric(
            f"spectral.sensitivity_{which}",
            "spectrum",
            "neither",
            f"sensitivity {which}",
            text,
            spread,
            frozenset({"gratings"}),
        )
    weights: frozenset[Need] = frozenset({"weights"})
    for band in ("", *RANK_BANDS):
        name, header = (f"_{band}", f" {band.replace('_', ' ')}") if band else ("", "")
        of = f", along {_OF_BAND[band]} of each" if band else ""
        text = f"root of the squared errors of all weights over their squares{of}"
        yield Metric(f"spectral.weight_error{name}", "spectrum", "lower", f"weight error{header}", text, needs=weights)
    text = "mean over the weights of their effective rank, over that in full precision"
    yield Metric("spectral.weight_rank", "spectrum", "neither", "weight rank", text, needs=weights)


_GAP = "relative spurious gap, (A(common) - A(counter)) / A(common)"
_V = "relative accuracy drop by quantization on counter images, less that on common ones"

_METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", "higher", "accuracy", "top-1 accuracy", 0.23),
        Metric(
            "top5_accuracy", "accuracy", "higher", "top-5 accuracy", "share with the label among the five best", 0.1
        ),
        Metric("balanced_accuracy", "accuracy", "higher", "balanced accuracy", "mean over classes of the recall", 0.23),
        Metric("agreement", "accuracy", "higher", "agreement", "share predicted as by the baseline", 0.26),
        Metric("flips.lost", "accuracy", "lower", "flips lost", "share right in the baseline, wrong here", 0.17),
        Metric("flips.gained", "accuracy", "lower", "flips gained", "share wrong in the baseline, right here", 0.16),
        Metric(
            "kl", "accuracy", "lower", "KL", "mean KL divergence of the probabilities from the baseline's, nats", 0.03
        ),
        Metric("nll", "calibration", "lower", "NLL", "mean negative log-likelihood of the true class, nats", 0.18),
        Metric("brier", "calibration", "lower", "Brier", "mean squared distance to the one-hot label, 0 to 2", 0.09),
        Metric(
            "brier.reliability",
            "calibration",
            "lower",
            "Brier reliability",
            "what the Brier score owes to miscalibration: squared gaps of 15 bins, summed over classes",
            0.12,
        ),
        Metric(
            "brier.resolution",
            "calibration",
            "higher",
            "Brier resolution",
            "what the Brier score gains by telling samples apart: 15 bins, summed over classes",
            0.14,
        ),
        Metric("ece", "calibration", "lower", "ECE", "expected calibration error, 15 equal-width bins (lo, hi]", 0.32),
        Metric(
            "ece.equal_mass", "calibration", "lower", "ECE equal mass", "ECE in 15 bins of as many samples each", 0.31
        ),
        Metric(
            "ece.debiased",
            "calibration",
            "lower",
            "ECE debiased",
            "ECE less what chance adds to it: 0 on average when perfectly calibrated",
            0.44,
        ),
        Metric(
            "ece.classwise", "calibration", "lower", "ECE classwise", "mean over classes of the ECE of that class", 0.05
        ),
        Metric("mce", "calibration", "lower", "MCE", "largest gap of confidence and accuracy in a bin"),
        Metric(
            "confidence_gap",
            "calibration",
            "neither",
            "confidence gap",
            "mean confidence minus accuracy: positive is overconfident",
            0.24,
        ),
        Metric("aurc", "calibration", "lower", "AURC", "area under the risk-coverage curve", 0.09),
        Metric("eaurc", "calibration", "lower", "E-AURC", "AURC above the least that the accuracy allows", 0.11),
        Metric("spurious.gap", "robustness", "lower", "spurious gap", _GAP, 0.79, frozenset({"spurious"})),
        Metric(
            "spurious.vulnerability", "robustness", "lower", "spurious vulnerability", _V, 0.76, frozenset({"spurious"})
        ),
        Metric(
            "spurious.worst_group",
            "robustness",
            "higher",
            "worst group",
            "accuracy in the group where it is least",
            0.35,
            frozenset({"spurious"}),
        ),
        Metric(
            "spectral.high_band_energy",
            "spectrum",
            "neither",
            "high-band energy",
            "share of the patch map's non-DC power above half the Nyquist radius",
            0.006,
        ),
        Metric(
            "spectral.map_error",
            "spectrum",
            "lower",
            "map error",
            "mean over frequencies of the relative change of the patch map's power",
            0.011,
            frozenset({"blocks"}),
        ),
        *_by_rank(),
    )
}

BAND_ACCURACIES = tuple(f"spectral.accuracy_{band}" for band in RANK_BANDS)
# The metrics by rank that other features than the image's have as well.
BY_RANK = tuple(m.name for m in _by_rank() if not m.needs and m.name not in BAND_ACCURACIES)

# The calibration metrics with the logit scale of both models refitted on held-out calibration images.
RESCALED = "rescaled."
RESCALED_METRICS = tuple(RESCALED + name for name, metric in _METRICS.items() if metric.aspect == "calibration")
RECALL = "recall."

OOD_SCORES: dict[str, frozenset[Need]] = {
    "msp": frozenset(),
    "maxlogit": frozenset(),
    "energy": frozenset(),
    "mcm": frozenset(),
    "gl-mcm": frozenset({"local"}),
    "neglabel": frozenset({"negatives"}),
    "mahalanobis": frozenset({"labels"}),
    "knn": frozenset({"calibration"}),
}
PRIMARY_SCORE = "mcm"
NEAR_FAR = ("near", "far")

# Metrics on further labelled sets, the mean over all and of each set, with the spreads of both.
_ON_SETS: dict[str, tuple[Direction, str, str, tuple[float, float]]] = {
    "shift.accuracy": (
        "higher",
        "shift accuracy",
        "accuracy under covariate shift, mean over the shifted sets",
        (0.23, 0.23),
    ),
    "shift.nll": (
        "lower",
        "shift NLL",
        "NLL under covariate shift, nats, mean over the shifted sets",
        (0.36, 0.36),
    ),
    "shift.ece": ("lower", "shift ECE", "ECE under covariate shift, mean over the shifted sets", (0.32, 0.32)),
    # The grid is of the same images, whose changes even out over its cells.
    "corruption.accuracy": (
        "higher",
        "corruption accuracy",
        "accuracy under corruption, mean over the grid",
        (0.07, 0.32),
    ),
    "corruption.nll": ("lower", "corruption NLL", "NLL under corruption, nats, mean over the grid", (0.13, 0.57)),
    "corruption.ece": ("lower", "corruption ECE", "ECE under corruption, mean over the grid", (0.12, 0.5)),
}
SPURIOUS_ACCURACY = "spurious.accuracy."

_OOD: dict[str, tuple[Direction, str, float]] = {
    "auroc": ("higher", "AUROC of OOD against ID, ties count one half", 0.09),
    "aupr_in": ("higher", "average precision with ID as the positive class", 0.04),
    "aupr_out": ("higher", "average precision with OOD as the positive class", 0.15),
    "fpr95": ("lower", "share of OOD samples accepted where 95 % of the ID samples are (ID positive)", 0.25),
    "fpr95_out": ("lower", "share of ID samples rejected where 95 % of the OOD samples are (OOD positive)", 0.26),
}
OOD_STATISTICS = tuple(_OOD)


def lookup(name: str) -> Metric:
    """The metric of that name.

    OOD metrics are `ood.STATISTIC.SCORE` (mean over the benchmark's OOD sets), `ood.STATISTIC.SCORE.near` and `.far`
    (over those sets alone) and `ood.STATISTIC.SCORE.SET`; `ood.auroc` is short for the `mcm` score. `rescaled.` goes
    before a calibration metric, and `recall.CLASS` is one class's. `shift.accuracy` is the mean over the shifted sets,
    `shift.accuracy.SET` of one; `corruption.accuracy` over the grid, `.KIND`, `.SEVERITY` or `.KIND.SEVERITY` of a part
    of it; both are there for `nll` and `ece`. `spurious.accuracy.SET` is on one set. `spectral.high_band_energy.N` and
    `spectral.map_error.N` are after block N of the image tower; behind the metrics by rank `.penultimate` and `.text`
    say which features are meant, if not the image's own.

    Raises InputError, with the nearest valid name, when there is none.
    """
    if name in _METRICS:
        return _METRICS[name]
    if name in RESCALED_METRICS:
        plain = _METRICS[name.removeprefix(RESCALED)]
        text = plain.help + ", the logit scale refitted on held-out calibration images"
        return replace(plain, name=name, header="rescaled " + plain.header, help=text, needs=frozenset({"labels"}))
    if name.startswith(RECALL) and name != RECALL:
        spread = _METRICS["accuracy"].spread
        return Metric(name, "accuracy", "higher", "recall " + name[len(RECALL) :], "recall of one class", spread)
    if name.startswith(SPURIOUS_ACCURACY) and name != SPURIOUS_ACCURACY:
        of = name[len(SPURIOUS_ACCURACY) :]
        text = "accuracy on one set of images with a spurious cue"
        return Metric(name, "robustness", "higher", f"spurious {of} accuracy", text, 0.23, frozenset({"spurious"}))
    if name.startswith("spectral.") and (found := _of_part(name)) is not None:
        return found
    parts = name.split(".", 3)
    if (stem := ".".join(parts[:2])) in _ON_SETS and _part_of_grid(name):
        better, header, text, (of_all, of_one) = _ON_SETS[stem]
        spread = of_one if len(parts) > 2 else of_all
        header = " ".join([header, *parts[2:]])
        need: Need = "shift" if parts[0] == "shift" else "corruption"
        return Metric(name, "robustness", better, header, text, spread, frozenset({need}))
    if len(parts) >= 2 and parts[0] == "ood" and parts[1] in _OOD and (len(parts) < 3 or parts[2] in OOD_SCORES):
        better, text, spread = _OOD[parts[1]]
        header = " ".join(["OOD", parts[1].upper(), *parts[2:]])
        score = parts[2] if len(parts) > 2 else PRIMARY_SCORE
        return Metric(name, "ood", better, header, text, spread, OOD_SCORES[score])
    hint = "one set: ood.auroc.mcm.SET; one class: recall.CLASS; one block: spectral.high_band_energy.3"
    raise unknown("metric", name, names(), hint=hint)


def _of_part(name: str) -> Metric | None:
    """A spectral metric of one block, counted from 1, or of other features than those of the image."""
    stem, _, part = name.rpartition(".")
    if stem in ("spectral.high_band_energy", "spectral.map_error") and re.fullmatch("[1-9][0-9]*", part):
        return replace(
            _METRICS[stem],
            name=name,
            header=f"{_METRICS[stem].header} {part}",
            help=f"{_METRICS[stem].help}, after block {part}",
            # Of each image the power map after the last block alone is kept.
            spread=None if "error" in stem else _METRICS[stem].spread,
            needs=frozenset({"blocks"}),
        )
    if stem in BY_RANK and part in FEATURES:
        of_text = part == "text"
        features = "text features of the classes" if of_text else "penultimate image features"
        return replace(
            _METRICS[stem],
            name=name,
            header=f"{_METRICS[stem].header} {part}",
            help=_METRICS[stem].help.replace("image features", features),
            # Classes are no samples of a population.
            spread=None if of_text else _METRICS[stem].spread,
            needs=frozenset() if of_text else frozenset({"penultimate"}),
        )
    return None


def canonical(name: str) -> str:
    """The name under which a measurement stores the metric: the short OOD forms spelled out."""
    parts = name.split(".")
    return f"{name}.{PRIMARY_SCORE}" if parts[0] == "ood" and len(parts) == 2 else name


def names() -> list[str]:
    """Every name that is valid for any benchmark, aspect by aspect."""
    ood = [f"ood.{statistic}" for statistic in OOD_STATISTICS]
    ood += [f"{name}.{score}" for name in ood for score in OOD_SCORES]
    return [*_METRICS, *RESCALED_METRICS, *_ON_SETS, *ood]


def image_sets(name: str, there: Iterable[str]) -> list[str]:
    """Which of the image sets that there are, by their full names, a metric is measured on; none if they do not do."""
    first, *rest = canonical(name).split(".")
    if first == "ood":
        only = rest[2:]
        found = [of for of in there if of.startswith("ood.")]
        if only and only[0] in NEAR_FAR:
            return [of for of in found if of.split(".")[1] == only[0]]
        return [of for of in found if not only or of.split(".", 2)[2] == only[0]]
    if first == "shift":
        return [of for of in there if of.startswith("shift.") and rest[1:] in ([], [of.partition(".")[2]])]
    if first == "corruption":
        return [of for of in there if of.startswith("corruption.") and set(rest[1:]) <= set(of.split(".")[1:])]
    if first == "spurious":
        found = [of for of in there if of.startswith("spurious.")]
        if rest[0] in ("gap", "vulnerability"):
            pair = [f"spurious.{of}" for of in ("common", "counter")]
            return pair if set(pair) <= set(found) else []
        return [of for of in found if rest[0] == "worst_group" or of == f"spurious.{rest[1]}"]
    return [of for of in there if of == "in_distribution"]


def is_distance(name: str) -> bool:
    """Whether it measures how far a model is from full precision, and so is nothing that two models differ in."""
    if lookup(name).aspect == "spectrum":
        statistic = name.split(".")[1]
        return statistic.startswith(("sqnr", "residual", "cka", "principal", "map_error", "weight", "accuracy"))
    return name in ("agreement", "flips.lost", "flips.gained", "kl", "spurious.vulnerability")


def names_image_set(name: str) -> bool:
    """Whether the metric is on image sets that it names, other than those that have a name in every benchmark."""
    parts = name.split(".")
    if parts[0] == "ood":
        return len(parts) > 3 and parts[3] not in NEAR_FAR
    return (parts[0] in ("shift", "corruption") and len(parts) > 2) or (
        name.startswith(SPURIOUS_ACCURACY) and parts[2] not in ("common", "counter")
    )


def _part_of_grid(name: str) -> bool:
    """Whether what follows the statistic names one set, or a kind, a severity, or both in that order."""
    first, _, *rest = name.split(".")
    if first == "shift":
        return len(rest) <= 1 and all(rest)
    return bool(re.fullmatch(r"(\.[a-z_]+)?(\.[1-5])?", "".join(f".{part}" for part in rest)))


def of_aspect(aspect: str) -> list[str]:
    """The names of one aspect that are valid for any benchmark."""
    return [name for name in names() if lookup(name).aspect == aspect]
