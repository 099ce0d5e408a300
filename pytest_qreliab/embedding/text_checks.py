"""Check what texts came to: prompts that a tokenizer cuts, and classes that the text features do not tell apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pytest_qreliab.errors import InputError

Tokenizer = Callable[..., Any]

# Unit rows of the same tokens differ by less, in whatever batch they are. Those of two words differ by far more.
SAME = 1e-6
BLOCK = 1024  # classes that are compared with all others at once


@dataclass
class CutWatch:
    """A tokenizer that also notes which prompts it cuts.

    It passes on what the tokenizer returns. Prompts that fill all places are looked at afterwards.
    """

    tokenizer: Tokenizer
    _full: dict[str, None] = field(default_factory=dict, init=False)

    def __call__(self, texts: list[str]) -> Any:
        """Return the tokens of texts."""
        found = self.tokenizer(texts)
        tokens = _rows(found, len(texts))
        if tokens is not None:
            full = self._counts(tokens) == tokens.shape[1]
            self._full.update({texts[row]: None for row in full.nonzero().flatten().tolist()})
        return found

    def cut(self) -> list[str]:
        """Return the prompts whose end the tokenizer cut off, as far as tokens show.

        A tokenizer that takes a `context_length`, as open_clip's do, is asked for one more token: a prompt is cut if
        it fills that one too. Of another tokenizer a prompt is cut if its last word changes nothing.
        """
        full = list(self._full)
        tokens = self._tokens(full)
        if tokens is None:
            return []
        length = tokens.shape[1]
        longer = self._tokens(full, context_length=length + 1)
        if longer is not None and longer.shape[1] == length + 1:
            return [full[row] for row in (self._counts(longer) > length).nonzero().flatten().tolist()]
        words = [prompt for prompt in full if len(prompt.split()) > 1]
        whole, shorter = self._tokens(words), self._tokens([prompt.rsplit(None, 1)[0] for prompt in words])
        if whole is None or shorter is None or whole.shape != shorter.shape:
            return []
        return [words[row] for row in (whole == shorter).all(dim=1).nonzero().flatten().tolist()]

    def _counts(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return how many tokens of each row are no padding."""
        return (
            torch.sum(tokens.cpu().ne(self._padding), dim=1) if self._padding is not None else torch.zeros(len(tokens))
        )

    @cached_property
    def _padding(self) -> int | None:
        """The token that short texts are filled up with; None if it cannot be known."""
        one = self._tokens(["a"])
        return None if one is None else int(one.mode().values)

    def _tokens(self, texts: list[str], **options: int) -> torch.Tensor | None:
        """Return the tokens of texts; None if there are none, or the tokenizer does not take the options."""
        try:
            return _rows(self.tokenizer(texts, **options), len(texts)) if texts else None
        except Exception:  # of any kind: the tokenizer may be the user's, and what it cannot do is then not known
            return None


def cut_warning(name: str, count: int, first: str, of: int) -> str:
    """Return the warning of prompts that are cut.

    Args:
        name: Of the model.
        count: Of the prompts that are cut.
        first: The first of them.
        of: The number of all prompts.
    """
    return f"model {name!r}: its tokenizer cuts {count} of {of} prompts, the first of them: {first!r}"


def check_distinct(name: str, classes: Sequence[str], classifier: npt.NDArray[np.float32], cut: bool = False) -> None:
    """Raise InputError if two classes have the same text features, so that no image can tell them apart.

    Args:
        name: Of the model.
        classes: The names of the classes.
        classifier: Their text features, (classes, dim), unit rows.
        cut: Whether the tokenizer cuts prompts, which the message then gives as the cause.
    """
    for start in range(0, len(classifier), BLOCK):
        rows = classifier[start : start + BLOCK]
        near = np.argwhere(rows @ classifier.T > 1 - 1e-5)
        for row, other in near + np.array([start, 0]):
            if row < other and float(np.abs(classifier[row] - classifier[other]).max()) <= SAME:
                cause = "its tokenizer cuts their prompts; write shorter ones" if cut else "give each words of its own"
                raise InputError(
                    f"model {name!r}: the classes {classes[row]!r} and {classes[other]!r} have the same text features: "
                    f"{cause}"
                )


def _rows(found: Any, count: int) -> torch.Tensor | None:
    """Return what a tokenizer gave as tokens, (texts, length); None if it is something else."""
    tokens = found.get("input_ids") if isinstance(found, Mapping) else found
    if not isinstance(tokens, torch.Tensor) or tokens.ndim != 2 or len(tokens) != count or tokens.is_floating_point():
        return None
    return tokens
