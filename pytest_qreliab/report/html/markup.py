"""Escaped HTML, built by calls of Python."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from html import escape

VOID = ("input", "wbr")  # elements that have no end


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, *content: str, **attributes: str | int | None) -> Markup:
    """Return an element.

    Args:
        name: The name of the element.
        content: What the element holds. It is escaped unless it is markup.
        attributes: The attributes, with `_` for `-`; a last `_` keeps a name apart from Python's. None leaves one out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = "".join(text if isinstance(text, Markup) else escape(text) for text in content)
    return Markup(f"<{name}{written}>{inside}" + f"</{name}>" * (name not in VOID))


def script_json(value: object) -> str:
    """Return JSON for a script element.

    It has no `<`, which could end the element or open a comment.
    """
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).replace("<", r"\u003c")


def content_digest(text: str) -> str:
    """Return the digest by which a policy allows a style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def breakable(name: str) -> Iterator[str]:
    """Yield the parts of a name, with line breaks allowed between them."""
    for index, part in enumerate(re.split(r"(?<=[._/])", name)):
        if index:
            yield tag("wbr")
        yield part


def scroll_frame(table: Markup, label: str) -> Markup:
    """Return a frame in which the keyboard scrolls a wide table."""
    return tag("div", table, class_="scroll", role="region", tabindex=0, aria_label=label)


def select(id: str, choices: Mapping[str, str]) -> Markup:
    """Return a list to choose from.

    Args:
        id: The id of the element.
        choices: The text of each choice by its value.
    """
    return tag("select", *(tag("option", text, value=value) for value, text in choices.items()), id=id)
