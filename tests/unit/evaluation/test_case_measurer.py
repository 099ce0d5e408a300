"""Measurements of cases: what is embedded, in which order, and what is shared."""

from contextlib import contextmanager

import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from pytest_qreliab.embedding.store import Store
from pytest_qreliab.evaluation.cached_facts import CachedFacts
from pytest_qreliab.evaluation.case_measurer import CaseMeasurer
from pytest_qreliab.evaluation.evaluator import Evaluator
from pytest_qreliab.evaluation.progress import silent


@pytest.fixture
def embedded():
    """What was embedded, in order."""
    return []


@pytest.fixture
def make_measurer(make_plan, small_benchmark, write_thresholds, embedded):
    def make(**given: str) -> CaseMeasurer:
        limits = write_thresholds("accuracy: {max_drop: 0.5}")
        evaluator = Evaluator(make_plan(benchmarks=str(small_benchmark), thresholds=str(limits), **given))

        @contextmanager
        def progress(description: str, total: int):
            embedded.append(description)
            yield lambda done: None

        return CaseMeasurer(
            models=evaluator.model_cache,
            facts=CachedFacts(models=evaluator.model_cache, progress=silent),
            embedder=evaluator.embedder,
            progress=progress,
        )

    return make


def test_the_baseline_is_measured_once_for_all_cases(make_measurer, embedded):
    measurer = make_measurer(bits="w8,w4")
    pairs = [measurer.measure_pair(case) for case in measurer.models.plan.cases]
    assert pairs[0][0] is pairs[1][0]
    assert embedded == [
        "tiny-digits full precision on small",
        "tiny-digits minmax w8 on small",
        "tiny-digits minmax w4 on small",
    ]


def test_the_baseline_comes_last_if_another_process_is_at_work_on_it(make_measurer, embedded, monkeypatch):
    measurer = make_measurer(bits="w8")
    monkeypatch.setattr(Store, "is_locked", lambda self, key: key == measurer.models.get("tiny-digits").key)
    measurer.measure_pair(measurer.models.plan.cases[0])
    assert embedded == ["tiny-digits minmax w8 on small", "tiny-digits full precision on small"]


def test_a_refitted_baseline_is_another_measurement_of_the_same_embeddings(make_measurer, embedded, tiny):
    measurer = make_measurer(bits="w8", quantizers="minmax,minmax+rescale")
    (plain, _), (refitted, _) = (measurer.measure_pair(case) for case in measurer.models.plan.cases)
    scale = measurer.facts.refitted_logit_scale("tiny-digits", "small")
    assert scale != pytest.approx(tiny.logit_scale, rel=1e-3)
    labels = measurer.models.plan.data["small"].in_distribution.labels
    for found, factor in ((plain, 1.0), (refitted, scale / tiny.logit_scale)):
        expected = log_loss(labels, softmax(plain.predictions.logits.astype(float) * factor, axis=1))
        assert found.values["nll"] == pytest.approx(expected, rel=1e-4)
    assert embedded.count("tiny-digits full precision on small") == 1
