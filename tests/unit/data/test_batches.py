"""Batches: in order, read ahead, the same whoever decodes them, and what of them cannot be read."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import Compose

from pytest_qreliab.data.batches import AHEAD, batched, batches, read_ahead
from pytest_qreliab.data.corruptions import corrupt
from pytest_qreliab.data.images import Corruption, Items
from pytest_qreliab.data.sources import builtin
from pytest_qreliab.errors import InputError


@pytest.mark.parametrize("count", [0, 1, 6, 7])
def test_items_come_in_lists_of_a_size_and_the_last_may_be_shorter(count):
    found = list(batched(iter(range(count)), 3))
    assert found == [list(range(start, min(start + 3, count))) for start in range(0, count, 3)]


@pytest.mark.parametrize("count", [0, 5, 3 * AHEAD])
def test_what_is_read_ahead_comes_in_order_and_is_read_once(count):
    read = []
    assert list(read_ahead(lambda i: read.append(i) or i * i, count)) == [i * i for i in range(count)]
    assert sorted(read) == list(range(count))


def test_no_more_is_read_than_the_items_ahead():
    read = []
    items = read_ahead(lambda i: read.append(i) or i, 10 * AHEAD)
    assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    items.close()
    assert 5 <= len(read) <= AHEAD + 5


def test_a_set_is_the_same_in_any_order_and_through_the_workers_that_decode(tiny):
    """It is corrupted once it has the size that the model sees."""
    source = replace(builtin.photo_patches().first_evenly(70), corruption=Corruption("gaussian_noise", 2, 0))
    together = torch.cat(list(batches(source, tiny.preprocess)))
    *resize, finish, normalize = tiny.preprocess.transforms
    for index in (69, 3, 40):
        alone = next(batches(source.take(np.array([index])), tiny.preprocess))[0]
        assert torch.equal(together[index], alone)
        pixels = np.asarray(Compose(resize)(source.load(index)))
        expected = normalize(finish(Image.fromarray(corrupt(pixels, "gaussian_noise", 2))))
        assert torch.equal(alone, expected)


def test_unreadable_images_are_counted_and_the_first_is_named(tiny):
    def load(index: int):
        if index in (5, 8):
            raise InputError(f"image {index} cannot be decoded")
        return Image.new("RGB", (8, 8))

    from pytest_qreliab.data.images import ImageSet

    items = Items(ids=[str(i) for i in range(10)], load=load)
    with pytest.raises(InputError, match="noise: 2 of 10 images cannot be read; the first: image 5 cannot be decoded"):
        list(batches(ImageSet(name="noise", ids=items.ids, load=items.load), tiny.preprocess))
