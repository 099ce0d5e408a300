"""The output of a command; this module imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text


@dataclass(frozen=True)
class CommandOutput:
    """The output of a command."""

    lines: list[Text]
    exit_code: int = 0  # 1: data or results are missing, damaged, failed or worse
