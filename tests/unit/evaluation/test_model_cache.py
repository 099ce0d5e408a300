"""The handles of models: one for each, with a key that tells it from every other."""

from dataclasses import replace

import numpy as np
import pytest

from pytest_qreliab.config import settings as config_settings
from pytest_qreliab.embedding.store import Store
from pytest_qreliab.evaluation.evaluator import Evaluator
from pytest_qreliab.evaluation.planning import make_plan as planning
from pytest_qreliab.evaluation.planning.catalog import Catalog


@pytest.fixture
def make_cache(tmp_path, small_benchmark, tiny):
    """Makes the cache of a plan on the small benchmark; `version` is that of the model `mine`."""

    def make(version: str = "1", **given: str):
        catalog = Catalog()
        catalog.add_model("mine", tiny.copy, version=version)
        given = {"benchmarks": str(small_benchmark), "models": "mine", "bits": "w4", **given}
        resolved = config_settings.resolve(lambda ini: given.get(ini.removeprefix("qreliab_")), lambda ini: None)
        return Evaluator(planning.make_plan(resolved, catalog), store=Store(tmp_path / "store")).model_cache

    return make


def test_each_model_has_one_handle_and_a_quantized_one_knows_its_baseline(make_cache):
    cache = make_cache(bits="w4,w8")
    first, second = (case.build for case in cache.plan.cases)
    assert cache.get(first) is cache.get(first) is not cache.get(second)
    assert cache.get(first).full is cache.get(second).full is cache.get("mine")
    assert cache.get("mine").full is None
    assert len({cache.get(model).key for model in ("mine", first, second)}) == 3


def test_keys_are_the_same_in_the_next_run_and_others_for_another_version(make_cache):
    def keys(cache) -> list[str]:
        (case,) = cache.plan.cases
        return [cache.get("mine").key, cache.get(case.build).key]

    assert keys(make_cache()) == keys(make_cache())
    assert not set(keys(make_cache())) & set(keys(make_cache("2")))


def test_a_model_without_a_version_is_not_kept(make_cache):
    first, second = make_cache(""), make_cache("")
    (case,) = first.plan.cases
    for model in ("mine", case.build):
        assert first.get(model).store is first.passing is not first.store
        assert first.get(model).key != second.get(model).key
    kept = make_cache()
    assert kept.get("mine").store is kept.store


def test_calibration_images_are_part_of_a_build_that_looks_at_them(make_cache):
    cache = make_cache()
    data = cache.plan.data["small"]
    key = cache.calibration_key(data)
    assert cache.calibration_key(replace(data, in_distribution=data.calibration, ood={})) == key
    relabelled = replace(data.calibration, labels=np.zeros_like(data.calibration.labels))
    captioned = replace(data, captions=replace(data.calibration, captions=["a caption"] * 100))
    keys = [key]
    for other in (
        replace(data, calibration=data.calibration.first_evenly(50)),
        replace(data, calibration=relabelled),
        replace(data, calibration=None),
        replace(data, classes=data.classes[::-1]),
        replace(data, templates=data.templates[:1]),
        captioned,
        replace(data, captions=replace(captioned.captions, captions=["a caption", *["other captions"] * 99])),
        replace(data, captions=captioned.captions.first_evenly(50)),
    ):
        found = cache.calibration_key(other)
        assert found not in keys
        keys.append(found)
