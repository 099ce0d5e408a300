"""Signs, numbers and words as the tables of the page show them."""

from __future__ import annotations

from pytest_qreliab.report.formatting import number
from pytest_qreliab.report.html.markup import Markup, breakable, tag
from pytest_qreliab.report.records import GateRecord

SIGNS = {
    "pass": ("✓", "pass"),
    "fail": ("✗", "fail"),
    "inconclusive": ("?", "inconclusive"),
    "unsettled": ("✗?", "inconclusive, which fails"),
}
WORD_COLUMNS = ("model", "benchmark", "bits", "scope")  # all others hold numbers
LONG = 28  # letters: what is longer may break


def gate_state(gate_record: GateRecord) -> str:
    """Return the outcome, or `unsettled` if the thresholds refuse an inconclusive one."""
    refused = gate_record["outcome"] == "inconclusive" and not gate_record["passed"]
    return "unsettled" if refused else gate_record["outcome"]


def sign(state: str) -> Markup:
    """Return the sign of a state, with words for screen readers."""
    character, words = SIGNS[state]
    return tag("b", character, class_=state, role="img", aria_label=words)


def verdict_sign(passed: bool) -> Markup:
    """Return the sign of a case or a run."""
    return sign("pass" if passed else "fail")


def number_text(value: float, plus: str = "") -> str:
    """Format a number for a table.

    Its minus is as wide as the plus and read aloud. A zero has none.

    Args:
        value: Any number, also NaN or infinite.
        plus: "+" shows the sign of positive numbers too.
    """
    return number(round(value, 4) + 0.0 if abs(value) < 100 else value, plus).replace("-", "−")


def word_cell(column: str, text: str) -> Markup:
    """Return a cell of a column that may hold words."""
    if len(text) > LONG:
        return tag("td", *breakable(text), class_="text long")
    return tag("td", text, class_=column_class(column))


def column_class(column: str) -> str | None:
    """Return the class of the cells of a column, None for numbers."""
    return "text" if column in WORD_COLUMNS else None
