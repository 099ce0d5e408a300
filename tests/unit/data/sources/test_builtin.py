import numpy as np
import pytest
from sklearn.datasets import load_digits

from pytest_qreliab.data.sources import builtin


def test_digits_are_split_once_and_for_all():
    train, test = builtin.digits("train"), builtin.digits("test")
    bunch = load_digits()
    assert (len(train), len(test)) == (899, 898)
    assert len(test) >= 700
    np.testing.assert_array_equal(test.labels, bunch.target[1::2])
    pixels = {np.asarray(train.load(i)).tobytes() for i in range(len(train))}
    assert not any(np.asarray(test.load(i)).tobytes() in pixels for i in range(len(test)))
    assert np.asarray(test.load(0)).max() == 255


@pytest.mark.parametrize(
    ("make", "size", "mode"), [(builtin.letters, (8, 8), "L"), (builtin.photo_patches, (32, 32), "RGB")]
)
def test_ood_sets_are_large_and_the_same_every_time(make, size, mode):
    first, second = make(), make()
    assert len(first) >= 500
    assert first.labels is None
    images = [first.load(i) for i in range(len(first))]
    assert {(image.size, image.mode) for image in images} == {(size, mode)}
    assert all(np.array_equal(np.asarray(image), np.asarray(second.load(i))) for i, image in enumerate(images))
    assert len({np.asarray(image).tobytes() for image in images}) > 0.95 * len(images)
    assert all(np.asarray(image).std() > 1 for image in images[: len(images) // 4])


def test_patches_tile_the_photographs():
    from sklearn.datasets import load_sample_images

    photo = load_sample_images().images[0]
    patches = builtin.photo_patches()
    np.testing.assert_array_equal(np.asarray(patches.load(21)), photo[32:64, 32:64])


def test_colours_of_a_digit_and_patches_of_a_part_of_a_photograph_are_one_unit():
    common, counter = (builtin.coloured_digits("test", colour) for colour in ("common", "counter"))
    assert common.units == counter.units
    assert len(set(common.units)) == 898
    patches = builtin.photo_patches()
    counts = np.unique(patches.units, return_counts=True)[1]
    assert (len(counts), counts.min(), counts.max()) == (30, 16, 20)
    some = patches.take(np.array([519, 0]))
    assert some.units == [patches.units[519], patches.units[0]]
