"""The offline image sets: handwritten digits and photographs of scikit-learn, digits and letters drawn here."""

from __future__ import annotations

import colorsys
import string
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pytest_qreliab.data.images import ImageSet, from_arrays

DigitsPart = Literal["train", "test"]
Colour = Literal["common", "counter"]

# O, I and l are also digits, so they would be no OOD samples.
LETTERS = "".join(sorted(set(string.ascii_letters) - set("OoIil")))
EACH = 12
PRINTED_EACH = 90
PATCH = 32


def digits(part: DigitsPart) -> ImageSet:
    """Return a part of scikit-learn's 1797 handwritten digits, 8x8 grey, labelled by digit.

    Odd indices are `test` (898), even ones `train` (899). `tiny-digits` has never seen the test part.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    chosen = slice(1, None, 2) if part == "test" else slice(0, None, 2)
    return from_arrays(f"digits-{part}", _grey16(bunch.images[chosen]), bunch.target[chosen].astype(np.int64))


def coloured_digits(part: DigitsPart, colour: Colour) -> ImageSet:
    """Return the digits as RGB images in ten colours.

    The hues are a tenth of the circle apart. Black stays black. Each digit is one unit, whatever its colour.

    Args:
        part: The part of the digits.
        colour: `common`, each class in its own colour; or `counter`, each image in the colour of another class.
    """
    grey = digits(part)
    labels = grey.known_labels
    if colour == "counter":
        labels = (labels + np.random.default_rng(0).integers(1, 10, len(labels))) % 10
    hues = np.array([colorsys.hsv_to_rgb(hue / 10, 0.75, 1.0) for hue in range(10)])
    ink = np.stack([np.asarray(grey.load(i)) for i in range(len(grey))])
    images = np.rint(ink[..., None] * hues[labels][:, None, None]).astype(np.uint8)
    units = [f"{grey.name} {identity}" for identity in grey.ids]
    return replace(from_arrays(f"{grey.name}-{colour}", images, grey.labels), units=units)


def printed_digits() -> ImageSet:
    """Return 900 digits, 90 of each, drawn like the letters and labelled by digit."""
    rng = np.random.default_rng(0)
    drawn = [_draw(digit, rng) for digit in string.digits for _ in range(PRINTED_EACH)]
    return from_arrays("printed-digits", _grey16(np.stack(drawn)), np.repeat(np.arange(10), PRINTED_EACH))


def letters() -> ImageSet:
    """Return 564 Latin letters, without those that look like digits, in the format of the digits.

    Each is drawn with Pillow's built-in font on a 32x32 bitmap, at a seeded size, place and slant. It is reduced like
    the digits once were: ink pixels are counted in 4x4 blocks, which makes 8x8 values of 0 to 16.
    """
    rng = np.random.default_rng(0)
    drawn = [_draw(letter, rng) for letter in LETTERS for _ in range(EACH)]
    return from_arrays("letters", _grey16(np.stack(drawn)))


def photo_patches() -> ImageSet:
    """Return 520 RGB patches of 32x32 pixels that tile scikit-learn's two photographs (a temple, a flower).

    Patches that lie near each other look alike. So each photograph has 15 units, 3 parts from top to bottom by 5 from
    left to right. The photographs as units would be two observations, too few for any interval.
    """
    from sklearn.datasets import load_sample_images

    patches, units = [], []
    for number, photo in enumerate(load_sample_images().images):
        rows, columns = photo.shape[0] // PATCH, photo.shape[1] // PATCH
        tiles = photo[: rows * PATCH, : columns * PATCH].reshape(rows, PATCH, columns, PATCH, 3)
        patches.append(tiles.swapaxes(1, 2).reshape(-1, PATCH, PATCH, 3))
        places = [(row * 3 // rows, column * 5 // columns) for row in range(rows) for column in range(columns)]
        units += [f"photograph {number}, part {place}" for place in places]
    return replace(from_arrays("photo-patches", np.concatenate(patches)), units=units)


def _draw(letter: str, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    font = ImageFont.load_default(size=float(rng.integers(26, 33)))
    canvas = Image.new("L", (64, 64))
    ImageDraw.Draw(canvas).text((32, 32), letter, fill=255, font=font, anchor="mm", stroke_width=1)
    canvas = canvas.rotate(float(rng.uniform(-12, 12)), Image.Resampling.BILINEAR)
    # Centred like a digit: the ink's bounding box, moved by up to two pixels.
    left, top, right, bottom = canvas.getbbox() or (0, 0, 64, 64)
    dx, dy = rng.integers(-2, 3, size=2).tolist()
    x, y = (left + right) // 2 - 16 + dx, (top + bottom) // 2 - 16 + dy
    ink = np.asarray(canvas.crop((x, y, x + 32, y + 32))) > 127
    counts: npt.NDArray[np.float64] = ink.reshape(8, 4, 8, 4).sum(axis=(1, 3)).astype(np.float64)
    return counts


def _grey16(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Return ink counts of 0 to 16 as grey levels of 0 to 255."""
    return np.rint(values * (255 / 16)).astype(np.uint8)
