"""The measurement of one model on one benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pytest_qreliab.embedding.records import Blocks
from pytest_qreliab.metrics import ood, registry
from pytest_qreliab.metrics.classification import Predictions
from pytest_qreliab.metrics.rank import Spectrum
from pytest_qreliab.statistics.arrays import FloatArray

Features = npt.NDArray[np.floating]
# The name of the in-distribution samples among the groups of an estimate; no OOD set can be called so.
ID = "in distribution"


@dataclass(frozen=True)
class Measurement:
    """Values by metric name; a value that cannot be had is NaN, and `problems` says why.

    What they came from is there only where it is finite: the predictions on the in-distribution samples, those with the
    logit scale refitted, the high-band energy share of each, the scores, by OOD score, and by set, the predictions
    on further labelled sets, which are without logits, by the full name of the set, and the `features` whose spectra
    are looked at: of the images (""), `penultimate`, and of the classes (`text`).
    """

    classes: Sequence[str]
    samples: int
    near: frozenset[str] = frozenset()
    values: dict[str, float] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    predictions: Predictions | None = None
    rescaled: Predictions | None = None
    high_band: FloatArray | None = None
    id_scores: dict[str, FloatArray] = field(default_factory=dict)
    ood_scores: dict[str, dict[str, FloatArray]] = field(default_factory=dict)
    labelled: dict[str, Predictions] = field(default_factory=dict)
    features: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    blocks: Blocks | None = None
    sensitivity: FloatArray | None = None

    @cached_property
    def _spectra(self) -> dict[str, Spectrum]:
        return {}

    def spectrum(self, part: str) -> Spectrum:
        """The directions in which the features of that part vary, found once."""
        if part not in self._spectra:
            self._spectra[part] = Spectrum.fit(self.features[part])
        return self._spectra[part]

    @cached_property
    def _ranked(self) -> dict[tuple[str, str], ood.SortedScores]:
        return {}

    def ranked(self, score: str, name: str) -> ood.SortedScores:
        """One score of the in-distribution samples and of an OOD set, sorted once for all statistics."""
        key = score, name
        if key not in self._ranked:
            self._ranked[key] = ood.SortedScores(self.id_scores[score], self.ood_scores[score][name])
        return self._ranked[key]

    def ood_sets(self, name: str) -> tuple[str, str, list[str]]:
        """The statistic, the score and the sets that an OOD metric is the mean over."""
        _, statistic, score, *only = registry.canonical(name).split(".", 3)
        sets = list(self.ood_scores.get(score, ()))
        if not only:
            return statistic, score, sets
        if only[0] in registry.NEAR_FAR:
            return statistic, score, [name for name in sets if (name in self.near) == (only[0] == "near")]
        return statistic, score, only
