"""Making the names of image sets: `in_distribution`, `shift.sketch`, `corruption.fog.3`, `ood.near.letters`.

`pytest_qreliab.metrics.names.SetName` takes them apart.
"""

from __future__ import annotations

import re

IN_DISTRIBUTION, CALIBRATION = "in_distribution", "calibration"
CAPTIONS = "captions"  # the images of image-caption pairs, which nothing is measured on

# The beginnings of the other names.
SHIFT, CORRUPTION, SPURIOUS, OOD = "shift.", "corruption.", "spurious.", "ood."

FORMS = (
    "in_distribution",
    "calibration",
    "shift.NAME",
    "corruption.KIND.SEVERITY",
    "spurious.NAME",
    "ood.near.NAME",
    "ood.far.NAME",
)
_FORM = re.compile(
    r"in_distribution|calibration|corruption\.[a-z_]+\.[1-5]"
    r"|(shift|spurious|ood\.near|ood\.far)\.[A-Za-z0-9][A-Za-z0-9_-]*"
)


def is_set_name(text: str) -> bool:
    """Return whether the text has one of the `FORMS`."""
    return bool(_FORM.fullmatch(text))


def corruption_cell(kind: str, severity: int) -> str:
    """Return the name of the images under one corruption at one severity."""
    return f"{CORRUPTION}{kind}.{severity}"


def ood_set(name: str, *, near: bool) -> str:
    """Return the full name of an OOD set."""
    return f"{OOD}{'near' if near else 'far'}.{name}"
