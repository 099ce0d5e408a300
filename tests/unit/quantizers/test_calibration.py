"""Calibration data: what quantizers see of images and prompts."""

import numpy as np
import pytest
import torch

from pytest_qreliab.data.images import from_arrays
from pytest_qreliab.quantizers.calibration import PROMPTS, Calibration, held_out


def images(n, labelled=True):
    pixels = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    return from_arrays("noise", pixels, np.arange(n) % 3 if labelled else None)


@pytest.mark.parametrize("n", [3, 4, 17])
def test_every_fourth_labelled_image_is_held_out_and_no_other_is(n):
    split = Calibration.split(images(n), "abc", ["{}"])
    apart = [] if split.held_out is None else split.held_out.ids
    assert apart == [str(i) for i in range(3, n, 4)]
    assert sorted([*split.images.ids, *apart], key=int) == list(map(str, range(n)))
    assert np.flatnonzero(held_out(images(n))).tolist() == list(range(3, n, 4))
    for part in filter(None, (split.images, split.held_out)):
        assert part.labels.tolist() == [int(i) % 3 for i in part.ids]


def test_without_labels_or_without_images_nothing_is_held_out(tiny):
    split = Calibration.split(images(9, labelled=False), (), ())
    assert (len(split.images), split.held_out) == (9, None)
    none = Calibration.split(None, (), ())
    assert (none.images, none.held_out) == (None, None)
    assert list(none.batches(tiny, 9)) == []


def test_batches_are_of_evenly_spaced_images_up_to_the_limit(tiny):
    data = Calibration.split(images(12, labelled=False), (), ())
    for limit in (1, 4, 12, 99):
        expected = torch.stack([tiny.preprocess(data.images.load(i)) for i in range(0, 12, max(1, 12 // limit))])
        assert torch.equal(torch.cat(list(data.batches(tiny, limit))), expected)


@pytest.mark.parametrize("classes", [1, 255, 256, 257, 1000])
def test_prompts_are_at_most_512_evenly_spaced_ones(classes):
    data = Calibration.split(None, [f"class {i}" for i in range(classes)], ["a {}.", "{}"])
    batches = list(data.prompt_batches())
    found = [prompt for batch in batches for prompt in batch]
    every = [filled for i in range(classes) for filled in (f"a class {i}.", f"class {i}")]
    places = [every.index(prompt) for prompt in found]
    assert len(found) == len(set(found)) <= PROMPTS
    assert len(found) > PROMPTS / 2 or found == every
    assert len(set(np.diff(places))) <= 1
    assert max(map(len, batches)) <= 64
