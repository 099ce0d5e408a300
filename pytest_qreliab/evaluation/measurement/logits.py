"""Logits of image sets, some rows at a time, from features or as they were recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from pytest_qreliab.embedding.records import (
    FeatureEmbeddings,
    FeatureOutputs,
    LogitEmbeddings,
    LogitOutputs,
    OutputsT,
)
from pytest_qreliab.metrics.classification import CHUNK_ROWS
from pytest_qreliab.metrics.ood_scores import ScoredSamples
from pytest_qreliab.statistics.arrays import FloatArray


class LogitSource(Protocol[OutputsT]):
    """A way from the outputs for an image set to logits."""

    @property
    def logit_scale(self) -> float | None:
        """Return the model's own factor of the cosines, if it is known."""
        ...

    def problem(self, images: OutputsT, name: str) -> str:
        """Return why the logits are no finite numbers; empty if they are."""
        ...

    def chunks(self, images: OutputsT, *, everything: bool = False) -> Iterator[tuple[slice, ScoredSamples]]:
        """Yield some samples at a time, with `everything` also what only some OOD scores read.

        The logits of 50,000 samples and 1,000 classes would take 400 MB.
        """
        ...

    def classes(self, images: OutputsT) -> int:
        """Return the number of classes."""
        ...

    def take(self, images: OutputsT, mask: npt.NDArray[np.bool_]) -> OutputsT:
        """Return the outputs for some of the samples."""
        ...

    def features(self, images: OutputsT) -> npt.NDArray[np.float32] | None:
        """Return the features, (n, dim), if there are any."""
        ...


@dataclass(frozen=True)
class FeatureLogits:
    """The logits of features, in float64: unit features times the classifier times the model's own logit scale."""

    embeddings: FeatureEmbeddings

    @property
    def logit_scale(self) -> float:
        """Return the model's own factor of the cosines."""
        return self.embeddings.logit_scale

    @cached_property
    def _classifier(self) -> torch.Tensor:
        return torch.from_numpy(self.embeddings.classifier).double()

    @cached_property
    def _negatives(self) -> torch.Tensor | None:
        negatives = self.embeddings.negatives
        return None if negatives is None else torch.from_numpy(_infinity_as_nan(negatives))

    def problem(self, images: FeatureOutputs, name: str) -> str:
        """Return what in the text or image features is not finite; empty if nothing is."""
        scale, bias, classifier = self.embeddings.logit_scale, self.embeddings.logit_bias, self.embeddings.classifier
        if not np.isfinite([scale, bias]).all():
            return f"NaN or infinity in the logit scale ({scale:g}) or bias ({bias:g})"
        bad_classes = int((~np.isfinite(classifier)).any(axis=1).sum())
        if bad_classes:
            return f"NaN or infinity in the text features of {bad_classes} of {len(classifier)} classes"
        return bad_features(images.features, f"{name} image features")

    def chunks(self, images: FeatureOutputs, *, everything: bool = False) -> Iterator[tuple[slice, ScoredSamples]]:
        """Yield some samples at a time."""
        scale, bias = self.embeddings.logit_scale, self.embeddings.logit_bias
        negatives = self._negatives if everything else None
        local = None if images.local is None or not everything else _infinity_as_nan(images.local)
        for rows in _slices(len(images)):
            # Zero vectors are problems.
            unit = F.normalize(torch.from_numpy(images.features[rows]).double(), dim=1, eps=0.0)
            cosines = unit @ self._classifier.T
            yield (
                rows,
                ScoredSamples(
                    logits=(scale * cosines).add_(bias),
                    cosines=cosines,
                    negative_logits=None if negatives is None else (unit @ negatives.T).mul_(scale).add_(bias),
                    local=None if local is None else local[rows],
                ),
            )

    def classes(self, images: FeatureOutputs) -> int:
        """Return the number of classes."""
        return len(self.embeddings.classifier)

    def take(self, images: FeatureOutputs, mask: npt.NDArray[np.bool_]) -> FeatureOutputs:
        """Return the features of some of the samples."""
        return FeatureOutputs(features=images.features[mask])

    def features(self, images: FeatureOutputs) -> npt.NDArray[np.float32]:
        """Return the features."""
        return images.features


@dataclass(frozen=True)
class RecordedLogits:
    """The logits or probabilities that were recorded, and the cosines that follow from them."""

    embeddings: LogitEmbeddings

    @property
    def logit_scale(self) -> float | None:
        """Return the model's own factor of the cosines, if it was recorded."""
        return self.embeddings.logit_scale

    def problem(self, images: LogitOutputs, name: str) -> str:
        """Return nothing: a recording with NaN or infinities is refused."""
        return ""

    def chunks(self, images: LogitOutputs, *, everything: bool = False) -> Iterator[tuple[slice, ScoredSamples]]:
        """Yield some samples at a time, of probabilities with their logarithms."""
        scale, bias = self.embeddings.logit_scale, self.embeddings.logit_bias
        for rows in _slices(len(images)):
            logits = torch.from_numpy(images.values[rows]).double()
            probabilities = None
            if images.floor is not None:
                probabilities = logits.clamp(0, 1)  # a softmax in float16 is off by some 1e-4
                logits = probabilities.clamp(min=images.floor).log()
            yield (
                rows,
                ScoredSamples(
                    logits=logits,
                    cosines=None if scale is None else (logits - bias) / scale,
                    probabilities=probabilities,
                ),
            )

    def classes(self, images: LogitOutputs) -> int:
        """Return the number of classes."""
        return int(images.values.shape[1])

    def take(self, images: LogitOutputs, mask: npt.NDArray[np.bool_]) -> LogitOutputs:
        """Return the outputs of some of the samples."""
        return replace(images, values=images.values[mask])

    def features(self, images: LogitOutputs) -> None:
        """Return None: no features were recorded."""


def bad_features(features: npt.NDArray[np.floating], name: str) -> str:
    """Return how many features are no directions; empty if all are."""
    bad = int((~np.isfinite(features).all(axis=1) | ~features.any(axis=1)).sum())
    return f"NaN, infinity or a zero vector in {bad} of {len(features)} {name}" if bad else ""


def _slices(n: int) -> Iterator[slice]:
    for start in range(0, n, CHUNK_ROWS):
        yield slice(start, start + CHUNK_ROWS)


def _infinity_as_nan(values: npt.NDArray[np.floating]) -> FloatArray:
    """Return float64 values: exp(-infinity) is a number, and would hide it."""
    return np.where(np.isfinite(values), values, np.nan).astype(np.float64)
