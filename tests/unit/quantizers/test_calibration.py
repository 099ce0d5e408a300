"""Calibration data: what quantizers see of images and prompts."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from pytest_qreliab.data.images import from_arrays
from pytest_qreliab.quantizers.calibration import PROMPTS, Calibration, held_out


def images(n, labelled=True):
    pixels = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    return from_arrays("noise", pixels, np.arange(n) % 3 if labelled else None)


@pytest.mark.parametrize("n", [3, 4, 17])
def test_a_quarter_of_labelled_images_is_held_out_and_no_other_is(n):
    split = Calibration.split(images(n), "abc", ["{}"])
    apart = [] if split.held_out is None else split.held_out.ids
    assert len(apart) == n // 4
    assert sorted([*split.images.ids, *apart], key=int) == list(map(str, range(n)))
    assert [str(i) for i in np.flatnonzero(held_out(images(n)))] == apart
    for part in filter(None, (split.images, split.held_out)):
        assert part.labels.tolist() == [int(i) % 3 for i in part.ids]


@pytest.mark.parametrize("classes", [2, 4, 8, 10])
def test_classes_in_turn_are_all_held_out_and_all_looked_at(tiny, classes):
    """Every fourth image of four classes in turn would be of one class."""
    labels = np.arange(40 * classes) % classes
    pixels = np.broadcast_to((20 * labels).astype(np.uint8)[:, None, None, None], (len(labels), 32, 32, 3))
    split = Calibration.split(from_arrays("turns", pixels, labels), list("abcdefghij"[:classes]), ["{}"])
    assert np.bincount(split.held_out.labels).tolist() == [10] * classes
    assert np.bincount(split.images.labels).tolist() == [30] * classes
    seen = torch.cat(list(split.batches(tiny, 3 * classes)))
    assert sorted(torch.unique(seen[:, 0, 0, 0], return_counts=True)[1].tolist()) == [3] * classes


def test_without_labels_or_without_images_nothing_is_held_out(tiny):
    split = Calibration.split(images(9, labelled=False), (), ())
    assert (len(split.images), split.held_out) == (9, None)
    none = Calibration.split(None, (), ())
    assert (none.images, none.held_out) == (None, None)
    assert list(none.batches(tiny, 9)) == []


def test_batches_are_of_images_up_to_the_limit_in_their_order(tiny):
    data = Calibration.split(images(12, labelled=False), (), ())
    every = torch.stack([tiny.preprocess(data.images.load(i)) for i in range(12)])
    for limit in (1, 4, 12, 99):
        found = torch.cat(list(data.batches(tiny, limit)))
        places = [int((every == image).flatten(1).all(1).nonzero()) for image in found]
        assert len(places) == min(limit, 12)
        assert places == sorted(set(places))
        assert torch.equal(found, torch.cat(list(data.batches(tiny, limit))))


@pytest.mark.parametrize("classes", [1, 255, 256, 257, 1000])
def test_prompts_are_at_most_512_in_their_order(classes):
    data = Calibration.split(None, [f"class {i}" for i in range(classes)], ["a {}.", "{}"])
    batches = list(data.prompt_batches())
    found = [prompt for batch in batches for prompt in batch]
    every = [filled for i in range(classes) for filled in (f"a class {i}.", f"class {i}")]
    places = [every.index(prompt) for prompt in found]
    assert len(found) == min(PROMPTS, len(every))
    assert places == sorted(set(places))
    assert max(map(len, batches)) <= 64


@pytest.mark.parametrize(("classes", "templates"), [(128, 8), (1000, 80), (64, 16), (37, 80), (10, 7)])
def test_prompts_are_of_every_template_and_of_all_classes_alike(classes, templates):
    """A fixed step through 128 classes of 8 templates each would meet every other template, and 64 of 16 each two."""
    data = Calibration.split(None, [f"{i}" for i in range(classes)], [f"template {i} {{}}" for i in range(templates)])
    words = [prompt.split() for batch in data.prompt_batches() for prompt in batch]
    met = Counter(int(template) for _, template, _ in words)
    assert set(met) == set(range(templates))
    assert max(met.values()) < 3 * len(words) / templates
    by_class = Counter(label for _, _, label in words)
    assert max(by_class.values()) - min(by_class.values()) <= 1
    assert len(by_class) == min(classes, len(words))


def test_captions_of_pairs_take_the_place_of_prompts_and_their_images_that_of_none():
    pairs = replace(images(9, labelled=False), captions=[f"caption {i // 2}" for i in range(9)])
    alone = Calibration.split(None, ["two"], ["a {}."], pairs=pairs)
    assert alone.images is pairs
    assert alone.held_out is None
    assert list(alone.prompt_batches()) == [[f"caption {i}" for i in range(5)]]
    both = Calibration.split(images(8), ["two"], ["a {}."], pairs=pairs)
    assert (len(both.images), len(both.held_out), both.pairs) == (6, 2, pairs)
    many = replace(images(1500, labelled=False), captions=[f"caption {i}" for i in range(1500)])
    found = [text for batch in Calibration.split(None, [], [], pairs=many).prompt_batches() for text in batch]
    assert len(found) == len(set(found)) == PROMPTS


def test_the_passes_of_texts_encode_every_prompt_once_without_padding(tiny):
    """Those of one length go together, cut to it."""
    data = Calibration.split(None, ["two", "six", "ten", "seven"], ["a handwritten {}.", "{}", "the digit {}"])
    prompts = [prompt for batch in data.prompt_batches() for prompt in batch]
    passes, read = data.text_passes(tiny, size=2), []
    with tiny.module.transformer.resblocks[0].register_forward_pre_hook(lambda _, args: read.append(args[0].shape[:2])):
        found = torch.cat([encode() for encode in passes])
    assert sum(count * length for count, length in read) == sum(len(prompt) + 2 for prompt in prompts)
    assert max(count for count, _ in read) == 2
    by_length = sorted(prompts, key=len)
    torch.testing.assert_close(found, tiny.encode_text(by_length))


def test_padding_stays_for_a_tower_that_looks_at_it(architecture_of):
    clip = architecture_of("siglip-like")
    data = Calibration.split(None, ["two", "seven", "nine"], ["a handwritten {}.", "{}"])
    prompts = [prompt for batch in data.prompt_batches() for prompt in batch]
    found = torch.cat([encode() for encode in data.text_passes(clip, size=4)])
    torch.testing.assert_close(found, clip.encode_text(prompts))
    assert Calibration.split(None, (), ()).text_passes(clip) == []
