"""The optional parts of embeddings: local features, negative labels, calibration images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.data import loading
from pytest_qreliab.embedding.embedder import Embedder, count_inputs
from pytest_qreliab.embedding.model_handle import ModelHandle
from pytest_qreliab.embedding.reader import Reader
from pytest_qreliab.embedding.records import Embeddings
from pytest_qreliab.embedding.store import Store
from pytest_qreliab.embedding.unstored import split_calibration
from pytest_qreliab.errors import InputError
from pytest_qreliab.models.onnx_towers import OnnxClip
from pytest_qreliab.quantizers.calibration import Calibration

ALL = ("local", "negatives", "calibration")


@pytest.fixture(scope="module")
def data():
    """Few enough images of the embedded benchmark, a part of which is the last, short batch."""
    whole = loading.load(Benchmark.load("digits"))
    few = {name: images.first_evenly(size) for (name, images), size in zip(whole.ood.items(), (70, 30), strict=True)}
    inside, calibrating = whole.in_distribution.first_evenly(80), whole.calibration.first_evenly(41)
    return replace(whole, in_distribution=inside, calibration=calibrating, ood=few, templates=whole.templates[:2])


@pytest.fixture(scope="module")
def embedded(embed):
    def embedded(clip, data, needs=()) -> Embeddings:
        done = []
        found = embed(clip, data, needs, done.append)
        assert sum(done) == count_inputs(data, needs)
        return found

    return embedded


@pytest.fixture(scope="module")
def found(tiny, data, embedded):
    return embedded(tiny, data, ALL)


def test_nothing_more_is_done_than_is_asked_for(tiny, data, found, embedded, monkeypatch):
    monkeypatch.setattr(type(tiny.layout), "encode_image_with_local", None)
    plain = embedded(tiny, data)
    assert (plain.negatives, plain.calibration, plain.in_distribution.local) == (None, None, None)
    assert plain.near == found.near == {"letters"}
    np.testing.assert_array_equal(plain.in_distribution.features, found.in_distribution.features)
    np.testing.assert_array_equal(plain.in_distribution.high_band, found.in_distribution.high_band)
    np.testing.assert_array_equal(plain.classifier, found.classifier)
    assert count_inputs(data, ALL) - count_inputs(data) == 40 * 2 + 41


def test_local_is_the_largest_log_probability_of_any_patch(tiny, data, found):
    for images, of_set in ((data.in_distribution, found.in_distribution), (data.ood["photos"], found.ood["photos"])):
        pixels = torch.stack([tiny.preprocess(images.load(i)) for i in range(len(images))])
        local = F.normalize(tiny.encode_image_with_local(pixels)[2], dim=-1).double().numpy()
        expected = log_softmax(local @ found.classifier.T.astype(np.float64), axis=2).max(axis=(1, 2))
        assert of_set.local.dtype == np.float64
        np.testing.assert_allclose(of_set.local, expected, atol=2e-6)


def test_negatives_are_unit_vectors_of_the_labels_in_every_template(tiny, data, found):
    assert (found.negatives.shape, found.negatives.dtype) == ((40, found.classifier.shape[1]), np.float32)
    word = data.negatives[7]
    rows = F.normalize(tiny.encode_text([template.replace("{}", word) for template in data.templates]), dim=-1)
    np.testing.assert_allclose(found.negatives[7], F.normalize(rows.mean(dim=0), dim=0).numpy(), atol=1e-6)


def test_calibration_images_come_with_labels_and_with_who_has_looked_at_them(tiny, data, found, embedder):
    of = found.calibration
    pixels = torch.stack([tiny.preprocess(data.calibration.load(i)) for i in range(41)])
    np.testing.assert_allclose(of.images.features, tiny.encode_image(pixels).numpy(), atol=1e-5)
    np.testing.assert_array_equal(of.labels, data.calibration.labels)
    split = split_calibration(embedder.reader, data)
    np.testing.assert_array_equal(of.labels[of.held_out], split.held_out.labels)
    np.testing.assert_array_equal(of.labels[~of.held_out], split.images.labels)
    assert of.held_out.dtype == bool
    assert of.held_out.sum() == 10


def test_what_a_benchmark_or_a_tower_has_not_is_none(tiny, data, embedded):
    bare = replace(data, negatives=(), calibration=None)
    shows_none = replace(tiny, module=OnnxClip(tiny.module, {"visual": Hidden(tiny.module.visual)}))
    found = embedded(shows_none, bare, ALL)
    assert (found.negatives, found.calibration, found.in_distribution.local) == (None, None, None)


class Hidden(torch.nn.Module):
    """A tower in which no layer can be seen."""

    def __init__(self, visual) -> None:
        super().__init__()
        self.run = visual.forward

    def forward(self, images):
        return self.run(images)


def test_unlabelled_calibration_images_hold_none_out(tiny, data, embedded):
    unlabelled = replace(data, calibration=replace(data.calibration, labels=None))
    found = embedded(tiny, unlabelled, ("calibration",)).calibration
    assert found.labels is None
    assert not found.held_out.any()
    assert Calibration.split(unlabelled.calibration, (), ()).held_out is None


@pytest.mark.parametrize("where", ["visual", "text"])
def test_nan_goes_through_and_raises_nothing(tiny, data, where, embedded):
    broken = tiny.copy()
    (broken.module.visual.proj if where == "visual" else broken.module.text_projection).fill_(np.nan)
    found = embedded(broken, data, ALL)
    assert np.isnan(found.in_distribution.local).all()
    assert np.isnan(found.negatives).all() == (where == "text")
    assert np.isnan(found.calibration.images.features).all() == (where == "visual")


LONG = "a photo that was taken in daylight with a calibrated camera: {}"  # the tokenizer takes 46 bytes


@pytest.fixture
def embed_twice(tiny, tmp_path):
    """Embeds with a model, then again from the store alone, and returns what either said."""
    store = Store(tmp_path / "store")

    def embed_twice(data, full=None, clip=tiny):
        def forbidden():
            raise AssertionError("a warm run makes no model")

        found = []
        for make in (lambda: clip, forbidden):
            handle = ModelHandle(name="m", key="k", store=store, make=make, full=full)
            found.append(Embedder(Reader(store, "tests")).embed(handle, data, lambda done: None))
        return found

    return embed_twice


def test_prompts_that_are_cut_are_said_in_a_warm_run_too(data, embed_twice):
    some = replace(data, templates=("{}", LONG), classes=data.classes)
    long = [text for texts in some.class_captions for text in texts if len(text.encode()) > 46]
    for found in embed_twice(some):
        assert found.warnings == (
            f"model 'm': its tokenizer cuts {len(long)} of 20 prompts, the first of them: {long[0]!r}",
        )


def test_nothing_is_said_of_prompts_that_fit(data, embed_twice):
    assert [found.warnings for found in embed_twice(data)] == [(), ()]


def test_classes_that_the_text_tower_does_not_tell_apart_are_an_error(data, embed_twice):
    cut = replace(data, templates=(LONG.replace("{}", "and once again, {}"),))
    with pytest.raises(
        InputError, match=r"model 'm': the classes 'zero' and 'one' have the same text .*cuts their prom"
    ):
        embed_twice(cut)


def test_equal_text_features_of_a_quantized_model_are_a_finding(tiny, data, embed_twice, tmp_path):
    ruined = tiny.copy()
    ruined.module.text_projection.fill_(0.5)
    full = ModelHandle(name="full", key="full", store=Store(tmp_path / "other"), make=lambda: tiny)
    for found in embed_twice(data, full, ruined):
        assert found.warnings == ()


@pytest.mark.parametrize("factor", [1.0, 4.5])
def test_a_small_logit_scale_is_said_in_a_warm_run_too(tiny, data, embed_twice, factor):
    clip = tiny.copy()
    clip.set_logit_scale(factor)
    for found in embed_twice(data, clip=clip):
        (warning,) = found.warnings
        assert warning.startswith(f"model 'm': logit_scale is {factor:g}, and CLIP's is about 100")


def test_a_logit_scale_that_is_none_is_an_error(tiny, data, embed_twice):
    clip = tiny.copy()
    clip.set_logit_scale(2e4)
    with pytest.raises(InputError, match="model 'm': logit_scale is 20000, beyond 10000"):
        embed_twice(data, clip=clip)
