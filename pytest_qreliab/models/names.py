"""Names of the models that the package ships."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


TINY_DIGITS = "tiny-digits"
