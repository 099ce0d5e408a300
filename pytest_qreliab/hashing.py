"""Digests of data, arrays, tensors and files: 32 hexadecimal digits of BLAKE2b, unless they say otherwise."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

BLOCK = 1 << 20  # bytes of a file that are read at once


def digest(*parts: object) -> str:
    """Return the digest of what JSON can hold; the order of keys does not matter."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return bytes_digest(text.encode())


def bytes_digest(*parts: bytes | memoryview) -> str:
    """Return the digest of bytes, one part after the other."""
    running = running_digest()
    for part in parts:
        running.update(part)
    return running.hexdigest()


def running_digest() -> hashlib.blake2b:
    """Return a digest to be updated while data come in."""
    return hashlib.blake2b(digest_size=16)


def array_digest(array: npt.NDArray[Any]) -> str:
    """Return the digest of an array's type, shape and values."""
    return bytes_digest(f"{array.dtype.str} {array.shape}".encode(), np.ascontiguousarray(array).data)


def tensor_digest(tensor: torch.Tensor) -> str:
    """Return the digest of a tensor's type, shape and values, wherever it is."""
    import torch

    values = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return bytes_digest(f"{tensor.dtype} {tuple(tensor.shape)}".encode(), values.data)


def file_digest(path: Path, *, sha256: bool = False) -> str:
    """Return the digest of a file's content.

    Args:
        path: The file.
        sha256: Return the SHA-256, which files of checksums hold.

    Raises:
        OSError: The file cannot be read.
    """
    running = hashlib.sha256() if sha256 else running_digest()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            running.update(block)
    return running.hexdigest()


def text_sha256(text: str) -> str:
    """Return the SHA-256 of a text, 64 hexadecimal digits: the digest in files that people keep."""
    return hashlib.sha256(text.encode()).hexdigest()
