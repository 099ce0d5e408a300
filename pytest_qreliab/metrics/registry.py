"""What each metric is called, which aspect it belongs to and which way is better. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pytest_qreliab.errors import unknown

Direction = Literal["higher", "lower", "neither"]

ASPECTS = ("accuracy", "calibration", "ood", "spectrum")

OOD_SCORES = ("msp", "maxlogit", "energy", "mcm")
PRIMARY_SCORE = "mcm"


@dataclass(frozen=True)
class Metric:
    """One metric: `better` says which direction is an improvement, "neither" that any move is harm."""

    name: str
    aspect: str
    better: Direction
    header: str
    help: str


_METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", "higher", "accuracy", "top-1 accuracy"),
        Metric("balanced_accuracy", "accuracy", "higher", "balanced accuracy", "mean over classes of the recall"),
        Metric("nll", "calibration", "lower", "NLL", "mean negative log-likelihood of the true class, nats"),
        Metric("ece", "calibration", "lower", "ECE", "expected calibration error, 15 equal-width bins (lo, hi]"),
        Metric(
            "confidence_gap",
            "calibration",
            "neither",
            "confidence gap",
            "mean confidence minus accuracy: positive is overconfident",
        ),
        Metric(
            "spectral.high_band_energy",
            "spectrum",
            "neither",
            "high-band energy",
            "share of the patch map's non-DC power above half the Nyquist radius",
        ),
        Metric(
            "spectral.effective_rank",
            "spectrum",
            "neither",
            "effective rank",
            "exp of the entropy of the squared singular values of the centred image features",
        ),
    )
}

_OOD: dict[str, tuple[Direction, str]] = {
    "auroc": ("higher", "AUROC of OOD against ID, ties count one half"),
    "fpr95": ("lower", "share of OOD samples accepted where 95 % of the ID samples are (ID positive)"),
}


OOD_STATISTICS = tuple(_OOD)


def lookup(name: str) -> Metric:
    """The metric of that name.

    OOD metrics are `ood.STATISTIC.SCORE` (mean over the benchmark's OOD sets) and
    `ood.STATISTIC.SCORE.SET`; `ood.auroc` and `ood.fpr95` are short for the `mcm` score.

    Raises InputError, with the nearest valid name, when there is none.
    """
    if name in _METRICS:
        return _METRICS[name]
    parts = name.split(".", 3)
    if len(parts) >= 2 and parts[0] == "ood" and parts[1] in _OOD and (len(parts) < 3 or parts[2] in OOD_SCORES):
        better, text = _OOD[parts[1]]
        return Metric(name, "ood", better, " ".join(["OOD", parts[1].upper(), *parts[2:]]), text)
    raise unknown("metric", name, names(), hint="one OOD set: ood.auroc.mcm.SET")


def canonical(name: str) -> str:
    """The name under which a measurement stores the metric: the short OOD forms spelled out."""
    parts = name.split(".")
    return f"{name}.{PRIMARY_SCORE}" if parts[0] == "ood" and len(parts) == 2 else name


def names() -> list[str]:
    """Every name that is valid for any benchmark, aspect by aspect."""
    ood = [f"ood.{statistic}" for statistic in OOD_STATISTICS]
    ood += [f"{name}.{score}" for name in ood for score in OOD_SCORES]
    fixed = [metric.name for metric in _METRICS.values()]
    return [*fixed, *ood]
