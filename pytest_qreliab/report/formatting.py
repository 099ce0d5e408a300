"""Numbers and sizes as people read them."""

from __future__ import annotations

import math


def number(value: float, sign: str = "") -> str:
    """Format a number with four decimals, from 100 on four digits.

    Args:
        value: Any number, also NaN or infinite.
        sign: "+" shows the sign of positive numbers too.
    """
    return f"{value:{sign}.4f}" if not abs(value) >= 100 else f"{value:{sign}.4g}"


def percent(share: float) -> str:
    """Format a share in per cent, rounded down: what is not all is never 100.0%."""
    return f"{math.floor(1000 * share + 1e-6) / 10:.1f}%"


def coverage(weights: float | None, products: float | None) -> str:
    """Format the quantized shares of the weights and of all matrix products.

    Both are None for recorded outputs.
    """
    if weights is None or products is None:
        return "recorded"
    return f"{percent(weights).rstrip('%')}/{percent(products)}"


def size_in_words(count: float) -> str:
    """Format the bytes of a model in kB, MB or GB."""
    power = next((power for power in (3, 2) if count >= 1000**power), 1)
    return f"{count / 1000**power:.3g} {' kMG'[power]}B"


def file_size(count: float) -> str:
    """Format the bytes of files in KiB, MiB or GiB."""
    power = next((power for power in (3, 2) if count >= 1024**power), 1)
    return f"{count / 1024**power:.1f} {' KMG'[power]}iB"


def memory(host: int, device: int) -> str:
    """Format peak memory in GiB.

    Args:
        host: The bytes of the process.
        device: The bytes on an accelerator, 0 if there is none.
    """
    return f"{host / 2**30:.1f} GiB" + (f", {device / 2**30:.1f} GiB on the device" if device else "")
