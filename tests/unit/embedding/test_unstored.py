"""Features that are used once, and the logit scale that is fitted on them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pytest_qreliab.embedding.unstored import class_features, fitted_logit_scale, image_features, split_calibration
from pytest_qreliab.errors import InputError
from pytest_qreliab.metrics.calibration import fit_logit_scale


def test_it_is_fitted_on_images_that_neither_calibrate_nor_count(make_plan, small_benchmark, tiny, embedder):
    data = make_plan(benchmarks=str(small_benchmark)).data["small"]
    parts = split_calibration(embedder.reader, data)
    assert (len(parts.images), len(parts.held_out)) == (75, 25)
    seen, held_out = (
        {images.load(i).tobytes() for i in range(len(images))} for images in (parts.images, parts.held_out)
    )
    assert not seen & held_out
    counted = data.in_distribution
    assert not (seen | held_out) & {counted.load(i).tobytes() for i in range(len(counted))}


def test_the_fit_is_the_best_on_the_held_out_images(make_plan, small_benchmark, tiny, embedder):
    import numpy as np
    import torch
    import torch.nn.functional as F

    data = make_plan(benchmarks=str(small_benchmark)).data["small"]
    parts = split_calibration(embedder.reader, data)
    images = torch.stack([tiny.preprocess(parts.held_out.load(i)) for i in range(len(parts.held_out))])
    prompts = [F.normalize(tiny.encode_text(parts.captions(c)), dim=-1).mean(0) for c in range(10)]
    cosines = F.normalize(tiny.encode_image(images), dim=-1) @ F.normalize(torch.stack(prompts), dim=-1).T
    expected = fit_logit_scale(cosines.double().numpy(), np.asarray(parts.held_out.labels))
    assert fitted_logit_scale(embedder.reader, tiny, data) == pytest.approx(expected, rel=1e-3)


@pytest.fixture
def data(make_plan, small_benchmark):
    return make_plan(benchmarks=str(small_benchmark)).data["small"]


def test_features_of_some_images_are_the_models_own_and_are_counted(tiny, embedder, data):
    images = data.in_distribution.first_evenly(9)
    done = []
    found = image_features(embedder.reader, tiny, data, images, done.append)
    expected = tiny.encode_image(torch.stack([tiny.preprocess(images.load(i)) for i in range(9)]))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    assert sum(done) == 9


def test_features_of_a_class_are_the_unit_mean_of_its_unit_prompts(tiny, data):
    rows = F.normalize(tiny.encode_text(data.class_captions[7]), dim=-1)
    found = class_features(tiny, data)
    np.testing.assert_allclose(found[7], F.normalize(rows.mean(dim=0), dim=0).numpy(), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert found.shape == (10, rows.shape[1])


def test_no_logit_scale_is_fitted_to_features_that_are_not_finite(tiny, embedder, data):
    broken = tiny.copy()
    broken.module.visual.proj.fill_(np.nan)
    with pytest.raises(InputError, match="tiny-digits: NaN or infinity in the features"):
        fitted_logit_scale(embedder.reader, broken, data)
