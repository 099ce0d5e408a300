"""Images are decoded once, kept, and read by every model with that preprocessing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pytest_qreliab.data import batches
from pytest_qreliab.data.images import Corruption, ImageSet
from pytest_qreliab.data.sources.builtin import digits, photo_patches
from pytest_qreliab.embedding import eviction
from pytest_qreliab.embedding.reader import Reader
from pytest_qreliab.embedding.store import Store
from pytest_qreliab.errors import InputError


def test_each_image_is_decoded_once_for_all_that_see_it_alike(tiny, tmp_path):
    loaded = []
    images = photo_patches().first_evenly(30)
    counted = replace(images, load=lambda i: loaded.append(i) or images.load(i))
    corrupted = replace(counted, corruption=Corruption("fog", 2, 0))
    reader = Reader(Store(tmp_path), "tests")
    for of_set in (counted, corrupted, counted.take(np.array([7, 3])), counted):
        expected = torch.cat(list(batches.batches(of_set, tiny.preprocess)))
        loaded.clear() if of_set is not counted or len(loaded) > 60 else None
        assert torch.equal(torch.cat(list(reader.batches(of_set, tiny.preprocess, 8))), expected)
    before = len(loaded)
    list(Reader(Store(tmp_path), "tests").batches(counted, tiny.preprocess))
    assert len(loaded) == before
    list(Reader(Store(tmp_path), "others").batches(counted, tiny.preprocess))
    assert len(loaded) == before + 30


def test_images_are_kept_once_for_every_preprocessing_of_the_same_size(tiny, tmp_path):
    from torchvision.transforms import Compose, Normalize, Resize

    store, images = Store(tmp_path), digits("test").first_evenly(20)
    *steps, _ = tiny.preprocess.transforms
    other = Compose([*steps, Normalize((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))])
    reader = Reader(store, "tests")
    for preprocess in (tiny.preprocess, other, Compose([Resize(20), *steps[1:]])):
        expected = torch.cat(list(batches.batches(images, preprocess)))
        assert torch.equal(torch.cat(list(reader.batches(images, preprocess))), expected)
    assert len([entry for entry in eviction.list_entries(tmp_path, read=True) if "resized" in entry.about]) == 2


def test_images_that_cannot_be_read_are_an_error_and_are_not_kept(tiny, tmp_path):
    def load(index: int):
        if index == 5:
            raise InputError("image 5 cannot be decoded")
        return digits("test").load(index)

    store = Store(tmp_path)
    images = ImageSet(name="broken", ids=list(map(str, range(9))), load=load, content=str)
    for _ in range(2):
        with pytest.raises(InputError, match="broken: 1 of 9 images cannot be read; the first: image 5"):
            list(Reader(store, "tests").batches(images, tiny.preprocess))
    assert not list(eviction.list_entries(tmp_path))


def test_a_preprocessing_that_keeps_sizes_is_refused(tiny, tmp_path):
    from PIL import Image
    from torchvision.transforms import Compose, ToTensor

    images = ImageSet(name="mixed", ids=["a", "b"], load=lambda i: Image.new("RGB", (8 + i, 8)), content=str)
    with pytest.raises(InputError, match=r"mixed: .* different sizes, \(8, 9\) and \(8, 8\)"):
        list(Reader(Store(tmp_path), "tests").batches(images, Compose([ToTensor()])))
