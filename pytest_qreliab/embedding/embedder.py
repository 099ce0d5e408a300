"""Embeddings: what a model gives of a benchmark, from the store, or from the model. After this none is needed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from open_clip import transform

from pytest_qreliab.data.dataset import Dataset, requested_sets
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.embedding import forward
from pytest_qreliab.embedding.forward import Advance, BatchSize, Part, full_precision
from pytest_qreliab.embedding.model_handle import ModelHandle
from pytest_qreliab.embedding.reader import Reader
from pytest_qreliab.embedding.records import (
    Blocks,
    CalibrationEmbeddings,
    Embeddings,
    ImageEmbeddings,
    LabelledEmbeddings,
)
from pytest_qreliab.embedding.store import Arrays
from pytest_qreliab.errors import InputError
from pytest_qreliab.hashing import array_digest, digest
from pytest_qreliab.metrics.calibration import fit_logit_scale
from pytest_qreliab.metrics.registry import WITH_GRATINGS, Need
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.layout import OPEN_CLIP
from pytest_qreliab.quantizers.calibration import Calibration, held_out

CALIBRATION_NEEDS: frozenset[Need] = frozenset({"calibration", "labels"})  # either asks for calibration images


@dataclass
class Embedder:
    """Embeds benchmarks. `reader` gives the images; `encoded` counts the images and prompts that went through a model,
    `known` those that had done so before."""

    reader: Reader
    encoded: int = 0
    known: int = 0
    _sizes: dict[str, BatchSize] = field(default_factory=dict)

    def embed(self, subject: ModelHandle, data: Dataset, advance: Advance, needs: Collection[Need] = ()) -> Embeddings:
        """All of a benchmark through one model, and of the optional parts those in `needs`.

        `advance` is told of every batch of images or prompts done, in all of as many as `work` says.
        """
        labels = data.in_distribution.labels
        assert labels is not None
        with subject.store.lock(subject.key):
            captions = [data.captions(label) for label in range(len(data.classes))]
            classifier = self._classifier(subject, captions, advance)
            negatives = None
            if "negatives" in needs and data.negatives:
                negatives = self._classifier(subject, [data.filled(word) for word in data.negatives], advance)
            local_to = classifier if "local" in needs else None

            def features(images: ImageSet, beside: npt.NDArray[np.float32] | None = None) -> ImageEmbeddings:
                parts: list[Part] = ["features"] if beside is None else ["features", "local"]
                return ImageEmbeddings(**self._images(subject, data, images, parts, advance, beside))

            return Embeddings(
                self._in_distribution(subject, data, needs, advance, local_to),
                labels,
                {name: features(images, local_to) for name, images in data.ood.items()},
                classifier,
                subject.facts.logit_scale,
                subject.facts.logit_bias,
                negatives,
                self._calibration(data, features) if CALIBRATION_NEEDS & set(needs) else None,
                data.near,
                {name: _labelled(images, features(images)) for name, images in requested_sets(data, needs).items()},
            )

    def _in_distribution(
        self,
        subject: ModelHandle,
        data: Dataset,
        needs: Collection[Need],
        advance: Advance,
        local_to: npt.NDArray[np.float32] | None,
    ) -> ImageEmbeddings:
        """`local_to` is the classifier that local features are compared with, if they are asked for."""
        optional: tuple[Part, ...] = ("blocks", "penultimate", "local")
        parts: list[Part] = ["features", "high_band", *(part for part in optional if part in needs)]
        found = self._images(subject, data, data.in_distribution, parts, advance, local_to)
        shares, last = found.pop("shares", None), found.pop("last", None)
        if shares is not None:
            power = tuple(found.pop(f"{block}") for block in range(shares.shape[1]))
            found["blocks"] = Blocks(power, shares, last)
        if "gratings" in needs:
            found["sensitivity"] = self._sensitivity(subject, data)
        return ImageEmbeddings(**found)

    def _images(
        self,
        subject: ModelHandle,
        data: Dataset,
        images: ImageSet,
        parts: Collection[Part],
        advance: Advance,
        classifier: npt.NDArray[np.float32] | None = None,
    ) -> dict[str, Any]:
        """The arrays of all parts, by name. One pass makes those that are not stored."""
        subject = subject.tower("vision")
        of_set = self._key(subject, data, images)
        beside = None if classifier is None else array_digest(classifier)
        keys = {part: digest(of_set, part, beside if part == "local" else None) for part in parts}
        found = {part: entry.arrays for part, key in keys.items() if (entry := subject.store.get(key)) is not None}
        missing = [part for part in parts if part not in found]
        if missing:
            clip = with_preprocessing(subject.make(), data)
            with full_precision(), self._batch_size(subject, clip) as size:
                batches = self.reader.batches(images, clip.preprocess, size.value, clip.device)
                made = forward.images(clip, batches, missing, size, advance, classifier)
            for part, arrays in made.items():
                subject.store.put(keys[part], arrays, about=f"{part} of {images.name}, {subject.name}")
            found.update(made)
            self.encoded += len(images)
        else:
            advance(len(images))
            self.known += len(images)
        return {name: array for arrays in found.values() for name, array in arrays.items()}

    def _key(self, subject: ModelHandle, data: Dataset, images: ImageSet) -> str:
        done = None if images.corruption is None else vars(images.corruption)
        return digest("images", subject.key, self.reader.manifest(images), done, data.preprocessing.model_dump())

    def _sensitivity(self, subject: ModelHandle, data: Dataset) -> npt.NDArray[np.float64]:
        """How far gratings move the features of some images."""
        subject, images = subject.tower("vision"), data.in_distribution.first_evenly(WITH_GRATINGS)

        def make() -> tuple[Arrays, dict[str, Any]]:
            clip = with_preprocessing(subject.make(), data)
            with full_precision(), self._batch_size(subject, clip) as size:
                batches = self.reader.batches(images, clip.preprocess, size.value, clip.device)
                return {"sensitivity": forward.sensitivity(clip, batches, size)}, {}

        key = digest(self._key(subject, data, images), "sensitivity")
        return subject.store.get_or_make(key, f"sensitivity to gratings, {subject.name}", make).arrays["sensitivity"]

    def _calibration(
        self, data: Dataset, features: Callable[[ImageSet], ImageEmbeddings]
    ) -> CalibrationEmbeddings | None:
        images = data.calibration
        if images is None:
            return None
        return CalibrationEmbeddings(features(images).features, images.labels, held_out(images))

    def _classifier(
        self, subject: ModelHandle, captions: Sequence[Sequence[str]], advance: Advance = lambda done: None
    ) -> npt.NDArray[np.float32]:
        """Text features of classes, float32 (classes, dim), unit rows, from all captions of each."""
        subject, count = subject.tower("text"), sum(map(len, captions))
        key = digest("prompts", subject.key, captions)
        found = subject.store.get(key)
        if found is not None:
            advance(count)
            self.known += count
            return found.arrays["classifier"]
        clip = subject.make()
        with full_precision(), self._batch_size(subject, clip) as size:
            made = forward.classifier(clip, captions, size, advance)
        subject.store.put(key, {"classifier": made}, about=f"{count} prompts, {subject.name}")
        self.encoded += count
        return made

    @contextmanager
    def _batch_size(self, subject: ModelHandle, clip: Clip) -> Iterator[BatchSize]:
        """How much the device takes at once of a model, and of those that are made from it; kept where it is less than
        was tried."""
        of = subject.full or subject
        key = digest("batch", of.key)
        if key not in self._sizes:
            known = of.store.get(key)
            self._sizes[key] = BatchSize.for_device(clip.device) if known is None else BatchSize(known.facts["value"])
        size = self._sizes[key]
        before = size.value
        yield size
        if size.value < before:
            of.store.put(key, {}, vars(size), f"batch size of {of.name}")

    def image_features(self, clip: Clip, data: Dataset, images: ImageSet, advance: Advance) -> npt.NDArray[np.float32]:
        """Features, float32 (n, dim), not normalised, of some images of a benchmark; they are not kept."""
        clip = with_preprocessing(clip, data)
        with full_precision():
            size = BatchSize.for_device(clip.device)
            batches = self.reader.batches(images, clip.preprocess, size.value, clip.device)
            made = forward.images(clip, batches, ["features"], size, advance)
        features: npt.NDArray[np.float32] = made["features"]["features"]
        return features

    def class_features(self, clip: Clip, data: Dataset) -> npt.NDArray[np.float32]:
        """Text features of the classes, float32 (classes, dim), unit rows; they are not kept."""
        captions = [data.captions(label) for label in range(len(data.classes))]
        with full_precision():
            return forward.classifier(clip, captions, BatchSize.for_device(clip.device))

    def fitted_logit_scale(self, clip: Clip, data: Dataset) -> float:
        """The logit scale that fits the held-out calibration images best, by NLL.

        Raises InputError where the features hold NaN or infinity.
        """
        images = self.calibration(data).held_out
        assert images is not None
        assert images.labels is not None
        features = self.image_features(clip, data, images, lambda done: None)
        unit = F.normalize(torch.from_numpy(features).double(), dim=-1)
        cosines = unit @ torch.from_numpy(self.class_features(clip, data)).double().T
        if not bool(cosines.isfinite().all()):
            raise InputError(f"{clip.name}: NaN or infinity in the features, so that no logit scale can be fitted")
        return fit_logit_scale(cosines.numpy(), images.labels)

    def calibration(self, data: Dataset) -> Calibration:
        """A benchmark's calibration images, if it has any, split, and its classes and templates."""
        return Calibration.split(data.calibration, data.classes, data.templates, self.reader.batches)


