"""The two parts of a preprocessing, against torchvision's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Lambda, Normalize, Resize, ToTensor

from pytest_qreliab.data import images
from pytest_qreliab.data.batches import batches
from pytest_qreliab.data.corruptions import corrupt
from pytest_qreliab.data.images import Corruption
from pytest_qreliab.data.preprocessing import split_preprocess

RESIZE, NORMALIZE = [Resize(8), CenterCrop(8)], Normalize((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize("rest", [[NORMALIZE], [], [Lambda(lambda x: x.flip(-1)), NORMALIZE]], ids=len)
def test_both_parts_one_after_the_other_are_the_whole(rest):
    rng = np.random.default_rng(0)
    whole = Compose([*RESIZE, ToTensor(), *rest])
    some = [Image.fromarray(rng.integers(0, 256, (9 + i, 12, 3), dtype=np.uint8)) for i in range(3)]
    parts = split_preprocess(whole)
    pixels = torch.from_numpy(np.stack([parts.pixels(image) for image in some]))
    assert (pixels.shape, pixels.dtype) == ((3, 8, 8, 3), torch.uint8)
    found = parts.finish(pixels, torch.device("cpu"))
    torch.testing.assert_close(found, torch.stack([whole(image) for image in some]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "preprocess", [ToTensor(), Compose(RESIZE), Compose([ToTensor(), Lambda(lambda x: x), ToTensor()])]
)
def test_what_has_not_one_place_to_be_cut_at_is_not_split(preprocess):
    assert split_preprocess(preprocess) is None


def test_the_signature_tells_steps_on_images_apart_and_nothing_else():
    def signature(*steps):
        return split_preprocess(Compose(steps)).signature

    assert signature(Resize(8), ToTensor()) == signature(Resize(8), ToTensor(), NORMALIZE)
    assert signature(Resize(8), ToTensor()) != signature(Resize(9), ToTensor())
    assert signature(*RESIZE, ToTensor()) != signature(*reversed(RESIZE), ToTensor())
    assert " at 0x" not in signature(Lambda(lambda image: image), lambda image: image, ToTensor())


def test_a_preprocess_of_unknown_parts_gets_the_corrupted_image():
    grey = images.from_arrays("grey", np.full((2, 8, 8), 99, np.uint8), np.array([1, 0]))
    noisy = replace(grey, corruption=Corruption("shot_noise", 1, 3))
    batch = next(batches(noisy, lambda image: torch.from_numpy(np.array(image))))
    expected = corrupt(np.full((8, 8, 3), 99, np.uint8), "shot_noise", 1, 3)
    np.testing.assert_array_equal(batch[0].numpy(), expected)
