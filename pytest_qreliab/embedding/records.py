"""The embeddings of one benchmark by one model, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Blocks:
    """The Fourier spectra of the maps after each block of an image tower, over one image set.

    `power` holds the mean power map of each block, float64 (rows, columns), `shares` the high-band energy shares,
    float64 (n, blocks), and `last` the power map of each image after the last block, float32 (n, rows, columns).
    """

    power: tuple[npt.NDArray[np.float64], ...]
    shares: npt.NDArray[np.float64]
    last: npt.NDArray[np.float32]


@dataclass(frozen=True)
class ImageEmbeddings:
    """Of one image set: features, float32 (n, dim), not normalised.

    Of the in-distribution set also the high-band energy share of the last patch map, float64 (n,), and, where they
    were asked for, the `blocks` and the `penultimate` features, float32 (n, width), None where the tower shows none,
    and the `sensitivity` of some of the images to gratings, float64 (images, gratings).
    Recorded outputs may hold `logits`, float32 (n, classes), in the place of features. `local`, float64 (n,), is the
    maximum over patches and classes of the log-softmax, at temperature 1, of the cosines of the local features; None
    where it was not asked for, or the image tower shows none.
    """

    features: npt.NDArray[np.float32] | None
    high_band: npt.NDArray[np.float64] | None = None
    local: npt.NDArray[np.float64] | None = None
    logits: npt.NDArray[np.float32] | None = None
    blocks: Blocks | None = None
    penultimate: npt.NDArray[np.float32] | None = None
    sensitivity: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        values = self.logits if self.features is None else self.features
        assert values is not None
        return len(values)


@dataclass(frozen=True)
class LabelledEmbeddings:
    """Of a further image set with int64 labels (n,). Where `among`, int64, is given, only those classes are told
    apart."""

    images: ImageEmbeddings
    labels: npt.NDArray[np.int64]
    among: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class CalibrationEmbeddings:
    """Of the calibration images: features, float32 (n, dim), not normalised, and int64 labels (n,), if they have any.

    `held_out`, bool (n,), tells the images that no quantizer has looked at. Recorded outputs may hold `logits`, float32
    (n, classes), in the place of features.
    """

    features: npt.NDArray[np.float32] | None
    labels: npt.NDArray[np.int64] | None
    held_out: npt.NDArray[np.bool_]
    logits: npt.NDArray[np.float32] | None = None

    @property
    def images(self) -> ImageEmbeddings:
        return ImageEmbeddings(self.features, logits=self.logits)


@dataclass(frozen=True)
class Embeddings:
    """Of one benchmark: `classifier` is float32 (classes, dim), unit rows; `labels` int64 (n,) index it.

    `negatives` is the same of the negative labels, (m, dim). That, `calibration` and further `labelled` sets are there
    where they were asked for and the benchmark has them. `near` names the OOD sets that are near. Recorded logits come
    without a classifier, and perhaps without the logit scale; `probabilities` says that they are known up to a constant
    of each sample only.
    """

    in_distribution: ImageEmbeddings
    labels: npt.NDArray[np.int64]
    ood: Mapping[str, ImageEmbeddings]
    classifier: npt.NDArray[np.float32] | None
    logit_scale: float | None
    logit_bias: float
    negatives: npt.NDArray[np.float32] | None = None
    calibration: CalibrationEmbeddings | None = None
    near: frozenset[str] = frozenset()
    labelled: Mapping[str, LabelledEmbeddings] = field(default_factory=dict)
    probabilities: bool = False
