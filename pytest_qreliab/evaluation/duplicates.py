"""Find the images that two sets of a benchmark share, by what a model sees of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pytest_qreliab.config.cases import Case
from pytest_qreliab.config.set_names import CALIBRATION, CAPTIONS
from pytest_qreliab.data import shared_images
from pytest_qreliab.data.dataset import measured_sets
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.data.shared_images import SharedImages
from pytest_qreliab.embedding.entry_files import Arrays
from pytest_qreliab.embedding.preprocess_override import with_preprocessing
from pytest_qreliab.evaluation.model_cache import ModelCache
from pytest_qreliab.hashing import digest


@dataclass(kw_only=True)
class Duplicates:
    """The images that sets of a plan's benchmarks share. A model is made only for what the store does not know."""

    models: ModelCache
    _found: dict[tuple[str, str, bool], list[SharedImages]] = field(default_factory=dict, init=False)

    def warnings(self, case: Case) -> list[str]:
        """Say which images of a case are in two sets. Raises InputError if an image cannot be read."""
        return [f"{case.benchmark}: {images}" for images in self._shared(case)]

    def check_training(self, case: Case) -> None:
        """Raise InputError if the case's quantizer trains on images that are measured."""
        if self.models.plan.recipes[case.build.quantizer].trains:
            shared_images.check_training(f"{case.id}: {case.quantization}", self._shared(case))

    def _shared(self, case: Case) -> list[SharedImages]:
        plan = self.models.plan
        if plan.data[case.benchmark].recorded or case.build.model in plan.recordings:
            return []
        calibrated = case.build.calibration is not None
        key = case.build.model, case.benchmark, calibrated
        if key not in self._found:
            self._found[key] = self._find(case, calibrated=calibrated)
        return self._found[key]

    def _find(self, case: Case, *, calibrated: bool) -> list[SharedImages]:
        plan, handle = self.models.plan, self.models.get(case.build.model)
        data = plan.data[case.benchmark]
        sets = measured_sets(data, plan.needs(case.benchmark))
        if calibrated:
            sets |= {name: data.sets[name] for name in (CALIBRATION, CAPTIONS) if name in data.sets}

        def make() -> tuple[Arrays, dict[str, Any]]:
            clip = with_preprocessing(self.models.pool.baseline(case.build.model), data)

            def identify(images: ImageSet) -> list[int]:
                return self.models.reader.fingerprints(images, clip.preprocess)

            return {}, {"shared": [asdict(one) for one in shared_images.find(sets, identify)]}

        contents = [[name, self.models.reader.manifest(images)] for name, images in sets.items()]
        entry = handle.store.get_or_make(
            digest("shared images", handle.key, contents, data.preprocessing.model_dump()),
            f"images in two sets of {case.benchmark}",
            make,
        )
        return [SharedImages(**one) for one in entry.facts["shared"]]
