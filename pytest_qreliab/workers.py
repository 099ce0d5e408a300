"""What a pytest-xdist worker takes of the machine: its share of the GPUs and of the cores."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def number() -> int | None:
    """The N of the worker gwN that this process is; None outside of workers."""
    match = re.fullmatch(r"gw(\d+)", os.environ.get("PYTEST_XDIST_WORKER", ""))
    return int(match[1]) if match else None


def cores() -> int:
    """The cores that this process may use; of a worker's, its share."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return found if number() is None else max(found // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]), 1)


def cuda() -> torch.device:
    """The current GPU; in workers the visible ones, those of CUDA_VISIBLE_DEVICES, in turn."""
    import torch

    worker = number()
    if worker is None:
        return torch.device("cuda")
    return torch.device("cuda", worker % max(torch.cuda.device_count(), 1))


def limit_to_share(device: torch.device) -> None:
    """In a worker, make its GPU the current one, as some kernels want it, and leave other workers their cores.

    OMP_NUM_THREADS, where it is set, says how many threads each worker has.
    """
    if number() is None:
        return
    import torch

    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(cores())
