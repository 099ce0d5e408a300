"""Embed benchmarks, from the store or with a model. What comes after works on arrays."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_qreliab.data.dataset import CALIBRATION_NEEDS, Dataset, measured_sets, requested_sets
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.embedding import forward
from pytest_qreliab.embedding.entry_files import Arrays
from pytest_qreliab.embedding.forward import Advance, BatchSize, Part, full_precision
from pytest_qreliab.embedding.model_handle import ModelHandle
from pytest_qreliab.embedding.preprocess_override import with_preprocessing
from pytest_qreliab.embedding.reader import Reader
from pytest_qreliab.embedding.records import (
    Blocks,
    CalibrationEmbeddings,
    FeatureEmbeddings,
    FeatureOutputs,
    LabelledEmbeddings,
)
from pytest_qreliab.embedding.text_checks import CutWatch, check_distinct, cut_warning
from pytest_qreliab.hashing import array_digest, digest
from pytest_qreliab.metrics.definitions import WITH_GRATINGS, Need
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.logit_scale import check_factor
from pytest_qreliab.quantizers.calibration import held_out

Classifier = npt.NDArray[np.float32]  # (classes, dim), unit rows


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A benchmark that one model embeds."""

    handle: ModelHandle
    data: Dataset
    needs: Collection[Need]
    advance: Advance


