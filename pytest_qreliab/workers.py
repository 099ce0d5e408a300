"""The share of the machine's GPUs and cores that a pytest-xdist worker takes."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def number() -> int | None:
    """Return the N of the worker gwN that this process is, or None outside of workers."""
    match = re.fullmatch(r"gw(\d+)", os.environ.get("PYTEST_XDIST_WORKER", ""))
    return int(match[1]) if match else None


def cores() -> int:
    """Return how many cores this process may use; in a worker, its share of them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if number() is None else max(cores // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]), 1)


def cuda() -> torch.device:
    """Return the current GPU; workers take the visible ones, those of CUDA_VISIBLE_DEVICES, in turn."""
    import torch

    worker = number()
    if worker is None:
        return torch.device("cuda")
    return torch.device("cuda", worker % max(torch.cuda.device_count(), 1))


def limit_to_share(device: torch.device) -> None:
    """Make a worker's GPU the current one, as some kernels want it, and leave other workers their cores.

    OMP_NUM_THREADS, if it is set, says how many threads each worker has.
    """
    if number() is None:
        return
    import torch

    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(cores())
