"""Corrupted images: the 15 + 4 kinds of ImageNet-C (Hendrycks & Dietterich 2019) at five severities, made on the fly.

The formulas and constants are the published ones, the generator is our own, and its images are not those of the
published files, which are read as folders. What differs: the image is never written as JPEG; lengths in pixels, meant
for 224, shrink with the shorter side to the power 3/4, which is near the constants of CIFAR-10-C at 32; fog is a
random field of the same spectrum in place of a plasma fractal; frost is drawn in place of photographs of it; pixels
behind glass are drawn from their surroundings in place of swapped in turn; and water drops are shaded by their slope.

One image, kind, severity and seed give the same pixels wherever and in whatever order they are made.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from scipy.signal import fftconvolve

from pytest_qreliab.errors import unknown

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.floating]  # (height, width, 3) or (height, width), black is 0, white is 1

SEVERITIES = (1, 2, 3, 4, 5)
SIZE = 224  # pixels, that lengths are meant for


def corrupt(image: Pixels, kind: str, severity: int, seed: int = 0) -> Pixels:
    """The image, uint8 (height, width, 3), corrupted: an array of the same shape.

    Raises InputError for an unknown kind, ValueError for a severity that is not 1 to 5 or another shape or type.
    """
    if kind not in _KINDS:
        raise unknown("corruption", kind, _KINDS)
    if severity not in SEVERITIES:
        raise ValueError(f"the severity is {severity!r}, not one of 1 to 5")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"the image is {image.dtype} of shape {image.shape}, not uint8 of (height, width, 3)")
    digest = hashlib.blake2b(f"{seed} {kind} {severity} {image.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    rng = np.random.default_rng(int.from_bytes(digest.digest(), "big"))
    function, constants = _KINDS[kind]
    values = function(image.astype(np.float32) / 255, constants[severity - 1], rng)
    corrupted: Pixels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return corrupted


# Noise


def _gaussian_noise(x: Values, deviation: float, rng: np.random.Generator) -> Values:
    return x + deviation * rng.standard_normal(x.shape, dtype=np.float32)


def _shot_noise(x: Values, photons: float, rng: np.random.Generator) -> Values:
    """Poisson counts, of so many photons at white."""
    return (rng.poisson(x * photons) / photons).astype(np.float32)


def _impulse_noise(x: Values, share: float, rng: np.random.Generator) -> Values:
    """That share of all values, colour by colour, becomes 0 or 1."""
    drawn = rng.random(x.shape, dtype=np.float32)
    return np.where(drawn < share, np.float32(drawn < share / 2), x)


def _speckle_noise(x: Values, deviation: float, rng: np.random.Generator) -> Values:
    return x + x * deviation * rng.standard_normal(x.shape, dtype=np.float32)


# Blur


def _gaussian_blur(x: Values, deviation: float, rng: np.random.Generator) -> Values:
    return _smooth(x, deviation * _scale(x))


def _defocus_blur(x: Values, constants: tuple[float, float], rng: np.random.Generator) -> Values:
    """A disk of that radius, its edge softened by that deviation."""
    radius, softness = constants[0] * _scale(x), constants[1]
    reach = int(np.ceil(radius + 3 * softness))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = np.clip(radius + 0.5 - np.hypot(rows, columns), 0, 1).astype(np.float32)
    return _filter(x, ndimage.gaussian_filter(disk, softness, mode="constant"))


def _glass_blur(x: Values, constants: tuple[float, int, int], rng: np.random.Generator) -> Values:
    """Each pixel is drawn from those within a reach, so many times over, between two blurs."""
    deviation, farthest, times = constants[0] * _scale(x), 0.5 + constants[1] * _scale(x), constants[2]
    height, width = x.shape[:2]
    x = _smooth(x, deviation)
    for _ in range(times):
        rows, columns = np.rint(rng.uniform(-farthest, farthest, (2, height, width))).astype(np.intp)
        rows += np.arange(height)[:, None]
        columns += np.arange(width)
        x = x[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    return _smooth(x, deviation)


def _motion_blur(x: Values, constants: tuple[float, float], rng: np.random.Generator) -> Values:
    return _filter(x, _streak(constants[0] * _scale(x), constants[1] * _scale(x), rng.uniform(-45, 45)))


def _zoom_blur(x: Values, constants: tuple[float, float], rng: np.random.Generator) -> Values:
    """The mean over magnifications up to the largest, in steps."""
    image = _image(x)
    width, height = image.size
    total, zooms = x.copy(), np.arange(1, *constants)
    for zoom in zooms:
        margins = width * (1 - 1 / zoom) / 2, height * (1 - 1 / zoom) / 2
        box = (*margins, width - margins[0], height - margins[1])
        total += _values(image.resize(image.size, Image.Resampling.BILINEAR, box=box))
    return total / (len(zooms) + 1)


# Weather


def _snow(x: Values, constants: tuple[float, ...], rng: np.random.Generator) -> Values:
    """Flakes of a mean and a deviation, their size, the least that shows, their streaks, and how much stays clear."""
    mean, deviation, size, least, length, spread, clear = constants
    height, width = x.shape[:2]
    coarse = [max(1, round(side / max(1.0, size * _scale(x)))) for side in (height, width)]
    layer = mean + deviation * rng.standard_normal(coarse, dtype=np.float32)
    flakes = np.asarray(Image.fromarray(layer).resize((width, height), Image.Resampling.BILINEAR))
    flakes = np.clip(np.where(flakes < least, 0, flakes), 0, 1)
    streaks = _filter(flakes, _streak(length * _scale(x), spread * _scale(x), rng.uniform(-135, -45)))[..., None]
    grey = x @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    whitened = np.maximum(x, grey[..., None] * 1.5 + 0.5)
    snowy: Values = clear * x + (1 - clear) * whitened + streaks + streaks[::-1, ::-1]
    return snowy


def _frost(x: Values, constants: tuple[float, float], rng: np.random.Generator) -> Values:
    """Of the image and of the frost so much; frost is bluish crystals along ridges, where it is dense."""
    density, ridges = _field(x, 1.0, rng), 1 - np.abs(2 * _field(x, 0.7, rng) - 1)
    crystals = np.clip(0.18 + 0.3 * density + 0.6 * ridges**3 * (0.4 + density), 0, 1)
    frost: Values = crystals[..., None] * np.array([0.88, 0.95, 1.0], dtype=np.float32)
    return constants[0] * x + constants[1] * frost


def _fog(x: Values, constants: tuple[float, float], rng: np.random.Generator) -> Values:
    """So much of a cloudy field whose roughness decays by a factor per octave, at the image's own contrast."""
    thickness, decay = constants
    brightest = max(float(x.max()), 1e-3)
    return (x + thickness * _field(x, float(np.log2(decay)), rng)[..., None]) * brightest / (brightest + thickness)


