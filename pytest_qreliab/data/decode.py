"""Decode images from files, bytes and arrays: fully, upright, and at most eight bits deep."""

from __future__ import annotations

import io
import threading
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from pytest_qreliab.errors import InputError

LONGEST = 1000  # times the other side: no photograph or line of text is longer

_FILTERS = threading.Lock()
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def image(source: Path | bytes | IO[bytes], what: str) -> Image.Image:
    """Decode the first frame of an image, turned upright by its EXIF data.

    The mode is that of the file, but `L` for 16-bit greyscale. Only pixels and palette are kept. Later steps then
    neither turn the image again nor warn of its transparency.

    Args:
        source: An encoded image.
        what: Names the image in messages.

    Raises:
        InputError: The file is damaged, no image, too large to be one, or of floating-point or 32-bit values.
    """
    readable = source if isinstance(source, Path | bytes) else source.read()
    try:
        try:
            decoded, orientation = _decoded(readable)
        # Where warnings are errors, as they are in many test suites, those of Pillow must not cost an image: ImageNet
        # has some with damaged EXIF data. Filters belong to all threads, hence the lock.
        except Warning:
            with _FILTERS, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                decoded, orientation = _decoded(readable)
    # The decoders of damaged files raise nearly everything: struct.error, IndexError, zlib.error, SyntaxError ...
    except Exception as error:
        raise InputError(f"image {what} cannot be decoded: {_pointer(readable) or _reason(error)}") from None
    _check_sides(decoded, what)
    decoded = _eight_bits(decoded, what)
    decoded.info = {}
    return decoded.transpose(_TO_UPRIGHT[orientation]) if orientation in _TO_UPRIGHT else decoded


def from_array(array: npt.NDArray[Any], what: str) -> Image.Image:
    """Return the image in an array.

    Args:
        array: uint8 (height, width) greyscale or (height, width, 3) RGB, or uint16 (height, width) greyscale, which is
            scaled to eight bits.
        what: Names the image in messages.

    Raises:
        InputError: The array has another type or shape.
    """
    grey, colour = array.ndim == 2, array.ndim == 3 and array.shape[-1] == 3
    if array.size and grey and array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return Image.fromarray(_from_16_bits(array))
    if array.size and (grey or colour) and array.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(array))
    raise InputError(
        f"image {what} is an array {array.dtype} of shape {array.shape}; an image is uint8 (height, width) or "
        "(height, width, 3), or uint16 (height, width): convert it"
    )


def _eight_bits(decoded: Image.Image, what: str) -> Image.Image:
    """Return 16-bit greyscale as `L`; `convert` would not scale but clip, nearly all of it to white."""
    if decoded.mode.startswith("I;16"):
        return Image.fromarray(_from_16_bits(np.asarray(decoded)))
    if decoded.mode not in ("I", "F"):
        return decoded
    values = np.asarray(decoded)
    if decoded.mode == "I" and values.min() >= 0 and values.max() <= 65535:
        return Image.fromarray(_from_16_bits(values))
    kind = "32-bit whole numbers" if decoded.mode == "I" else "floating-point numbers"
    raise InputError(
        f"image {what} holds {kind} from {values.min():g} to {values.max():g}; pixels have 8 bits, or 16 in greyscale "
        "(0 to 65535): save it as an 8-bit PNG"
    )


def _from_16_bits(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Scale 0..65535 to 0..255, rounded: 257 x 255 is 65535."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _decoded(source: Path | bytes) -> tuple[Image.Image, int]:
    """Return the image as it is stored, and its EXIF orientation: 1 to 8, or anything if the data are damaged."""
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
        opened.load()
        try:
            orientation = opened.getexif().get(ExifTags.Base.Orientation, 1)
        except Warning:
            raise
        except Exception:
            orientation = 1  # the pixels are still good
        return opened.copy(), orientation


def _check_sides(decoded: Image.Image, what: str) -> None:
    """Raise InputError for a strip: with its short side as a model wants it, its long side would fill the memory."""
    short, long = sorted(decoded.size)
    if long > LONGEST * short:
        width, height = decoded.size
        raise InputError(
            f"image {what} has {width:,} x {height:,} pixels; a side may be {LONGEST} times as long as the other"
        )


def _pointer(source: Path | bytes) -> str:
    """Return what is wrong if there is a pointer in place of the image, as Git LFS and git-annex leave it."""
    if isinstance(source, bytes):
        start = source[:200]
    elif source.is_file():
        with source.open("rb") as file:
            start = file.read(200)
    else:
        return ""
    for sign, name, mend in ((b"git-lfs", "Git LFS", "git lfs pull"), (b"annex/objects", "git-annex", "git annex get")):
        if sign in start:
            return f"it is a pointer of {name}: fetch the file with `{mend}`"
    return ""


def _reason(error: Exception) -> str:
    # Pillow's own words quote the memory address of what it was given.
    if isinstance(error, UnidentifiedImageError):
        return "it is empty, no image, or of a kind that Pillow does not read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
