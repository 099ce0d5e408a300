"""The kinds of image corruption: the 15 + 4 of ImageNet-C (Hendrycks & Dietterich 2019), each at five severities.

A kind is one function below: its name is the name of the kind, its decorator holds the constants of severities 1 to 5.
Nothing else has to know of it. Benchmark files are checked against these names, so that this file is imported for every
list of benchmarks: NumPy, Pillow and SciPy are imported when the first image is corrupted.

The formulas and constants are the published ones. The code is our own, and its images are not those of the published
files, which are read as folders. The differences:

- The image is never written as JPEG.
- Lengths in pixels, meant for 224, shrink with the shorter side to the power 3/4. That is near the constants of
  CIFAR-10-C at 32.
- Fog is a random field of the same spectrum, not a plasma fractal. Frost is drawn, not photographed.
- Pixels behind glass are drawn from their surroundings, not swapped in turn. Water drops are shaded by their slope.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pytest_qreliab.lazy import LazyModule

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image
    from scipy import ndimage, signal

    Values = npt.NDArray[np.floating]  # (height, width, 3) or (height, width), black is 0, white is 1
    Apply = Callable[[Values, Any, np.random.Generator], Values]
else:
    np, ndimage, signal, Image = map(LazyModule, ("numpy", "scipy.ndimage", "scipy.signal", "PIL.Image"))

SEVERITIES = (1, 2, 3, 4, 5)
SIZE = 224  # pixels: the shorter side that lengths are meant for


class CorruptionMethod(NamedTuple):
    """How images are corrupted in one way."""

    apply: Apply  # an image, a constant and a generator to the corrupted image, which may leave [0, 1]
    constants: tuple[Any, ...]  # one for each of `SEVERITIES`


STANDARD_KINDS: dict[str, CorruptionMethod] = {}  # the 15 that a mean corruption error is over
EXTRA_KINDS: dict[str, CorruptionMethod] = {}


def _standard(*constants: Any) -> Callable[[Apply], Apply]:
    return lambda apply: STANDARD_KINDS.setdefault(apply.__name__, CorruptionMethod(apply, constants)).apply


def _extra(*constants: Any) -> Callable[[Apply], Apply]:
    return lambda apply: EXTRA_KINDS.setdefault(apply.__name__, CorruptionMethod(apply, constants)).apply


@_standard(0.08, 0.12, 0.18, 0.26, 0.38)
def gaussian_noise(x: Values, deviation: float, rng: np.random.Generator) -> Values:
    """Add normal noise of a standard deviation."""
    return x + deviation * rng.standard_normal(x.shape, dtype=np.float32)


@_standard(60, 25, 12, 5, 3)
def shot_noise(x: Values, photons: float, rng: np.random.Generator) -> Values:
    """Draw Poisson counts; the constant is the number of photons at white."""
    return (rng.poisson(x * photons) / photons).astype(np.float32)


@_standard(0.03, 0.06, 0.09, 0.17, 0.27)
def impulse_noise(x: Values, share: float, rng: np.random.Generator) -> Values:
    """Set a share of all values, colour by colour, to 0 or 1."""
    drawn = rng.random(x.shape, dtype=np.float32)
    return np.where(drawn < share, np.float32(drawn < share / 2), x)


@_extra(0.15, 0.2, 0.35, 0.45, 0.6)
def speckle_noise(x: Values, deviation: float, rng: np.random.Generator) -> Values:
    """Add normal noise in proportion to the light."""
    return x + x * deviation * rng.standard_normal(x.shape, dtype=np.float32)


@_extra(1, 2, 3, 4, 6)
def gaussian_blur(x: Values, deviation: float, rng: np.random.Generator) -> Values:
    """Blur by a Gaussian of a standard deviation."""
    return _smooth(x, deviation * _scale(x))


@_standard((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
def defocus_blur(x: Values, constants: tuple[float, float], rng: np.random.Generator) -> Values:
    """Blur by a disk of a radius, whose edge is softened by a standard deviation."""
    radius, softness = constants[0] * _scale(x), constants[1]
    reach = int(np.ceil(radius + 3 * softness))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = np.clip(radius + 0.5 - np.hypot(rows, columns), 0, 1).astype(np.float32)
    return _filter(x, ndimage.gaussian_filter(disk, softness, mode="constant"))


@_standard((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
def glass_blur(x: Values, constants: tuple[float, int, int], rng: np.random.Generator) -> Values:
    """Blur, draw each pixel from those within a reach so many times, and blur again.

    The constants are the deviation of the blurs, the reach and the number of times.
    """
    deviation, farthest, times = constants[0] * _scale(x), 0.5 + constants[1] * _scale(x), constants[2]
    height, width = x.shape[:2]
    x = _smooth(x, deviation)
    for _ in range(times):
        rows, columns = np.rint(rng.uniform(-farthest, farthest, (2, height, width))).astype(np.intp)
        rows += np.arange(height)[:, None]
        columns += np.arange(width)
        x = x[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    return _smooth(x, deviation)


@_standard((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
def motion_blur(x: Values, constants: tuple[float, float], rng: np.random.Generator) -> Values:
    """Smear along a random direction; the constants are the length and the deviation of the streak."""
    return _filter(x, _streak(constants[0] * _scale(x), constants[1] * _scale(x), rng.uniform(-45, 45)))


@_standard((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
def zoom_blur(x: Values, constants: tuple[float, float], rng: np.random.Generator) -> Values:
    """Average over magnifications; the constants are the end of their range and the step."""
    image = _image(x)
    width, height = image.size
    total, zooms = x.copy(), np.arange(1, *constants)
    for zoom in zooms:
        margins = width * (1 - 1 / zoom) / 2, height * (1 - 1 / zoom) / 2
        box = (*margins, width - margins[0], height - margins[1])
        total += _values(image.resize(image.size, Image.Resampling.BILINEAR, box=box))
    return total / (len(zooms) + 1)


@_standard(
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
def snow(x: Values, constants: tuple[float, ...], rng: np.random.Generator) -> Values:
    """Let flakes fall.

    The constants are the mean and the deviation of the layer of flakes, their size, the least that shows, the length
    and the deviation of their streaks, and the share of the image that stays clear.
    """
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


@_standard((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
def frost(x: Values, constants: tuple[float, float], rng: np.random.Generator) -> Values:
    """Mix the image with frost: bluish crystals along the ridges of a dense random field.

    The constants are the shares of the image and of the frost.
    """
    density, ridges = _field(x, 1.0, rng), 1 - np.abs(2 * _field(x, 0.7, rng) - 1)
    crystals = np.clip(0.18 + 0.3 * density + 0.6 * ridges**3 * (0.4 + density), 0, 1)
    frost: Values = crystals[..., None] * np.array([0.88, 0.95, 1.0], dtype=np.float32)
    return constants[0] * x + constants[1] * frost


@_standard((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))
def fog(x: Values, constants: tuple[float, float], rng: np.random.Generator) -> Values:
    """Add a cloudy field at the image's own contrast.

    The constants are how thick it is and the factor by which its roughness decays per octave.
    """
    thickness, decay = constants
    brightest = max(float(x.max()), 1e-3)
    return (x + thickness * _field(x, float(np.log2(decay)), rng)[..., None]) * brightest / (brightest + thickness)


@_extra(
    (0.65, 0.3, 4, 0.69, 0.6, False),
    (0.65, 0.3, 3, 0.68, 0.6, False),
    (0.65, 0.3, 2, 0.68, 0.5, False),
    (0.65, 0.3, 1, 0.65, 1.5, True),
    (0.67, 0.4, 1, 0.65, 1.5, True),
)
def spatter(x: Values, constants: tuple[float, ...], rng: np.random.Generator) -> Values:
    """Splash water, or mud, wherever a smooth random layer exceeds a threshold.

    The constants are the mean, deviation and smoothness of the layer, the threshold, the strength, and whether it is
    mud.
    """
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


@_standard(0.1, 0.2, 0.3, 0.4, 0.5)
def brightness(x: Values, more: float, rng: np.random.Generator) -> Values:
    """Raise the value of hue, saturation and value."""
    value: Values = x.max(axis=2, keepdims=True)
    raised = np.clip(value + more, 0, 1)
    brighter: Values = np.where(value > 0, x * raised / np.maximum(value, 1e-6), raised)
    return brighter


@_standard(0.4, 0.3, 0.2, 0.1, 0.05)
def contrast(x: Values, factor: float, rng: np.random.Generator) -> Values:
    """Scale the differences from the mean colour."""
    mean: Values = x.mean(axis=(0, 1))
    return (x - mean) * factor + mean


@_extra((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))
def saturate(x: Values, constants: tuple[float, float], rng: np.random.Generator) -> Values:
    """Multiply the saturation and add to it; grey counts as red."""
    value: Values = x.max(axis=2, keepdims=True)
    away = value - x
    chroma: Values = away.max(axis=2, keepdims=True)
    hue = np.where(chroma > 0, away / np.maximum(chroma, 1e-6), [0, 1, 1])
    saturation = chroma / np.maximum(value, 1e-6) * constants[0] + constants[1]
    return value * (1 - np.clip(saturation, 0, 1) * hue)


@_standard((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
def elastic_transform(x: Values, constants: tuple[float, float, float], rng: np.random.Generator) -> Values:
    """Displace pixels smoothly.

    The constants are the displacement, its smoothness, and the shift of three corners, in units of the shorter side.
    """
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


@_standard(0.6, 0.5, 0.4, 0.3, 0.25)
def pixelate(x: Values, share: float, rng: np.random.Generator) -> Values:
    """Reduce to a share of the size and enlarge again."""
    image = _image(x)
    small = image.resize([max(1, int(side * share)) for side in image.size], Image.Resampling.BOX)
    return _values(small.resize(image.size, Image.Resampling.BOX))


@_standard(25, 18, 15, 10, 7)
def jpeg_compression(x: Values, quality: int, rng: np.random.Generator) -> Values:
    """Compress as JPEG of a quality."""
    buffer = io.BytesIO()
    _image(x).save(buffer, "JPEG", quality=quality)
    return _values(Image.open(buffer))


def _image(x: Values) -> Image.Image:
    return Image.fromarray(np.rint(x * 255).astype(np.uint8))


def _values(image: Image.Image) -> Values:
    return np.asarray(image) / np.float32(255)


def _scale(x: Values) -> float:
    """Return the factor for lengths in pixels."""
    return float((min(x.shape[:2]) / SIZE) ** 0.75)


def _smooth(x: Values, deviation: float) -> Values:
    """Blur rows and columns, not colours, by a Gaussian."""
    smooth: Values = ndimage.gaussian_filter(x, (deviation, deviation, 0)[: x.ndim], mode="reflect")
    return smooth


def _filter(x: Values, kernel: Values) -> Values:
    """Filter by an odd kernel, normalised; beyond its edge the image is its own reflection."""
    kernel = kernel / kernel.sum()
    margins = [(side // 2, side // 2) for side in kernel.shape] + [(0, 0)] * (x.ndim - 2)
    padded = np.pad(x, margins, mode="symmetric")
    filtered: Values = signal.fftconvolve(
        padded, kernel.reshape(*kernel.shape, *[1] * (x.ndim - 2)), "valid", axes=(0, 1)
    )
    return filtered.astype(np.float32)


def _streak(length: float, deviation: float, degrees: float) -> Values:
    """Return a kernel that smears to one side: half a Gaussian, cut off at twice its length."""
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
    """Return a random field in [0, 1], (height, width); each octave is 2^decay times as faint as the one below."""
    height, width = x.shape[:2]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    # An octave at frequency f holds f^2 modes.
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) * frequency ** -(decay + 1)
    field = np.fft.irfft2(spectrum, (height, width))
    span = np.ptp(field)
    return ((field - field.min()) / span if span > 0 else np.full_like(field, 0.5)).astype(np.float32)


# What a benchmark file may write, which its JSON Schema lists.
if TYPE_CHECKING:
    StandardName = str
    ExtraName = str
else:
    StandardName = Literal[tuple(STANDARD_KINDS)]
    ExtraName = Literal[tuple(EXTRA_KINDS)]
