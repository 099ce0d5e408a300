"""`q-vit`: queries and keys rectified, and their similarities distilled, on top of LSQ (Li et al. 2022, Q-ViT).

The paper is arXiv 2210.06707. An attention module is one of this package, or of timm, that passes its queries and keys
through `q_norm` and `k_norm`, as (batch, heads, places, channels of a head).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.engine import observers
from pytest_qreliab.quantizers.engine.input_quantizer import Round
from pytest_qreliab.quantizers.engine.layers import Layers
from pytest_qreliab.quantizers.request import Request
from pytest_qreliab.quantizers.training.loop import Objective, quantize
from pytest_qreliab.quantizers.training.losses import Loss, feature_mse
from pytest_qreliab.quantizers.training.pairs import Pairs
from pytest_qreliab.quantizers.training.parametrize import learn_steps


def q_vit(clip: Clip, request: Request) -> Clip:
    """Return a copy trained by LSQ towards the full-precision features and similarities of queries and of keys.

    Raises:
        InputError: There is no attention in scope that is known.
    """
    trained = quantize(clip, request, "q-vit", loss=feature_mse, parametrize=_rectify, objective=GuidedObjective)
    for passed in _find_passed(trained, request.scope).values():
        passed.requires_grad_(False)
    return trained


class Rectification(nn.Module):
    """The information rectification of queries or keys, by channels of a head.

    It is (x - mean) / deviation * gain + shift. The authors take mean and deviation of each token, which changes a
    trained model more than a short run mends. Here they are those of calibration data, and gain and shift start so that
    nothing changes.
    """

    mean: torch.Tensor  # (channels,)
    deviation: torch.Tensor  # (channels,)

    def __init__(self, mean: torch.Tensor, deviation: torch.Tensor, unit: float) -> None:
        super().__init__()
        self.unit = unit  # in which the gain and the shift are learned, of a deviation
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.gain, self.shift = nn.Parameter(torch.zeros_like(mean)), nn.Parameter(torch.zeros_like(mean))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return queries or keys rectified, (batch, heads, places, channels)."""
        change = (x - self.mean) * self.gain + self.deviation * self.shift
        return x + self.unit * change


class _Moments:
    """The observer of the mean and the deviation of each channel of queries or keys."""

    def __init__(self, passed: nn.Module) -> None:
        self._rows = 0
        self._sums: tuple[torch.Tensor, torch.Tensor] | None = None

    def observe(self, passed: nn.Module, x: torch.Tensor) -> None:
        """Take note of more of them."""
        rows = x.flatten(0, -2).double()
        sums = rows.sum(0), rows.square().sum(0)
        self._sums = sums if self._sums is None else (self._sums[0] + sums[0], self._sums[1] + sums[1])
        self._rows += len(rows)

    def rectification(self, unit: float) -> Rectification:
        """Return the module that starts with them."""
        assert self._sums is not None
        mean, square = (total / self._rows for total in self._sums)
        deviation = (square - mean.square()).clamp(min=0).sqrt()
        return Rectification(mean.float(), deviation.float(), unit)


def _rectify(clip: Clip, layers: Layers, request: Request, inputs: Mapping[str, Round]) -> None:
    """Make gains and shifts of queries and keys learnable, and what LSQ learns.

    A gain of the unit moves them as much as a step of the largest weight moves it.
    """
    with torch.no_grad():
        moments = observers.observe(clip, _find_passed(clip, request.scope), request, _Moments)
    for name, seen in moments.items():
        rectified = seen.rectification(2.0 ** (1 - request.bits.weights.bits))
        clip.module.set_submodule(name, nn.Sequential(clip.module.get_submodule(name), rectified).eval())
    learn_steps(clip, layers, request, inputs)


@dataclass(frozen=True, kw_only=True)
class GuidedObjective(Objective):
    """The loss of features, and that of the similarities of queries and of keys."""

    teacher: Clip  # in full precision, unpacked

    @classmethod
    def build(cls, teacher: Clip, student: Clip, data: Pairs, loss: Loss, request: Request) -> Objective:
        """Compute the teacher's features, and unpack it.

        Raises:
            InputError: The features hold NaN or infinity, or there is no attention in scope.
        """
        twin, _ = engine_layers.unpack_layers(teacher, request.scope)
        if not _find_passed(twin, request.scope):
            raise InputError(
                f"{teacher.name}: q-vit distils the queries and keys of attention, and scope {request.scope!r} has no "
                "attention that it knows; take lsq"
            )
        return cls(**vars(Objective.build(teacher, student, data, loss, request)), teacher=twin)

    def __call__(self, step: int) -> torch.Tensor:
        """Return the loss of the batch of a step."""
        scope = self.request.scope
        with _recorded(self.student, scope) as ours, _recorded(self.teacher, scope) as theirs:
            loss = super().__call__(step)
        # The matrices are computed once more for the gradients: kept, they would be larger than all else.
        apart = [
            checkpoint(similarity_loss, *pair, use_reentrant=False, preserve_rng_state=False)
            for pair in zip(ours, theirs, strict=True)
        ]
        return loss + torch.stack(apart).mean()

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the student's features of preprocessed images, (batch, dim); the teacher looks at them too."""
        with torch.no_grad():
            self.teacher.layout.encode_image(self.teacher.module, pixels)
        return super().encode_image(pixels)

    def encode_text(self, tokens: Any) -> torch.Tensor:
        """Return the student's features of tokenized captions, (batch, dim); the teacher reads them too."""
        with torch.no_grad():
            self.teacher.layout.encode_text(self.teacher.module, tokens, self.teacher.device)
        return super().encode_text(tokens)


def _find_passed(clip: Clip, scope: str) -> dict[str, nn.Module]:
    """Return the modules that queries and keys pass, by name."""
    return {
        f"{name}.{passed}": getattr(module, passed)
        for name, module in clip.module.named_modules()
        for passed in ("q_norm", "k_norm")
        if clip.in_scope(name, scope) and isinstance(getattr(module, passed, None), nn.Module)
    }


@contextmanager
def _recorded(clip: Clip, scope: str) -> Iterator[list[torch.Tensor]]:
    """Yield a list to which the queries and keys of all passes are added, (batch, heads, places, channels)."""
    found: list[torch.Tensor] = []
    with ExitStack() as hooks:
        for passed in _find_passed(clip, scope).values():
            hooks.enter_context(passed.register_forward_hook(lambda module, args, out: found.append(out)))
        yield found


def similarity_loss(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Return how far the similarities of places are from the teacher's.

    It is the distribution guided distillation of Li et al. 2022, but for squares in place of norms and means in place
    of sums. That puts it in the unit of the loss of features, the squared distance of unit rows.

    Args:
        ours: Queries or keys of the student, (batch, heads, places, channels).
        theirs: Those of the teacher, in the same shape.

    Returns:
        The squared distance of rows, averaged over places, heads and batch.
    """
    return (_similarities(ours) - _similarities(theirs)).square().sum(-1).mean()


def _similarities(x: torch.Tensor) -> torch.Tensor:
    """Return the products of all places with each other, in rows of unit length, (..., places, places)."""
    return F.normalize(x @ x.transpose(-1, -2), dim=-1)
