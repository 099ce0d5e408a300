"""Checkpoints of training runs."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pytest_qreliab._version import __version__
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.request import Request
from pytest_qreliab.quantizers.training.pairs import Pairs, tensors_digest

CHECKPOINTS = 10  # a run is saved so many times


class CheckpointWarning(UserWarning):
    """A checkpoint could not be read or written; training goes on without it."""


@dataclass(frozen=True)
class Checkpoint:
    """The file of one run: the trained tensors, how many steps they had and, until the last, Adam's state."""

    path: Path

    def load(self, tensors: Mapping[str, nn.Parameter]) -> tuple[int, Any]:
        """Fill the tensors; the steps done and Adam's state. 0 and None, with a warning, for a damaged file."""
        if not self.path.exists():
            return 0, None
        try:
            with zipfile.ZipFile(self.path) as archive:
                damaged = archive.testzip()  # torch does not look at the checksums
            if damaged is not None:
                raise ValueError(f"{damaged} is damaged")
            held = torch.load(self.path, map_location="cpu", weights_only=True)
            with torch.no_grad():
                for name, tensor in tensors.items():
                    if held["tensors"][name].shape != tensor.shape:
                        raise ValueError(f"{name} has another shape")
                for name, tensor in tensors.items():
                    tensor.copy_(held["tensors"][name])
            return int(held["done"]), held["optimizer"]
        except Exception as error:  # whatever a damaged file makes torch raise
            warnings.warn(
                f"training starts again, as the checkpoint {self.path} cannot be used: {error}",
                CheckpointWarning,
                stacklevel=2,
            )
            return 0, None

    def save(self, tensors: Mapping[str, nn.Parameter], done: int, optimizer: Any) -> None:
        """Replace the file in one go, so that a killed run leaves a whole one."""
        partial = self.path.with_suffix(f".{os.getpid()}.partial")
        held = {"tensors": {name: t.detach() for name, t in tensors.items()}, "done": done, "optimizer": optimizer}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.save(held, partial)
                partial.replace(self.path)
            finally:
                partial.unlink(missing_ok=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: torch's own, of a full disk
            warnings.warn(f"no checkpoint was written to {self.path}: {error}", CheckpointWarning, stacklevel=2)


def run_key(full: Clip, request: Request, method: str, data: Pairs) -> str:
    """A digest of all that the result depends on."""
    parameters = request.parameters.model_dump_json()
    what = (__version__, torch.__version__, full.device.type, method, parameters, str(request.bits), request.scope)
    state = full.module.state_dict()
    digest = tensors_digest([*state.values()], "\n".join([*what, *state, data.digest()]))
    return f"{method}-{request.bits}-{digest[:32]}"
