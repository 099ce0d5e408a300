"""Digests of data, arrays and files."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt


def digest(*parts: object) -> str:
    """A name for what is described: 32 hexadecimal digits of BLAKE2b over canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def array_digest(array: npt.NDArray[Any]) -> str:
    """A digest of an array's values, shape and type."""
    found = hashlib.blake2b(f"{array.dtype.str} {array.shape}".encode(), digest_size=16)
    found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()
