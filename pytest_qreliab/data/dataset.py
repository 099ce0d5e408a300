"""The image sets, classes and templates of a benchmark."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from pytest_qreliab.config.benchmark import Preprocessing
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.metrics.registry import Need

IN_DISTRIBUTION, CALIBRATION = "in_distribution", "calibration"
SHIFT, CORRUPTION, SPURIOUS, OOD = "shift.", "corruption.", "spurious.", "ood."


@dataclass(frozen=True)
class Dataset:
    """What a benchmark measures on: class names in label order, templates, and image sets.

    `near` names the OOD sets that are near, the others are far; `labelled` are the further sets with classes: shifted
    (`shift.SET`), corrupted (`corruption.KIND.SEVERITY`) and with a spurious cue (`spurious.SET`). `negatives` are
    labels that are none of the classes. Of `recorded` samples there are no images.
    """

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    in_distribution: ImageSet
    calibration: ImageSet | None
    ood: Mapping[str, ImageSet]
    near: frozenset[str] = frozenset()
    negatives: tuple[str, ...] = ()
    labelled: Mapping[str, ImageSet] = field(default_factory=dict)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    recorded: bool = False

    def captions(self, label: int) -> list[str]:
        """Every template of a class."""
        return self.filled(self.classes[label])

    def filled(self, word: str) -> list[str]:
        """Every template with the word in its place."""
        return [template.replace("{}", word) for template in self.templates]

    @cached_property
    def sets(self) -> dict[str, ImageSet]:
        """Every image set under its full name, the calibration images last."""
        of_ood = {f"{OOD}{'near' if name in self.near else 'far'}.{name}": found for name, found in self.ood.items()}
        found = {IN_DISTRIBUTION: self.in_distribution, **self.labelled, **of_ood}
        return found if self.calibration is None else {**found, CALIBRATION: self.calibration}


def requested_sets(data: Dataset, needs: Collection[Need]) -> dict[str, ImageSet]:
    """The further labelled sets that are needed, by name, which starts with the need."""
    return {name: images for name, images in data.labelled.items() if name.partition(".")[0] in needs}
