"""Corruptions against closed forms and against an independent generator."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_sample_images

from pytest_qreliab.config import corruption_kinds
from pytest_qreliab.config.corruption_kinds import EXTRA_KINDS, SEVERITIES, STANDARD_KINDS
from pytest_qreliab.data.corruptions import corrupt
from pytest_qreliab.errors import InputError

ALL = (*STANDARD_KINDS, *EXTRA_KINDS)
# Drawn or moved at random, or, as saturation, first less and then more.
UNORDERED = ("glass_blur", "snow", "frost", "fog", "elastic_transform", "saturate")

# Mean, standard deviation and mean absolute change that imagecorruptions 1.1.2 makes of the flower's middle, at
# severities 1, 3 and 5; of what it draws at random the mean over six images.
PUBLISHED = {
    "gaussian_noise": ((131, 75, 15.3), (131, 79, 32.2), (131, 91, 58.5)),
    "shot_noise": ((130, 77, 16.8), (126, 82, 34.7), (115, 98, 62.8)),
    "impulse_noise": ((131, 77, 4.0), (131, 81, 11.4), (130, 92, 34.5)),
    "defocus_blur": ((131, 71, 10.3), (130, 69, 15.4), (131, 67, 19.9)),
    "glass_blur": ((130, 72, 11.4), (130, 70, 17.3), (130, 68, 18.4)),
    "motion_blur": ((130, 72, 11.3), (130, 70, 18.5), (129, 69, 22.9)),
    "zoom_blur": ((131, 71, 18.9), (130, 70, 23.6), (129, 70, 25.7)),
    "snow": ((176, 66, 45.0), (200, 59, 69.6), (227, 45, 95.9)),
    "frost": ((180, 65, 49.4), (184, 46, 57.9), (179, 41, 57.8)),
    "fog": ((132, 38, 41.3), (133, 37, 49.9), (129, 41, 54.3)),
    "brightness": ((145, 81, 14.3), (155, 84, 24.3), (158, 84, 26.7)),
    "contrast": ((130, 59, 22.6), (130, 57, 30.0), (130, 56, 35.6)),
    "pixelate": ((131, 74, 6.2), (131, 73, 8.8), (131, 72, 11.7)),
    "jpeg_compression": ((131, 73, 9.0), (131, 73, 10.6), (131, 72, 13.7)),
    "speckle_noise": ((130, 76, 14.7), (126, 81, 31.2), (120, 89, 48.1)),
    "gaussian_blur": ((130, 72, 6.7), (130, 69, 14.1), (130, 67, 19.8)),
    "spatter": ((132, 75, 0.9), (139, 75, 7.7), (115, 74, 16.7)),
    "saturate": ((182, 45, 51.6), (100, 89, 31.2), (97, 90, 34.1)),
}
# By how much ours may differ: of the mean and deviation in grey levels, of the change as a share of it.
TOLERANCE = {
    **dict.fromkeys(ALL, (1.5, 1.5, 0.06)),
    "motion_blur": (4, 3, 0.2),  # another kernel, and another angle
    "glass_blur": (2, 2, 0.2),
    "snow": (6, 4, 0.08),
    "frost": (12, 14, 0.25),
    "fog": (20, 8, 0.25),
    "spatter": (3, 3, 0.5),
}


@pytest.fixture(scope="module")
def flower():
    """The middle of a photograph, 224x224."""
    return np.ascontiguousarray(load_sample_images().images[1][100:324, 200:424])


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind != "elastic_transform"])
def test_mean_and_deviation_are_those_of_another_generator(flower, kind):
    """Elastic transformations have other constants there, without the affine part."""
    for severity, expected in zip((1, 3, 5), PUBLISHED[kind], strict=True):
        found = []
        for seed in range(6 if kind in ("snow", "frost", "fog", "spatter", "motion_blur") else 1):
            x = corrupt(flower, kind, severity, seed).astype(float)
            found.append((x.mean(), x.std(), np.abs(x - flower).mean()))
        mean, deviation, change = np.mean(found, axis=0)
        of_mean, of_deviation, of_change = TOLERANCE[kind]
        assert mean == pytest.approx(expected[0], abs=of_mean)
        assert deviation == pytest.approx(expected[1], abs=of_deviation)
        assert change == pytest.approx(expected[2], rel=of_change, abs=0.5)


@pytest.mark.parametrize("size", [224, 32])
@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in UNORDERED])
def test_it_changes_more_as_severity_rises(flower, kind, size):
    image = np.asarray(Image.fromarray(flower).resize((size, size), Image.Resampling.BICUBIC))
    changes = [np.abs(corrupt(image, kind, severity).astype(float) - image).mean() for severity in SEVERITIES]
    assert changes == sorted(changes)
    assert changes[-1] > 2


@pytest.mark.parametrize("kind", ALL)
@settings(max_examples=8)
@given(height=st.integers(1, 40), width=st.integers(1, 40), severity=st.sampled_from(SEVERITIES))
def test_any_size_comes_back_as_it_was_and_the_input_is_left_alone(kind, height, width, severity):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    before = image.copy()
    image.flags.writeable = False
    found = corrupt(image, kind, severity)
    assert (found.dtype, found.shape, found.flags.c_contiguous) == (np.uint8, image.shape, True)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("kind", ALL)
def test_an_image_of_one_colour_is_no_difficulty(kind):
    for level in (0, 255):
        assert corrupt(np.full((16, 16, 3), level, np.uint8), kind, 5).shape == (16, 16, 3)


# The same pixels


@pytest.mark.parametrize("kind", ["gaussian_noise", "snow", "fog", "frost", "spatter", "elastic_transform"])
def test_image_kind_severity_and_seed_decide(flower, kind):
    image = flower[:32, :32]
    one = corrupt(image, kind, 3)
    np.testing.assert_array_equal(one, corrupt(image.copy(), kind, 3))
    other_seed = corrupt(image, kind, 3, seed=1)
    assert (one != other_seed).any()
    # Two images do not share their noise.
    grey, lighter = (np.full((32, 32, 3), level, np.uint8) for level in (120, 121))
    noise = [corrupt(level, "gaussian_noise", 1).astype(int) - level for level in (grey, lighter)]
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1


def test_another_process_makes_the_same(flower):
    code = (
        "import numpy as np; from pytest_qreliab.config.benchmark import KINDS;"
        "from pytest_qreliab.data.corruptions import corrupt;"
        "image = np.arange(16 * 16 * 3).reshape(16, 16, 3).astype(np.uint8);"
        "print([int(corrupt(image, kind, 4).astype(int).sum()) for kind in KINDS])"
    )
    image = np.arange(16 * 16 * 3).reshape(16, 16, 3).astype(np.uint8)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([int(corrupt(image, kind, 4).astype(int).sum()) for kind in ALL])


# Closed forms


def flat(level: int, size: int = 200) -> np.ndarray:
    return np.full((size, size, 3), level, np.uint8)


@pytest.mark.parametrize(("severity", "deviation"), [(1, 0.08), (2, 0.12)])
def test_gaussian_noise_has_its_deviation(severity, deviation):
    x = corrupt(flat(128), "gaussian_noise", severity) / 255
    assert x.std() == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize(("severity", "photons"), [(1, 60), (3, 12)])
def test_shot_noise_has_the_variance_of_counts(severity, photons):
    x = corrupt(flat(64), "shot_noise", severity) / 255
    assert x.var() == pytest.approx(64 / 255 / photons, rel=0.05)


def test_impulses_are_that_share_half_of_them_white():
    x = corrupt(flat(100), "impulse_noise", 4)
    assert (x == 255).mean() == pytest.approx(0.085, rel=0.1)
    assert (x == 0).mean() == pytest.approx(0.085, rel=0.1)
    assert ((x == 100) | (x == 0) | (x == 255)).all()


def test_speckles_grow_with_the_light():
    dark, light = (corrupt(flat(level), "speckle_noise", 1).std() for level in (40, 120))
    assert light / dark == pytest.approx(3, rel=0.03)


def test_gaussian_blur_is_scipys(flower):
    expected = np.stack([ndimage.gaussian_filter(flower[..., c] / 255, 2) for c in range(3)], axis=-1)
    np.testing.assert_allclose(corrupt(flower, "gaussian_blur", 2) / 255, expected, atol=0.6 / 255)


@pytest.mark.parametrize("kind", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur"])
def test_a_blur_leaves_a_flat_image_flat(kind):
    for size in (9, 64):
        np.testing.assert_array_equal(corrupt(flat(137, size), kind, 5), flat(137, size))


def test_contrast_shrinks_about_the_mean(flower):
    x = corrupt(flower, "contrast", 1).astype(float)
    assert x.mean() == pytest.approx(flower.mean(), abs=0.5)
    assert x[..., 0].std() == pytest.approx(0.4 * flower[..., 0].std(), rel=0.01)


def test_brightness_raises_the_value_and_leaves_hue_and_saturation():
    x = corrupt(np.array([[[100, 50, 25], [0, 0, 0]]], np.uint8), "brightness", 2)
    np.testing.assert_array_equal(x, [[[151, 76, 38], [51, 51, 51]]])


def test_saturation_is_that_of_hue_saturation_and_value(flower):
    import colorsys

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    image[0, 0] = 90
    for severity, (factor, more) in ((1, (0.3, 0)), (4, (5, 0.1))):
        found = corrupt(image, "saturate", severity)
        for pixel, new in zip(image.reshape(-1, 3), found.reshape(-1, 3), strict=True):
            h, s, v = colorsys.rgb_to_hsv(*(pixel / 255))
            expected = colorsys.hsv_to_rgb(h, min(1, s * factor + more), v)
            np.testing.assert_allclose(new / 255, expected, atol=0.6 / 255)


def test_pixelate_leaves_as_many_blocks_as_it_says():
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    assert len(np.unique(corrupt(image, "pixelate", 5).reshape(-1, 3), axis=0)) == 25  # 20 * .25 squared


def test_jpeg_is_pillows(flower):
    buffer = io.BytesIO()
    Image.fromarray(flower).save(buffer, "JPEG", quality=15)
    np.testing.assert_array_equal(corrupt(flower, "jpeg_compression", 3), np.asarray(Image.open(buffer)))


@pytest.mark.parametrize(("decay", "slope"), [(1.0, -4), (0.5, -3)])
def test_fog_has_its_power_law(decay, slope):
    rng = np.random.default_rng(0)
    power = np.mean(
        [
            np.abs(np.fft.fft2(corruption_kinds._field(np.zeros((128, 128, 3), np.float32), decay, rng))) ** 2
            for _ in range(9)
        ],
        axis=0,
    )
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128))
    low, high = (power[(frequency > f) & (frequency < 1.2 * f)].mean() for f in (0.05, 0.2))
    assert np.log2(high / low) / 2 == pytest.approx(slope, abs=0.4)


# What cannot be


def test_an_unknown_kind_names_the_nearest(flower):
    with pytest.raises(InputError, match="gaussian_noise"):
        corrupt(flower, "gausian_noise", 1)


@pytest.mark.parametrize("severity", [0, 6, 2.5])
def test_another_severity_is_refused(flower, severity):
    with pytest.raises(ValueError, match="not one of 1 to 5"):
        corrupt(flower, "fog", severity)


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((0, 8, 3), np.uint8)],
    ids=["float", "grey", "alpha", "empty"],
)
def test_another_array_is_refused(image):
    with pytest.raises(ValueError, match=r"not uint8 of \(height, width, 3\)"):
        corrupt(image, "fog", 1)
