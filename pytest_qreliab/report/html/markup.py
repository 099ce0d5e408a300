"""Build escaped HTML from Python calls."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterator
from html import escape

from pytest_qreliab.report.formatting import number
from pytest_qreliab.report.records import GateRecord

VOID = ("input", "wbr")  # elements that have no end


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, *inside: str, **attributes: str | int | None) -> Markup:
    """An element. What is inside is escaped unless it is markup; attributes that are None are left out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    content = "".join(text if isinstance(text, Markup) else escape(text) for text in inside)
    return Markup(f"<{name}{given}>{content}" + f"</{name}>" * (name not in VOID))


def as_json(value: object) -> str:
    """JSON that a script element holds: without `<` nothing in it ends the element or opens a comment."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).replace("<", r"\u003c")


def content_digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


SIGNS = {
    "pass": ("✓", "pass"),
    "fail": ("✗", "fail"),
    "inconclusive": ("?", "inconclusive"),
    "unsettled": ("✗?", "inconclusive, which fails"),
}


def gate_state(gate: GateRecord) -> str:
    """The outcome, with one of its own where the thresholds let an inconclusive gate fail."""
    return "unsettled" if gate["outcome"] == "inconclusive" and not gate["passed"] else gate["outcome"]


def sign(state: str) -> Markup:
    sign, words = SIGNS[state]
    return tag("b", sign, class_=state, role="img", aria_label=words)


def number_cell(value: float, sign: str = "") -> str:
    """With a real minus, which is as wide as the plus and read aloud, and none before zero."""
    return number(round(value, 4) + 0.0 if abs(value) < 100 else value, sign).replace("-", "−")


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def scroller(table: Markup, label: str) -> Markup:
    """What is wider than a phone, in a frame of its own that the keyboard can move."""
    return tag("div", table, class_="scroll", role="region", tabindex=0, aria_label=label)


def option_tags(found: dict[str, str]) -> Iterator[Markup]:
    return (tag("option", text, value=value) for value, text in found.items())


def shorten(value: float) -> float:
    """Three digits, more than a chart can show."""
    short = float(f"{value:.3g}")
    return int(short) if short.is_integer() else short


def finite_or_none(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
