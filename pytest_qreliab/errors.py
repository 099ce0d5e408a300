"""The one kind of error that a user's input raises, and the words to mend it."""

from __future__ import annotations

import difflib
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path


class InputError(ValueError):
    """An option, YAML file, path, checkpoint or image of the user's that cannot be used.

    The message stands alone. It names the option, file or line, and says what was wrong, what is allowed and how to
    mend it. The plugin shows it without a traceback.
    """


class NotShownError(InputError):
    """Something that a model does not show, such as patch maps."""


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """Return the valid name most like `name`, whatever its case; None if none is alike."""
    folded = {choice.casefold(): choice for choice in valid}
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    return folded[near[0]] if near else None


def unknown(what: str, name: str, valid: Iterable[str], *, hint: str = "") -> InputError:
    """Return an error for a name that is not valid, with the nearest valid one.

    Args:
        what: What the name is for, as in "metric".
        name: The name.
        valid: The names that are valid.
        hint: How to find out more, at the end of the message.
    """
    return InputError("; ".join(filter(None, [f"unknown {what} {name!r}", suggestion(name, valid), hint])))


def suggestion(name: str, valid: Iterable[str]) -> str:
    """Say which valid name is nearest, and which there are."""
    choices = sorted(valid)
    near = nearest(name, choices)
    parts = [f"did you mean {near!r}?"] if near is not None else []
    return "; ".join([*parts, f"valid: {listed(choices, 12)}" if choices else "there is none to choose from"])


def listed(names: Iterable[object], most: int) -> str:
    """Return at most so many names, and how many there are in all if that is not all of them."""
    shown = [str(name) for name in names]
    return ", ".join(shown[:most]) + (f", ... ({len(shown)} in all)" if len(shown) > most else "")


def describe_exception(error: BaseException) -> str:
    """Describe an error of a user's code in one line, with the place in that code."""
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}{': ' if text else ''}{text}{user_code_location(error)}"


def user_code_location(error: BaseException) -> str:
    """Return the innermost ` (file:line)` of an error in a user's code, or nothing.

    Code of this package, of the standard library and of installed packages is not the user's.
    """
    not_theirs = {Path(__file__).parent, Path(sysconfig.get_path("stdlib"))}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if not_theirs.isdisjoint(path.parents) and "site-packages" not in path.parts and path.is_file():
            below = path.is_relative_to(Path.cwd())
            return f" ({path.relative_to(Path.cwd()) if below else path}:{frame.lineno})"
    return ""
