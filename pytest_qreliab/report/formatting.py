"""Format numbers and sizes for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def number(value: float, sign: str = "") -> str:
    """Four decimals, or four digits where those are fewer; `sign` "+" shows it always."""
    return f"{value:{sign}.4f}" if not abs(value) >= 100 else f"{value:{sign}.4g}"


def size_in_words(count: float) -> str:
    """Bytes in words."""
    power = next((power for power in (3, 2) if count >= 1000**power), 1)
    return f"{count / 1000**power:.3g} {' kMG'[power]}B"
