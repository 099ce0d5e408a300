"""Words that messages about many files or samples share."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_qreliab.config.text_forms import printable

SHOWN = 5


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 image`, `1,000 images`, `2 classes`."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{plural * (number != 1)}"


def first_few(names: Sequence[str]) -> str:
    """Return at most five of some names in one line, and how many more there are."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(map(printable, names[:SHOWN])) + more
