"""Images and prompts to try a model on, unlike each other.

A single one hides too much. Black is zero for a model without normalisation, so that its first layer shows nothing. A
layer may be used for some inputs only, or for prompts of some length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

SIDE = 64  # pixels

PROMPTS: Sequence[str] = ("a", "photo of a dog.", "7", "a blurry picture of two old red cars")


def images() -> list[Image.Image]:
    """Return four images: black, white, noise in every channel, and a ramp from dark to bright."""
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    ramp = np.linspace(0, 255, SIDE * SIDE).astype(np.uint8).reshape(SIDE, SIDE)
    plain = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("black", "white")]
    return [*plain, Image.fromarray(noise), Image.fromarray(ramp).convert("RGB")]
