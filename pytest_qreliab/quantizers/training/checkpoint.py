"""The checkpoints of training runs.

A run that was cut short goes on from its last one.
"""

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
from pytest_qreliab.hashing import digest, tensor_digest
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.request import Request
from pytest_qreliab.quantizers.training.pairs import Pairs

CHECKPOINTS = 10  # a run is saved so many times


class CheckpointWarning(UserWarning):
    """The warning that a checkpoint could not be read or written.

    Training goes on without it.
    """


@dataclass(frozen=True)
class TrainingState:
    """How far a run has come, besides its tensors."""

    done: int = 0  # steps
    optimizer: Any = None  # Adam's state; None before the first step and after the last


@dataclass(frozen=True)
class Checkpoint:
    """The file of one run: the trained tensors and the training state."""

    path: Path

    def load(self, tensors: Mapping[str, nn.Parameter]) -> TrainingState:
        """Fill tensors with what was saved.

        Args:
            tensors: The trained tensors by name. They are left alone if there is no file, or a damaged one.

        Returns:
            The state that was saved, or that of a new run. A damaged file gives a warning.
        """
        if not self.path.exists():
            return TrainingState()
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
            return TrainingState(int(held["done"]), held["optimizer"])
        except Exception as error:  # whatever a damaged file makes torch raise
            warnings.warn(
                f"training starts again, as the checkpoint {self.path} cannot be used: {error}",
                CheckpointWarning,
                stacklevel=2,
            )
            return TrainingState()

    def save(self, tensors: Mapping[str, nn.Parameter], state: TrainingState) -> None:
        """Replace the file in one go.

        A killed run leaves a whole file. One that cannot be written gives a warning.
        """
        partial = self.path.with_suffix(f".{os.getpid()}.partial")
        held = {
            "tensors": {name: tensor.detach() for name, tensor in tensors.items()},
            "done": state.done,
            "optimizer": state.optimizer,
        }
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
    """Return the name of a run's checkpoint.

    It has a digest of all that the result depends on.
    """
    parameters = request.parameters.model_dump_json()
    of_run = (str(request.bits), request.scope, torch.are_deterministic_algorithms_enabled())
    settings = (__version__, torch.__version__, full.device.type, method, parameters, *of_run)
    state = {name: tensor_digest(tensor) for name, tensor in full.module.state_dict().items()}
    return f"{method}-{request.bits}-{digest(settings, state, data.digest())}"
