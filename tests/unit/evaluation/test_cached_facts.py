"""Facts of models are computed once and come back from the store as they were."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pytest_qreliab.embedding.store import Store
from pytest_qreliab.embedding.unstored import fitted_logit_scale
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.cached_facts import CachedFacts
from pytest_qreliab.evaluation.evaluator import Evaluator
from pytest_qreliab.evaluation.model_pool import ModelPool
from pytest_qreliab.evaluation.progress import silent
from pytest_qreliab.quantizers.inspection import weight_spectra


@pytest.fixture
def plan(make_plan, small_benchmark):
    return make_plan(benchmarks=str(small_benchmark), bits="w3a8")


@pytest.fixture
def make_facts(tmp_path):
    """Makes the facts of a plan, as a new run would, with the store that all runs share."""

    def make(plan) -> CachedFacts:
        return CachedFacts(models=Evaluator(plan, store=Store(tmp_path / "store")).model_cache, progress=silent)

    return make


@pytest.fixture
def forbid_models(monkeypatch):
    """From the call on a model that is made is an error."""

    def unreachable(*args: object) -> None:
        raise AssertionError("a model is made")

    def forbid() -> None:
        for name in ("baseline", "quantized"):
            monkeypatch.setattr(ModelPool, name, unreachable)

    return forbid


def test_the_coverage_is_that_of_the_model_and_the_next_run_makes_none(plan, make_facts, forbid_models):
    (case,) = plan.cases
    facts = make_facts(plan)
    expected = facts.models.pool.quantized(case.build).coverage
    assert facts.coverage(case.build) == expected
    forbid_models()
    assert make_facts(plan).coverage(case.build) == expected


def test_spectra_of_the_weights_come_back_as_they_were(plan, make_facts, forbid_models):
    (case,) = plan.cases
    facts = make_facts(plan)
    pool = facts.models.pool
    expected = weight_spectra.spectra(pool.baseline("tiny-digits"), pool.quantized(case.build).clip, "both")
    facts.weight_spectra(case.build)
    forbid_models()
    kept = make_facts(plan).weight_spectra(case.build)
    assert [spectrum.name for spectrum in kept] == [spectrum.name for spectrum in expected]
    for one, other in zip(kept, expected, strict=True):
        for part in ("singular_values", "quantized", "error"):
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


def test_recorded_outputs_have_neither_coverage_nor_weights(plan, make_facts, forbid_models):
    (case,) = plan.cases
    facts = make_facts(replace(plan, recordings={"minmax": None}))
    forbid_models()
    assert facts.coverage(case.build) is None
    assert facts.visible_weight_spectra(case.build) == []


def test_weights_that_cannot_be_seen_are_an_error_only_where_they_are_needed(plan, make_facts, monkeypatch):
    def refuse(*args: object) -> None:
        raise InputError("packed")

    (case,) = plan.cases
    monkeypatch.setattr(weight_spectra, "spectra", refuse)
    facts = make_facts(plan)
    assert facts.visible_weight_spectra(case.build) == []
    with pytest.raises(InputError, match="packed"):
        facts.weight_spectra(case.build)


def test_the_refitted_logit_scale_is_kept(plan, make_facts, forbid_models, tiny):
    facts = make_facts(plan)
    expected = fitted_logit_scale(facts.models.reader, tiny, plan.data["small"])
    assert facts.refitted_logit_scale("tiny-digits", "small") == expected
    forbid_models()
    assert make_facts(plan).refitted_logit_scale("tiny-digits", "small") == expected


def test_each_thing_is_observed_once_for_all_builds_on_the_same_images(plan, make_facts):
    (case,) = plan.cases
    made = []

    def make(name: str):
        made.append(name)
        return {"it": torch.arange(3.0), "that": torch.tensor([[len(made)]])}

    facts = make_facts(plan)
    first = facts.observed(case.build, "ranges", lambda: make("ranges"))
    for of in (facts, make_facts(plan)):
        again = of.observed(replace(case.build, quantizer="mse"), "ranges", lambda: make("again"))
        assert again.keys() == first.keys()
        assert all(torch.equal(again[name], first[name]) for name in first)
    facts.observed(case.build, "others", lambda: make("others"))
    assert made == ["ranges", "others"]
