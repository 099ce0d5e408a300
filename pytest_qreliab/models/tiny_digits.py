"""The model `tiny-digits`: a small CLIP of open_clip that ships with the package and works offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from pytest_qreliab.errors import InputError
from pytest_qreliab.hashing import file_digest
from pytest_qreliab.models import openclip
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.local_models import in_folder
from pytest_qreliab.models.names import TINY_DIGITS

FOLDER = Path(__file__).parent / "tiny_digits"
WEIGHTS = FOLDER / "open_clip_model.safetensors"
SHA256 = FOLDER / "open_clip_model.safetensors.sha256"


class ByteTokenizer:
    """A tokenizer of UTF-8 bytes between a start and an end token, which needs no files.

    Padding is 0, a byte that no text holds. The end token has the highest id, and open_clip's text tower pools there.
    """

    START, END, VOCABULARY = 256, 257, 258

    def __init__(self, context_length: int) -> None:
        self.context_length = context_length

    def __call__(self, texts: Sequence[str], context_length: int | None = None) -> torch.Tensor:
        """Return tokens, int64 (texts, context length); longer texts are cut, which CLIP's own tokenizer does too."""
        length = context_length or self.context_length
        tokens = torch.zeros(len(texts), length, dtype=torch.long)
        for row, text in zip(tokens, texts, strict=True):
            body = list(text.encode())[: length - 2]
            row[: len(body) + 2] = torch.tensor([self.START, *body, self.END])
        return tokens


def load() -> Clip:
    """Load `tiny-digits` on the CPU.

    Raises:
        InputError: The weights are not the released ones.
    """
    digest = file_digest(WEIGHTS, sha256=True)
    if digest != SHA256.read_text().strip():
        raise InputError(
            f"{WEIGHTS}: the weights of {TINY_DIGITS} are damaged (sha256 {digest[:12]}...); reinstall pytest-qreliab"
        )
    module, preprocess = openclip.create(in_folder(TINY_DIGITS, FOLDER))
    return Clip(name=TINY_DIGITS, module=module, preprocess=preprocess, tokenizer=ByteTokenizer(module.context_length))
