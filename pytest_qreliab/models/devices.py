"""The device of a run, and the memory that it takes."""

from __future__ import annotations

import sys

import torch

from pytest_qreliab import workers


def peak_memory() -> int:
    """The most memory that this process has held, in bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resolve_device(text: str) -> torch.device:
    """The device of a setting; `auto` is a GPU where there is one."""
    if text == "cuda" or (text == "auto" and torch.cuda.is_available()):
        return workers.cuda()
    if text != "auto":
        return torch.device(text)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
