"""Models: what a CLIP is here, and where full-precision ones come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_qreliab.models.clip import Clip

TINY_DIGITS = "tiny-digits"


def check(name: str) -> None:
    """Raise InputError, with the nearest valid name, unless `name` can be loaded."""
    from pytest_qreliab.models import openclip

    if name != TINY_DIGITS:
        openclip.check(name)


def load(name: str) -> Clip:
    """The full-precision model of that name, on the CPU, in eval mode. Raises InputError."""
    from pytest_qreliab.models import embedded, openclip

    return embedded.load() if name == TINY_DIGITS else openclip.load(name)
