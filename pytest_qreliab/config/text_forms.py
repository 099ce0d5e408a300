"""Forms of text: names of either Unicode form, and text that a terminal or a file can hold in one line."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

JOINERS = "\u200c\u200d"  # letters of some scripts and parts of an emoji are joined by them


def printable(text: str) -> str:
    """Return text on one line in which nothing steers a terminal: what does not print is written as an escape."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in JOINERS else letter.encode("unicode_escape").decode()
        for letter in text
    )


def composed(text: str) -> str:
    """Return a text in NFC, in which all names are compared.

    macOS writes an accent as a character of its own, most others do not.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def as_on_disk(path: Path) -> Path:
    """Return a path in the Unicode form that its file or folder has; as it is if there is neither."""
    text = str(path)
    if text.isascii() or os.path.lexists(text):
        return path
    found = Path(path.anchor)
    for part in path.parts[1 if path.anchor else 0 :]:
        forms = (part, unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part))
        found /= next((form for form in forms if os.path.lexists(found / form)), part)
    return found