def _labelled(images: ImageSet, embeddings: ImageEmbeddings) -> LabelledEmbeddings:
    assert images.labels is not None
    return LabelledEmbeddings(embeddings, images.labels, images.classes)


def with_preprocessing(clip: Clip, data: Dataset) -> Clip:
    """The model with the preprocessing that the benchmark asks for. Raises InputError where it cannot be changed."""
    given = {name: value for name, value in data.preprocessing if value is not None}
    if not given:
        return clip
    renamed = {"resize": "resize_mode", "fill": "fill_color"}
    overrides = {renamed.get(name, name): tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    known = getattr(getattr(clip.module, "visual", None), "preprocess_cfg", None)
    if clip.layout is not OPEN_CLIP or known is None:
        raise InputError(
            f"{clip.name} brings its own preprocessing, which `preprocessing:` of a benchmark cannot change ("
            f"{', '.join(given)}); wrap it with another preprocess"
        )
    config = transform.PreprocessCfg(**transform.merge_preprocess_dict(known, overrides))
    return replace(clip, preprocess=transform.image_transform_v2(config, is_train=False))


def count_inputs(data: Dataset, needs: Collection[Need] = ()) -> int:
    """How many images and prompts `embed` counts for a benchmark."""
    images = len(data.in_distribution) + sum(map(len, [*data.ood.values(), *requested_sets(data, needs).values()]))
    if CALIBRATION_NEEDS & set(needs) and data.calibration is not None:
        images += len(data.calibration)
    words = len(data.classes) + (len(data.negatives) if "negatives" in needs else 0)
    return images + words * len(data.templates)
