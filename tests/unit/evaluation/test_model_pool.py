"""The models in memory: at most one baseline and one quantized model, and refusals that are not tried again."""

import copy
import gc
import weakref
from dataclasses import replace

import pytest
import torch

from pytest_qreliab.embedding.reader import Reader
from pytest_qreliab.embedding.store import Store
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.model_pool import ModelPool
from pytest_qreliab.evaluation.progress import silent
from pytest_qreliab.models import probes


@pytest.fixture
def plan(make_plan, small_benchmark):
    return make_plan(bits="w4,w8", benchmarks=str(small_benchmark))


@pytest.fixture
def make_pool(tmp_path):
    def make(plan) -> ModelPool:
        reader = Reader(Store(tmp_path / "store"), "tests")
        return ModelPool(plan, reader, silent, checkpoints=None, observe=lambda build, name, make: make())

    return make


def test_one_baseline_and_one_quantized_model_are_alive(plan, make_pool, tiny):
    alive = weakref.WeakSet()

    def load():
        gc.collect()
        assert not alive  # room was made first
        clip = tiny.copy()
        alive.add(clip.module)
        return clip

    pool = make_pool(replace(plan, models=dict.fromkeys(["a", "b"], load)))
    builds = [replace(case.build, model=model) for model in "ab" for case in plan.cases]
    for build in builds:
        alive.add(pool.quantized(build).module)
        gc.collect()
        assert len(alive) == 2
        assert pool.quantized(build) is pool.quantized(build)
    pool.baseline("a")
    gc.collect()
    assert len(alive) == 1


def test_a_build_made_anew_reads_nothing_that_was_observed_and_is_not_kept(make_plan, small_benchmark, make_pool):
    plan = make_plan(bits="w4a8", benchmarks=str(small_benchmark))
    pool, build, observed = make_pool(plan), plan.cases[0].build, {}
    pool._observe = lambda build, name, make: observed.setdefault(name, make())
    first = pool.quantized(build)
    for name, tensors in observed.items():
        observed[name] = {key: tensor * 2 for key, tensor in tensors.items()}
    anew = pool.rebuilt(build)
    assert pool.quantized(build) is first
    reading = make_pool(plan)
    reading._observe = pool._observe
    images = torch.stack([first.preprocess(image) for image in probes.images()])
    features, same, other = (clip.encode_image(images) for clip in (first, anew, reading.quantized(build)))
    assert torch.equal(features, same)
    assert not torch.equal(features, other)


def test_a_model_that_is_refused_is_not_tried_again(plan, make_pool):
    tried = []

    def load():
        tried.append(1)
        raise InputError("no such file")

    pool = make_pool(replace(plan, models={"tiny-digits": load}))
    errors = []
    for ask in (pool.baseline, pool.baseline, lambda model: pool.quantized(plan.cases[0].build)):
        with pytest.raises(InputError, match="no such file") as caught:
            ask("tiny-digits")
        errors.append(caught.value)
    assert len(tried) == 1
    assert len(set(map(id, errors))) == 1


def test_a_quantizer_that_is_refused_leaves_the_baseline_and_other_builds(plan, make_pool, monkeypatch):
    from pytest_qreliab.quantizers.post_training import ranges

    pool = make_pool(plan)
    first, second = (case.build for case in plan.cases)
    full = pool.baseline("tiny-digits")
    monkeypatch.setattr(ranges, "minmax", lambda clip, request: clip.copy())
    for _ in range(2):
        with pytest.raises(InputError, match="declares to quantize"):
            pool.quantized(first)
    monkeypatch.undo()
    assert pool.quantized(second).coverage.weights == 1.0
    with pytest.raises(InputError, match="declares to quantize"):  # though it would do now
        pool.quantized(first)
    assert pool.baseline("tiny-digits") is full


def test_recorded_outputs_are_no_model(plan, make_pool):
    pool = make_pool(replace(plan, recordings={"minmax": None}))
    with pytest.raises(InputError, match="minmax holds outputs: there is no quantized model"):
        pool.quantized(plan.cases[0].build)


def test_a_quantized_clip_is_used_like_its_model(plan, make_pool, tiny):
    quantized = make_pool(plan).quantized(plan.cases[0].build)
    assert (quantized.name, quantized.logit_scale) == (tiny.name, tiny.logit_scale)
    assert quantized.encode_text(["7"]).shape == tiny.encode_text(["7"]).shape
    assert (quantized.module, quantized.preprocess) == (quantized.clip.module, quantized.clip.preprocess)
    assert copy.copy(quantized) == quantized
    with pytest.raises(AttributeError, match="no_such"):
        _ = quantized.no_such
