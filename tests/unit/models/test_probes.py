"""The inputs that models are tried on."""

import numpy as np

from pytest_qreliab.models import probes


def test_the_images_are_unlike_each_other_and_always_the_same():
    images = probes.images()
    pixels = [np.asarray(image) for image in images]
    assert all(one.shape == (probes.SIDE, probes.SIDE, 3) for one in pixels)
    assert {int(one.max()) for one in pixels[:2]} == {0, 255}
    assert all(len(np.unique(one)) > 200 for one in pixels[2:])
    assert not np.array_equal(pixels[2][..., 0], pixels[2][..., 1])
    assert all(np.array_equal(a, np.asarray(b)) for a, b in zip(pixels, probes.images(), strict=True))


def test_the_prompts_have_different_lengths():
    lengths = [len(prompt.split()) for prompt in probes.PROMPTS]
    assert min(lengths) == 1
    assert len(set(lengths)) >= 3
    assert all(prompt.isascii() for prompt in probes.PROMPTS)
