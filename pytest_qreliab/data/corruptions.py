"""Corrupt images on the fly.

One image, kind, severity and seed give the same pixels on every machine, in whatever order images are corrupted.
"""

from __future__ import annotations

import numpy as np

from pytest_qreliab.config.corruption_kinds import EXTRA_KINDS, SEVERITIES, STANDARD_KINDS
from pytest_qreliab.data.images import Pixels
from pytest_qreliab.errors import unknown
from pytest_qreliab.hashing import bytes_digest


def corrupt(image: Pixels, kind: str, severity: int, seed: int = 0) -> Pixels:
    """Return the corrupted image.

    Args:
        image: RGB pixels, uint8 (height, width, 3).
        kind: A kind of `config.corruption_kinds`, such as `fog`.
        severity: From 1 to 5.
        seed: Another seed gives other noise.

    Returns:
        Pixels of the same shape, uint8.

    Raises:
        InputError: The kind is unknown.
        ValueError: The severity is not 1 to 5, or the image has another shape or type.
    """
    kinds = {**STANDARD_KINDS, **EXTRA_KINDS}
    if kind not in kinds:
        raise unknown("corruption", kind, kinds)
    if severity not in SEVERITIES:
        raise ValueError(f"the severity is {severity!r}, not one of 1 to 5")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"the image is {image.dtype} of shape {image.shape}, not uint8 of (height, width, 3)")
    described = f"{seed} {kind} {severity} {image.shape}".encode()
    rng = np.random.default_rng(int(bytes_digest(described, np.ascontiguousarray(image).data), 16))
    values = kinds[kind].apply(image.astype(np.float32) / 255, kinds[kind].constants[severity - 1], rng)
    corrupted: Pixels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return corrupted
