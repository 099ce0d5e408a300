"""The measurement of one model on one benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pytest_qreliab.embedding.records import Blocks
from pytest_qreliab.metrics.classification import Predictions
from pytest_qreliab.metrics.names import NEAR_FAR, MetricName
from pytest_qreliab.metrics.ood import SortedScores
from pytest_qreliab.metrics.rank import Spectrum
from pytest_qreliab.statistics.arrays import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The values of all metrics of one model, and the per-sample records that they come from.

    A record is there only if it is finite.
    """

    classes: Sequence[str]  # those that have a recall, in label order
    samples: int  # in distribution
    near: frozenset[str] = frozenset()  # the OOD sets that are near
    values: dict[str, float] = field(default_factory=dict)  # by metric; NaN if there is a problem
    problems: dict[str, str] = field(default_factory=dict)  # by metric, why it has no value
    predictions: Predictions | None = None  # on the in-distribution samples
    rescaled: Predictions | None = None  # the same with the logit scale refitted
    high_band: FloatArray | None = None  # (n,), the high-band energy shares
    id_scores: dict[str, FloatArray] = field(default_factory=dict)  # by OOD score, (n,)
    ood_scores: dict[str, dict[str, FloatArray]] = field(default_factory=dict)  # by OOD score and set
    labelled: dict[str, Predictions] = field(default_factory=dict)  # on further sets, by full name, without logits
    candidates: Mapping[str, int] = field(default_factory=dict)  # the classes that a prediction there may name
    # The features whose spectra are looked at: of the images (""), `penultimate` and, of the classes, `text`.
    features: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    blocks: Blocks | None = None
    sensitivity: FloatArray | None = None  # (images, gratings)
    units: Mapping[str, IntArray] = field(default_factory=dict)  # what each sample shows, by the full name of the set
    warnings: tuple[str, ...] = ()  # what a reader of the results should know

    @cached_property
    def _spectra(self) -> dict[str, Spectrum]:
        return {}

    def spectrum(self, part: str) -> Spectrum:
        """Return the directions in which the features of that part vary, fitted once."""
        if part not in self._spectra:
            self._spectra[part] = Spectrum.fit(self.features[part])
        return self._spectra[part]

    @cached_property
    def _ranked(self) -> dict[tuple[str, str], SortedScores]:
        return {}

    def ranked(self, score: str, name: str) -> SortedScores:
        """Return one score of the in-distribution samples and of an OOD set, sorted once for all statistics."""
        key = score, name
        if key not in self._ranked:
            self._ranked[key] = SortedScores(self.id_scores[score], self.ood_scores[score][name])
        return self._ranked[key]

    def ood_sets(self, name: MetricName) -> list[str]:
        """Return the OOD sets that a metric is the mean over."""
        sets = list(self.ood_scores.get(name.score, ()))
        if not name.part:
            return sets
        if name.part in NEAR_FAR:
            return [of for of in sets if (of in self.near) == (name.part == "near")]
        return [name.part]
