"""Models that are made only if the store lacks something of them."""

import pytest

from pytest_qreliab.embedding.model_handle import ModelFacts, ModelHandle


def other_tower(tiny, *towers: str):
    """A copy of the embedded model in which some towers give other features."""
    clip = tiny.copy()
    for tower in towers:
        (clip.module.visual.proj if tower == "vision" else clip.module.text_projection).mul_(1.5)
    return clip


@pytest.mark.parametrize(
    ("changed", "shared"),
    [((), ["vision", "text"]), (("vision",), ["text"]), (("text",), ["vision"]), (("vision", "text"), [])],
)
def test_towers_with_the_same_features_to_the_bit_are_shared(tiny, changed, shared):
    assert ModelFacts.measure(other_tower(tiny, *changed), tiny).shared == shared
    assert ModelFacts.measure(tiny, None) == ModelFacts(tiny.logit_scale, tiny.logit_bias, [])


def test_a_tower_that_did_not_change_belongs_to_the_full_precision_model(tiny, store):
    full = ModelHandle(name="full", key="1", store=store, make=lambda: tiny)
    quantized = ModelHandle(name="q", key="2", store=store, make=lambda: other_tower(tiny, "vision"), full=full)
    assert quantized.tower("vision") is quantized
    assert quantized.tower("text") is full
    assert full.tower("text") is full


def test_facts_are_kept_so_that_no_model_is_made_for_them_again(tiny, store):
    made = []

    def make():
        made.append(1)
        clip = tiny.copy()
        clip.set_logit_scale(42.0)
        return clip

    def handle(key: str) -> ModelHandle:
        return ModelHandle(name="mine", key=key, store=store, make=make)

    assert handle("1").facts == handle("1").facts
    assert len(made) == 1
    assert handle("1").facts.logit_scale == pytest.approx(42.0, rel=1e-6)
    assert handle("2").facts == handle("1").facts
    assert len(made) == 2
