"""The kernels that PyTorch computes with: those that it chooses, or the same ones on every machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

Attention = Literal["math", "chosen"]

BACKENDS: dict[Attention, list[SDPBackend]] = {
    "math": [SDPBackend.MATH],  # the definition, product by product: the only one that every device has
    "chosen": [
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.MATH,
    ],
}
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # without it the products of a GPU may be summed in another order each time


def attention(kernel: Attention) -> AbstractContextManager[None]:
    """Return a context in which attention is computed by one kernel, or by the one that PyTorch chooses."""
    context: AbstractContextManager[None] = sdpa_kernel(BACKENDS[kernel])
    return context


@contextmanager
def deterministic() -> Iterator[None]:
    """Compute with one attention kernel, one thread and deterministic algorithms.

    The order of sums, and with it the last bit of a result, no longer depends on the number of cores. An operation
    that has no deterministic algorithm makes PyTorch warn.
    """
    threads, fast_path = torch.get_num_threads(), torch.backends.mha.get_fastpath_enabled()
    enforced = torch.are_deterministic_algorithms_enabled()
    warns, workspace = torch.is_deterministic_algorithms_warn_only_enabled(), os.environ.get(WORKSPACE)
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)  # attention of its own, in full precision alone
    torch.use_deterministic_algorithms(True, warn_only=True)
    os.environ.setdefault(WORKSPACE, ":4096:8")
    try:
        with attention("math"):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.mha.set_fastpath_enabled(fast_path)
        torch.use_deterministic_algorithms(enforced, warn_only=warns)
        if workspace is None:
            os.environ.pop(WORKSPACE, None)