def _spatter(x: Values, constants: tuple[float, ...], rng: np.random.Generator) -> Values:
    """Water, or mud, where a smooth random layer is above a threshold."""
    mean, deviation, smoothness, least, strength, mud = constants
    layer = _smooth(rng.standard_normal(x.shape[:2], dtype=np.float32), max(0.5, smoothness * _scale(x)))
    layer = (layer - layer.mean()) / max(float(layer.std()), 1e-6)
    # White noise smoothed so has this deviation; so the share that is covered does not depend on the image's size.
    height = layer - (least - mean) * 2 * np.sqrt(np.pi) * smoothness / deviation
    if mud:
        cover = _smooth((height > 0).astype(np.float32), strength * _scale(x))[..., None]
        cover = np.where(cover < 0.8, 0, cover)
        return x * (1 - cover) + cover * np.array([63, 42, 20], dtype=np.float32) / 255
    slope = ndimage.sobel(height, 0) + ndimage.sobel(height, 1)
    drops = np.where(height > 0, np.clip(0.3 + slope / 4, 0, 1), 0)
    return x + strength * drops[..., None] * np.array([175, 238, 238], dtype=np.float32) / 255


# Light and digital


def _brightness(x: Values, more: float, rng: np.random.Generator) -> Values:
    """The value of hue, saturation and value raised by so much."""
    value: Values = x.max(axis=2, keepdims=True)
    raised = np.clip(value + more, 0, 1)
    brighter: Values = np.where(value > 0, x * raised / np.maximum(value, 1e-6), raised)
    return brighter


def _contrast(x: Values, factor: float, rng: np.random.Generator) -> Values:
    mean: Values = x.mean(axis=(0, 1))
    return (x - mean) * factor + mean


def _saturate(x: Values, constants: tuple[float, float], rng: np.random.Generator) -> Values:
    """The saturation times a factor, plus a constant; grey counts as red."""
    value: Values = x.max(axis=2, keepdims=True)
    away = value - x
    chroma: Values = away.max(axis=2, keepdims=True)
    hue = np.where(chroma > 0, away / np.maximum(chroma, 1e-6), [0, 1, 1])
    saturation = chroma / np.maximum(value, 1e-6) * constants[0] + constants[1]
    return value * (1 - np.clip(saturation, 0, 1) * hue)


def _elastic_transform(x: Values, constants: tuple[float, float, float], rng: np.random.Generator) -> Values:
    """Displacement, its smoothness, and the shift of three corners, each in units of the shorter side."""
    strength, smoothness, shift = (constant * 244 / SIZE * min(x.shape[:2]) for constant in constants)
    height, width = x.shape[:2]
    centre, arm = np.array([height, width]) / 2, min(height, width) / 3
    corners = centre + arm * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = corners + rng.uniform(-shift, shift, (3, 2))
    affine = np.linalg.solve(np.column_stack([moved, np.ones(3)]), corners)
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    at = np.stack([rows, columns, np.ones_like(rows)], axis=-1) @ affine
    wobble = rng.uniform(-1, 1, (2, height, width)).astype(np.float32)
    at = np.moveaxis(at, -1, 0) + strength * np.stack([_smooth(part, max(1.0, smoothness)) for part in wobble])
    return np.stack([ndimage.map_coordinates(x[..., c], at, order=1, mode="reflect") for c in range(3)], axis=-1)


