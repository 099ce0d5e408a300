"""The definition of a metric, and the words that describe it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from pytest_qreliab.statistics.interval import Bounds

Direction = Literal["higher", "lower", "neither"]
# What a run prepares for a metric beyond the in-distribution and OOD images: calibration images, those with labels,
# class names that are none (negatives), local features of patches, further image sets, the spectra of all blocks,
# penultimate features, images with gratings added, or the weights of both models.
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
# What a metric reads of a model that recorded outputs may not hold: logits with their constant, cosines, features, or
# the patch maps of the image tower.
Source = Literal["logits", "cosines", "features", "patches"]

ASPECTS = ("accuracy", "calibration", "robustness", "ood", "spectrum")

BINS = 15  # of confidence, if the name of a metric does not say another number
MOST_BINS = 100
RANK_BANDS = ("low_rank", "mid_rank", "high_rank")
GRATINGS = {"low": 1 / 16, "mid": 1 / 4, "high": 7 / 16}  # cycles per pixel of the image as the model sees it
WITH_GRATINGS = 128  # images, at most, that gratings are added to
FEATURES = ("penultimate", "text")  # after the name of a metric by rank: other features than the image's own
ID = "in distribution"  # the group of the in-distribution samples in an estimate; no OOD set can be called so


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric, and what a plan and a report say of it."""

    name: str
    aspect: str
    better: Direction  # which direction is an improvement; "neither": any move is harm
    header: str
    help: str
    # The standard error of its change, times the root of the number of samples, as benchmarks/studies/spreads.py
    # measures it for minmax w4a8 of a CLIP trained on CIFAR-10: with it a plan tells, before anything has run, what it
    # can see. None: no interval is computed.
    spread: float | None = None
    needs: frozenset[Need] = frozenset()
    reads: frozenset[Source] = frozenset()
    distance: bool = False  # how far a model is from full precision: nothing that two models can differ in
    # Only samples whose outcome differs move it: its spread is the root of the share of such samples.
    proportion: bool = False

    def harm(self, change: float) -> float:
        """Return the change turned so that positive is worse."""
        return {"higher": -change, "lower": change, "neither": abs(change)}[self.better]


class PairedBounds(NamedTuple):
    """The bounds on the change of a metric at any error probability, and their method in words."""

    bounds: Bounds
    method: str
