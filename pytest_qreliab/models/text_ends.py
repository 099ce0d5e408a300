"""Texts without what stands behind their end, for text towers that do not look there.

Tokenizers fill all texts up to one length. A tower with a causal mask that is read at the end of the text computes the
padding behind it for nothing. Whether a tower is of that kind is seen from what it does, and not from its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pytest_qreliab.models.clip import Clip

TRIALS = 4  # prompts on which padding is tried
SAME = 1e-4  # of the length of a feature; shorter products are added up in another order


@dataclass(frozen=True)
class TextEnd:
    """The end of a text, behind which no token changes a feature."""

    padding: int  # the token that texts are filled up with
    kept: int  # how many of them belong to a text: 1 if the padding token also ends it, else 0

    def lengths(self, tokens: Any) -> torch.Tensor:
        """Return how many tokens of each text count, int64 (texts,)."""
        ids = token_ids(tokens)
        assert ids is not None
        behind = (ids == self.padding).flip(1).long().cumprod(1).sum(1)
        return (ids.shape[1] - behind + self.kept).clamp(max=ids.shape[1])


def token_ids(tokens: Any) -> torch.Tensor | None:
    """Return the numbers of tokens, int64 (texts, length); None if a tokenizer returned something else."""
    ids = tokens.get("input_ids") if isinstance(tokens, Mapping) else tokens
    usable = isinstance(ids, torch.Tensor) and ids.ndim == 2 and not ids.is_floating_point()
    return ids if usable else None


@torch.no_grad()
def find_text_end(clip: Clip, prompts: Sequence[str]) -> TextEnd | None:
    """Find where texts end for a text tower.

    Some prompts are encoded twice more: with other tokens in the place of the padding, which must not change a bit of
    the features, and cut behind the end, which must give the same features but for the order of sums.

    Args:
        clip: The model.
        prompts: Some of those that are to be encoded. Of more than four, four are tried.

    Returns:
        The end, or None if what stands behind it changes features, or the tower takes no shorter texts.
    """
    some = [prompts[place * len(prompts) // TRIALS] for place in range(min(TRIALS, len(prompts)))]
    tokens, short = clip.tokenizer(some), token_ids(clip.tokenizer(["a"]))
    ids = token_ids(tokens)
    if ids is None or short is None or ids.shape[1] != short.shape[1]:
        return None
    plain = clip.layout.encode_text(clip.module, tokens, clip.device)
    for end in (TextEnd(int(short[0, -1]), kept) for kept in (0, 1)):
        with suppress(Exception):  # of any kind: the tower may be the user's, and need not take other tokens
            if _changes_nothing(clip, tokens, end, plain):
                return end
    return None


def _changes_nothing(clip: Clip, tokens: Any, end: TextEnd, plain: torch.Tensor) -> bool:
    """Return whether other tokens behind the end, or none, leave features as they are."""
    ids, lengths = token_ids(tokens), end.lengths(tokens)
    assert ids is not None
    behind = torch.arange(ids.shape[1], device=ids.device) >= lengths[:, None]
    others = ids.where(~behind, ids[:, :1])
    if torch.equal(others, ids):
        return False  # nothing was tried
    filled = {**tokens, "input_ids": others} if isinstance(tokens, Mapping) else others
    if not torch.equal(plain, clip.layout.encode_text(clip.module, filled, clip.device)):
        return False
    cut = encode_cut(clip, tokens, int(lengths.max()))
    return bool(((cut - plain).norm(dim=1) <= SAME * plain.norm(dim=1)).all())


@torch.no_grad()
def encode_cut(clip: Clip, tokens: Any, length: int) -> torch.Tensor:
    """Encode texts that are cut to a number of tokens.

    Args:
        clip: The model, which takes shorter texts.
        tokens: What its tokenizer returned for the texts.
        length: The number of tokens, at least that of the longest text.

    Returns:
        Features (texts, dim), not normalised.
    """
    ids = token_ids(tokens)
    assert ids is not None
    with _context_length(clip.module, ids.shape[1], length):
        return clip.layout.encode_text(clip.module, _each(tokens, lambda part: part[:, :length]), clip.device)


def take_texts(tokens: Any, rows: torch.Tensor) -> Any:
    """Return the tokens of some texts, given by their rows, int64 (k,)."""
    return _each(tokens, lambda part: part[rows])


def _each(tokens: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return tokens with each of their tensors changed, as of ids and of an attention mask."""
    return {key: change(part) for key, part in tokens.items()} if isinstance(tokens, Mapping) else change(tokens)


@contextmanager
def _context_length(module: nn.Module, whole: int, length: int) -> Iterator[None]:
    """Make a text tower with masks and positions for a number of tokens take fewer."""
    before: list[tuple[nn.Module, str, torch.Tensor]] = []
    try:
        for part in module.modules():
            positions, mask = getattr(part, "positional_embedding", None), getattr(part, "attn_mask", None)
            if isinstance(positions, nn.Parameter) and positions.ndim == 2 and len(positions) == whole:
                before.append((part, "positional_embedding", positions))
                part.positional_embedding = nn.Parameter(positions[:length], requires_grad=False)
            if isinstance(mask, torch.Tensor) and mask.shape == (whole, whole):
                before.append((part, "attn_mask", mask))
                part.attn_mask = mask[:length, :length]
        yield
    finally:
        for part, name, value in before:
            setattr(part, name, value)
