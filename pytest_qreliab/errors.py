"""The one kind of error that a user's input can raise, and the words to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave (option, YAML, path, checkpoint, image) cannot be used.

    The message stands alone: it names the option, file or line, what was wrong, what is allowed and
    how to mend it. The plugin shows it without a traceback.
    """


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name most like `name`, whatever its case; None where none is alike."""
    folded = {choice.casefold(): choice for choice in valid}
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    return folded[near[0]] if near else None


def unknown(what: str, name: str, valid: Iterable[str], *, hint: str = "") -> InputError:
    """An InputError for a name that is not among `valid`, with the nearest match first."""
    choices = sorted(valid)
    parts = [f"unknown {what} {name!r}"]
    if (near := nearest(name, choices)) is not None:
        parts.append(f"did you mean {near!r}?")
    shown = ", ".join(choices[:12]) + (f", ... ({len(choices)} in all)" if len(choices) > 12 else "")
    parts.append(f"valid: {shown}" if choices else "there is none to choose from")
    if hint:
        parts.append(hint)
    return InputError("; ".join(parts))
