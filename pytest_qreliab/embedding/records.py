"""The embeddings of one benchmark by one model, as arrays.

A model has features of every image set, and recorded outputs have features or logits: two kinds of outputs, and two
kinds of embeddings that hold one kind throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Blocks:
    """The Fourier spectra of the maps after each block of an image tower, over one image set."""

    power: tuple[npt.NDArray[np.float64], ...]  # the mean power map of each block, (rows, columns)
    shares: npt.NDArray[np.float64]  # (n, blocks), the high-band energy shares
    last: npt.NDArray[np.float32]  # (n, rows, columns), the power map of each image after the last block


@dataclass(frozen=True, kw_only=True)
class FeatureOutputs:
    """The features of one image set, and what else the image tower was asked for and shows."""

    features: npt.NDArray[np.float32]  # (n, dim), not normalised
    # (n,), the maximum over patches and classes of the log-softmax, at temperature 1, of the local features' cosines.
    local: npt.NDArray[np.float64] | None = None
    # Of the in-distribution set alone:
    high_band: npt.NDArray[np.float64] | None = None  # (n,), the high-band energy share of the last patch map
    blocks: Blocks | None = None
    penultimate: npt.NDArray[np.float32] | None = None  # (n, width)
    sensitivity: npt.NDArray[np.float64] | None = None  # (images, gratings), of some of the images to gratings

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class LogitOutputs:
    """The recorded logits or probabilities of one image set."""

    values: npt.NDArray[np.float32]  # (n, classes)
    floor: float | None = None  # a probability of 0 in logarithms; None: the values are logits

    def __len__(self) -> int:
        return len(self.values)


OutputsT = TypeVar("OutputsT", FeatureOutputs, LogitOutputs)


@dataclass(frozen=True, kw_only=True)
class LabelledEmbeddings(Generic[OutputsT]):
    """The outputs for a shifted, corrupted or spurious image set, with its labels."""

    images: OutputsT
    labels: npt.NDArray[np.int64]  # (n,), indices of the benchmark's classes
    candidates: npt.NDArray[np.int64] | None = None  # the only classes that a prediction may name; None: all


@dataclass(frozen=True, kw_only=True)
class CalibrationEmbeddings(Generic[OutputsT]):
    """The outputs for the calibration images."""

    images: OutputsT
    labels: npt.NDArray[np.int64] | None  # (n,), if the images have any
    held_out: npt.NDArray[np.bool_]  # (n,), the images that no quantizer has looked at


@dataclass(frozen=True, kw_only=True)
class EmbeddedSets(Generic[OutputsT]):
    """The outputs for the image sets of one benchmark, as far as they were asked for."""

    in_distribution: OutputsT
    labels: npt.NDArray[np.int64]  # (n,), of the in-distribution images
    ood: Mapping[str, OutputsT]
    near: frozenset[str] = frozenset()  # the OOD sets that are near
    calibration: CalibrationEmbeddings[OutputsT] | None = None
    labelled: Mapping[str, LabelledEmbeddings[OutputsT]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()  # what a reader of the results should know


@dataclass(frozen=True, kw_only=True)
class FeatureEmbeddings(EmbeddedSets[FeatureOutputs]):
    """The features of one benchmark, and what turns them into logits."""

    classifier: npt.NDArray[np.float32]  # (classes, dim), the text features of the classes, unit rows
    logit_scale: float
    logit_bias: float
    negatives: npt.NDArray[np.float32] | None = None  # (m, dim), those of the negative labels


@dataclass(frozen=True, kw_only=True)
class LogitEmbeddings(EmbeddedSets[LogitOutputs]):
    """The recorded logits or probabilities of one benchmark."""

    logit_scale: float | None
    logit_bias: float


Embeddings = FeatureEmbeddings | LogitEmbeddings
