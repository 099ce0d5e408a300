"""The image sets, classes and templates of a benchmark."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pytest_qreliab.config.benchmark import Preprocessing
from pytest_qreliab.config.set_names import CALIBRATION, CAPTIONS, IN_DISTRIBUTION, ood_set
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.data.shared_images import SharedImages
from pytest_qreliab.metrics.definitions import Need
from pytest_qreliab.metrics.names import SetName
from pytest_qreliab.statistics.arrays import IntArray


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The data of a benchmark, ready to be measured on."""

    classes: tuple[str, ...]  # names in label order
    templates: tuple[str, ...]  # prompts with `{}` for the name
    in_distribution: ImageSet
    calibration: ImageSet | None
    captions: ImageSet | None = None  # image-caption pairs, for quantizers to look at
    ood: Mapping[str, ImageSet]  # by the name in the benchmark
    near: frozenset[str] = frozenset()  # the OOD sets that are near; the others are far
    negatives: tuple[str, ...] = ()  # labels that are none of the classes
    labelled: Mapping[str, ImageSet] = field(default_factory=dict)  # shifted, corrupted and spurious sets, by full name
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    recorded: bool = False  # samples without images, whose outputs were recorded elsewhere
    shared: tuple[SharedImages, ...] = ()  # what sets share by their files that should share nothing
    warnings: tuple[str, ...] = ()  # what a reader of the results should know; each names the benchmark

    @property
    def class_captions(self) -> list[list[str]]:
        """Every template filled with the name of each class, class by class."""
        return [self.filled(name) for name in self.classes]

    def filled(self, word: str) -> list[str]:
        """Return every template with a word in its place."""
        return [template.replace("{}", word) for template in self.templates]

    @cached_property
    def sets(self) -> dict[str, ImageSet]:
        """Every image set under its full name, those that quantizers look at last."""
        ood = {ood_set(name, near=name in self.near): images for name, images in self.ood.items()}
        sets = {IN_DISTRIBUTION: self.in_distribution, **self.labelled, **ood}
        looked_at = {CALIBRATION: self.calibration, CAPTIONS: self.captions}
        return sets | {name: images for name, images in looked_at.items() if images is not None}

    @cached_property
    def units(self) -> dict[str, IntArray]:
        """The number of the unit that each image shows, (n,), of the sets that have units, by full name."""
        numbers: dict[str, int] = {}
        return {
            name: np.array([numbers.setdefault(unit, len(numbers)) for unit in images.units], dtype=np.int64)
            for name, images in self.sets.items()
            if images.units is not None
        }


CALIBRATION_NEEDS: frozenset[Need] = frozenset({"calibration", "labels"})  # either asks for calibration images


def measured_sets(data: Dataset, needs: Collection[Need]) -> dict[str, ImageSet]:
    """Return the sets that are measured on: those of every run, and those that are needed, by full name."""
    further = requested_sets(data, needs)
    calibrated = bool(CALIBRATION_NEEDS & set(needs))
    return {
        name: images
        for name, images in data.sets.items()
        if (name in further or name not in data.labelled) and (calibrated or name != CALIBRATION) and name != CAPTIONS
    }


def requested_sets(data: Dataset, needs: Collection[Need]) -> dict[str, ImageSet]:
    """Return the shifted, corrupted and spurious sets that are needed, by full name."""
    return {name: images for name, images in data.labelled.items() if SetName.parse(name).category in needs}