def _pixelate(x: Values, share: float, rng: np.random.Generator) -> Values:
    image = _image(x)
    small = image.resize([max(1, int(side * share)) for side in image.size], Image.Resampling.BOX)
    return _values(small.resize(image.size, Image.Resampling.BOX))


def _jpeg_compression(x: Values, quality: int, rng: np.random.Generator) -> Values:
    buffer = io.BytesIO()
    _image(x).save(buffer, "JPEG", quality=quality)
    return _values(Image.open(buffer))


# Parts


def _image(x: Values) -> Image.Image:
    return Image.fromarray(np.rint(x * 255).astype(np.uint8))


def _values(image: Image.Image) -> Values:
    return np.asarray(image) / np.float32(255)


def _scale(x: Values) -> float:
    """What lengths in pixels are multiplied by."""
    return float((min(x.shape[:2]) / SIZE) ** 0.75)


def _smooth(x: Values, deviation: float) -> Values:
    """Gaussian blur of rows and columns, and not of colours."""
    smooth: Values = ndimage.gaussian_filter(x, (deviation, deviation, 0)[: x.ndim], mode="reflect")
    return smooth


def _filter(x: Values, kernel: Values) -> Values:
    """The image filtered by an odd kernel, of whatever sum; beyond its edge the image is its own reflection."""
    kernel = kernel / kernel.sum()
    margins = [(side // 2, side // 2) for side in kernel.shape] + [(0, 0)] * (x.ndim - 2)
    padded = np.pad(x, margins, mode="symmetric")
    filtered: Values = fftconvolve(padded, kernel.reshape(*kernel.shape, *[1] * (x.ndim - 2)), "valid", axes=(0, 1))
    return filtered.astype(np.float32)


def _streak(length: float, deviation: float, degrees: float) -> Values:
    """A kernel that smears along a direction, to one side, ever less: half a Gaussian, cut off at twice its length."""
    reach = int(np.ceil(2 * length)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), dtype=np.float32)
    along = np.arange(0, 2 * length + 0.25, 0.25)
    rows = reach + along * np.sin(np.radians(degrees))
    columns = reach + along * np.cos(np.radians(degrees))
    weights = np.exp(-((along / max(deviation, 0.1)) ** 2) / 2)
    for row, of_row in ((np.floor(rows), 1 - rows % 1), (np.floor(rows) + 1, rows % 1)):
        for column, of_column in ((np.floor(columns), 1 - columns % 1), (np.floor(columns) + 1, columns % 1)):
            np.add.at(kernel, (row.astype(int), column.astype(int)), weights * of_row * of_column)
    return kernel


def _field(x: Values, decay: float, rng: np.random.Generator) -> Values:
    """A random field from 0 to 1, (height, width), of which each octave is 2^decay times as faint as the one below."""
    height, width = x.shape[:2]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    # An octave at frequency f holds f^2 modes.
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) * frequency ** -(decay + 1)
    field = np.fft.irfft2(spectrum, (height, width))
    span = np.ptp(field)
    return ((field - field.min()) / span if span > 0 else np.full_like(field, 0.5)).astype(np.float32)


_Corruption = Callable[[Values, Any, np.random.Generator], Values]

# What each kind does, and its constants at severities 1 to 5.
_STANDARD: dict[str, tuple[_Corruption, tuple[Any, ...]]] = {
    "gaussian_noise": (_gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": (_shot_noise, (60, 25, 12, 5, 3)),
    "impulse_noise": (_impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus_blur": (_defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    "glass_blur": (_glass_blur, ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))),
    "motion_blur": (_motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    "zoom_blur": (_zoom_blur, ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))),
    "snow": (
        _snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": (_frost, ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))),
    "fog": (_fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    "brightness": (_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": (
        _elastic_transform,
        ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
    ),
    "pixelate": (_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": (_jpeg_compression, (25, 18, 15, 10, 7)),
}
_MORE: dict[str, tuple[_Corruption, tuple[Any, ...]]] = {
    "speckle_noise": (_speckle_noise, (0.15, 0.2, 0.35, 0.45, 0.6)),
    "gaussian_blur": (_gaussian_blur, (1, 2, 3, 4, 6)),
    "spatter": (
        _spatter,
        (
            (0.65, 0.3, 4, 0.69, 0.6, False),
            (0.65, 0.3, 3, 0.68, 0.6, False),
            (0.65, 0.3, 2, 0.68, 0.5, False),
            (0.65, 0.3, 1, 0.65, 1.5, True),
            (0.67, 0.4, 1, 0.65, 1.5, True),
        ),
    ),
    "saturate": (_saturate, ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))),
}
_KINDS = {**_STANDARD, **_MORE}
KINDS = tuple(_STANDARD)
EXTRA = tuple(_MORE)
