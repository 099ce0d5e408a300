"""The embedded model `tiny-digits`: a small open_clip CLIP that ships with the package and works offline."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from pytest_qreliab.errors import InputError
from pytest_qreliab.models import openclip
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.names import TINY_DIGITS

FOLDER = Path(__file__).parent / "tiny_digits"
WEIGHTS = FOLDER / "open_clip_model.safetensors"
SHA256 = FOLDER / "open_clip_model.safetensors.sha256"


class ByteTokenizer:
    """Text as UTF-8 bytes between a start and an end token: any text, a vocabulary of 258, no files.

    Padding is 0, a byte no text holds; the end token has the highest id, where open_clip's text
    tower pools.
    """

    START, END, VOCABULARY = 256, 257, 258

    def __init__(self, context_length: int) -> None:
        self.context_length = context_length

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """int64 tensor (texts, context_length); longer texts are cut, as CLIP's own tokenizer does."""
        tokens = torch.zeros(len(texts), self.context_length, dtype=torch.long)
        for row, text in zip(tokens, texts, strict=True):
            body = list(text.encode())[: self.context_length - 2]
            row[: len(body) + 2] = torch.tensor([self.START, *body, self.END])
        return tokens


def load() -> Clip:
    """`tiny-digits`, on the CPU. Raises InputError when the weights are not the ones that were released."""
    digest = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    if digest != SHA256.read_text().strip():
        raise InputError(
            f"{WEIGHTS}: the weights of {TINY_DIGITS} are damaged (sha256 {digest[:12]}...); reinstall pytest-qreliab"
        )
    module, preprocess = openclip.create(f"local-dir:{FOLDER}")
    return Clip(TINY_DIGITS, module, preprocess, ByteTokenizer(module.context_length))