@dataclass
class Embedder:
    """The embeddings of benchmarks by models. Each part is computed once."""

    reader: Reader
    encoded: int = 0  # images and prompts that went through a model
    known: int = 0  # those that had done so before
    _sizes: dict[str, BatchSize] = field(default_factory=dict, init=False)

    def embed(
        self, handle: ModelHandle, data: Dataset, advance: Advance, needs: Collection[Need] = ()
    ) -> FeatureEmbeddings:
        """Return the embeddings of a whole benchmark by one model.

        Args:
            handle: The model, which is made only if the store lacks something.
            data: The benchmark.
            advance: Called with the size of every batch that is done, `count_inputs` in all.
            needs: The optional parts to return as well.

        Raises:
            InputError: An image cannot be read, or the model cannot be used.
        """
        job = _Job(handle=handle, data=data, needs=needs, advance=advance)
        with handle.store.lock(handle.key):
            classifier, warnings = self._classifier(job, job.data.class_captions)
            negatives = None
            if "negatives" in needs and data.negatives:
                negatives, more = self._classifier(job, [data.filled(word) for word in data.negatives])
                warnings += more
            if handle.full is None:  # what quantization makes of texts is a finding, no fault of the input
                check_distinct(handle.name, data.classes, classifier, cut=bool(warnings))
                small = check_factor(handle.facts.logit_scale, f"model {handle.name!r}: logit_scale")
                warnings += [small] if small is not None else []
            local_to = classifier if "local" in needs else None
            return FeatureEmbeddings(
                in_distribution=self._in_distribution(job, local_to),
                labels=data.in_distribution.known_labels,
                ood={name: self._features(job, images, local_to) for name, images in data.ood.items()},
                classifier=classifier,
                logit_scale=handle.facts.logit_scale,
                logit_bias=handle.facts.logit_bias,
                negatives=negatives,
                calibration=self._calibration(job),
                near=data.near,
                labelled={name: self._labelled(job, images) for name, images in requested_sets(data, needs).items()},
                warnings=tuple(warnings) if handle.full is None else (),
            )

    def _in_distribution(self, job: _Job, local_to: Classifier | None) -> FeatureOutputs:
        optional: tuple[Part, ...] = ("blocks", "penultimate", "local")
        parts: list[Part] = ["features", "high_band", *(part for part in optional if part in job.needs)]
        found = self._images(job, job.data.in_distribution, parts, local_to)
        shares, last = found.pop("shares", None), found.pop("last", None)
        if shares is not None:
            power = tuple(found.pop(f"{block}") for block in range(shares.shape[1]))
            found["blocks"] = Blocks(power, shares, last)
        if "gratings" in job.needs:
            found["sensitivity"] = self._sensitivity(job)
        return FeatureOutputs(**found)

    def _features(self, job: _Job, images: ImageSet, local_to: Classifier | None = None) -> FeatureOutputs:
        """Return the features, and with a classifier the `local` ones that are compared with it."""
        parts: list[Part] = ["features"] if local_to is None else ["features", "local"]
        return FeatureOutputs(**self._images(job, images, parts, local_to))

    def _labelled(self, job: _Job, images: ImageSet) -> LabelledEmbeddings[FeatureOutputs]:
        features = self._features(job, images)
        return LabelledEmbeddings(images=features, labels=images.known_labels, candidates=images.classes)

    def _calibration(self, job: _Job) -> CalibrationEmbeddings[FeatureOutputs] | None:
        images = job.data.calibration
        if images is None or not CALIBRATION_NEEDS & set(job.needs):
            return None
        return CalibrationEmbeddings(
            images=self._features(job, images), labels=images.labels, held_out=held_out(images)
        )

    def _images(
        self, job: _Job, images: ImageSet, parts: Collection[Part], classifier: Classifier | None
    ) -> dict[str, Any]:
        """Return the arrays of all parts, by name. One pass makes those that are not stored."""
        handle = job.handle.tower("vision")
        of_set = self._key(job, images)
        beside = None if classifier is None else array_digest(classifier)
        keys = {part: digest(of_set, part, beside if part == "local" else None) for part in parts}
        found = {part: entry.arrays for part, key in keys.items() if (entry := handle.store.get(key)) is not None}
        missing = [part for part in parts if part not in found]
        if missing:
            with self._model(handle, job.data) as (clip, size):
                batches = self.reader.batches(images, clip.preprocess, size.value, clip.device)
                made = forward.images(clip, batches, missing, size, advance=job.advance, classifier=classifier)
            for part, arrays in made.items():
                handle.store.put(keys[part], arrays, about=f"{part} of {images.name}, {handle.name}")
            found.update(made)
            self.encoded += len(images)
        else:
            job.advance(len(images))
            self.known += len(images)
        return {name: array for arrays in found.values() for name, array in arrays.items()}

    def _key(self, job: _Job, images: ImageSet) -> str:
        corruption = None if images.corruption is None else vars(images.corruption)
        preprocessing = job.data.preprocessing.model_dump()
        return digest("images", job.handle.tower("vision").key, self.reader.manifest(images), corruption, preprocessing)

    def _sensitivity(self, job: _Job) -> npt.NDArray[np.float64]:
        """Return how far gratings move the features of some images."""
        handle, images = job.handle.tower("vision"), job.data.in_distribution.first_evenly(WITH_GRATINGS)

        def make() -> tuple[Arrays, dict[str, Any]]:
            with self._model(handle, job.data) as (clip, size):
                batches = self.reader.batches(images, clip.preprocess, size.value, clip.device)
                return {"sensitivity": forward.sensitivity(clip, batches, size)}, {}

        key = digest(self._key(job, images), "sensitivity")
        return handle.store.get_or_make(key, f"sensitivity to gratings, {handle.name}", make).arrays["sensitivity"]

    def _classifier(self, job: _Job, captions: Sequence[Sequence[str]]) -> tuple[Classifier, list[str]]:
        """Return text features of classes from all captions of each, and a warning if prompts are cut."""
        handle, count = job.handle.tower("text"), sum(map(len, captions))
        key = digest("prompts", handle.key, captions)
        entry = handle.store.get(key)
        if entry is not None:
            job.advance(count)
            self.known += count
            classifier, cut = entry.arrays["classifier"], entry.facts
        else:
            with self._model(handle) as (clip, size):
                watch = CutWatch(clip.tokenizer)
                classifier = forward.classifier(replace(clip, tokenizer=watch), captions, size, job.advance)
                prompts = watch.cut()
            cut = {"cut": len(prompts), "first": prompts[0] if prompts else ""}
            handle.store.put(key, {"classifier": classifier}, cut, about=f"{count} prompts, {handle.name}")
            self.encoded += count
        return classifier, [cut_warning(handle.name, cut["cut"], cut["first"], count)] if cut["cut"] else []

    @contextmanager
    def _model(self, handle: ModelHandle, data: Dataset | None = None) -> Iterator[tuple[Clip, BatchSize]]:
        """Yield the model, with the benchmark's preprocessing, and the size of its batches.

        The size is kept, for the models that are made from this one too, if the device took less than was tried.
        """
        clip = handle.make() if data is None else with_preprocessing(handle.make(), data)
        owner = handle.full or handle
        key = digest("batch", owner.key)
        if key not in self._sizes:
            entry = owner.store.get(key)
            self._sizes[key] = BatchSize.for_device(clip.device) if entry is None else BatchSize(entry.facts["value"])
        size = self._sizes[key]
        before = size.value
        with full_precision():
            yield clip, size
        if size.value < before:
            owner.store.put(key, {}, vars(size), f"batch size of {owner.name}")


def count_inputs(data: Dataset, needs: Collection[Need] = ()) -> int:
    """Return how many images and prompts `embed` counts for a benchmark."""
    images = sum(map(len, measured_sets(data, needs).values()))
    words = len(data.classes) + (len(data.negatives) if "negatives" in needs else 0)
    return images + words * len(data.templates)
