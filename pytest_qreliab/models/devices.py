"""The device of a run, and the memory that a run takes."""

from __future__ import annotations

import sys

import torch

from pytest_qreliab import workers


def peak_memory() -> int:
    """Return the most memory that this process has held, in bytes; 0 if the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resolve_device(text: str) -> torch.device:
    """Return the device of a setting; `auto` is a GPU if there is one."""
    if text == "cuda" or (text == "auto" and torch.cuda.is_available()):
        return workers.cuda()
    if text != "auto":
        return torch.device(text)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
