"""Light quantization-aware training: a short seeded run on calibration images and captions.

The model is prepared as for post-training quantization, its grids start at the ranges of least squared error, and
then what `learned` puts on the layers is trained with Adam, its rate falling to 0 along a cosine. The paper's first
step for LSQ, 2 mean|x| / sqrt(q), is not used: at 8 bits its grid ends at 22 times the mean magnitude, far beyond
most weights, and 100 steps leave it with 4 times the error of features (26 times, if inputs start so too).

Weights and biases of the Linears and convolutions are trained; embeddings, norms and the logit scale are not.
The model stays in eval mode, without dropout. A run is deterministic given its seed and leaves torch's random
state alone; one that is cut short goes on from its last checkpoint, to the same result bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pytest_qreliab.data.batches import BATCH
from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import input_quantizer
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.post_training.procedure import Transforms
from pytest_qreliab.quantizers.request import Request
from pytest_qreliab.quantizers.training import learned
from pytest_qreliab.quantizers.training.checkpoint import CHECKPOINTS, Checkpoint, run_key
from pytest_qreliab.quantizers.training.losses import (
    Features,
    Loss,
    unit,
)
from pytest_qreliab.quantizers.training.pairs import Pairs, draw, load
from pytest_qreliab.quantizers.training.parametrize import (
    Attach,
    input_steps,
)

# Data


# Losses


@dataclass(frozen=True)
class Objective:
    """The loss of a student on its data, step by step; the teacher's features are computed once."""

    student: Clip
    scope: str
    data: Pairs
    teacher_image: torch.Tensor | None
    teacher_text: torch.Tensor | None
    loss: Loss
    batch: int
    seed: int

    @classmethod
    def build(cls, teacher: Clip, student: Clip, data: Pairs, loss: Loss, request: Request) -> Objective:
        """Raises InputError where the teacher's features hold NaN or infinity."""
        image = text = None
        if data.pixels is not None:
            image = unit(torch.cat([teacher.encode_image(pixels) for pixels in torch.split(data.pixels, BATCH)]))
        if data.texts:
            starts = range(0, len(data.texts), BATCH)
            text = unit(torch.cat([teacher.encode_text(data.texts[start : start + BATCH]) for start in starts]))
        for features in (image, text):
            if features is not None and not bool(features.isfinite().all()):
                raise InputError(f"{teacher.name}: NaN or infinity in the full-precision features: nothing to train to")
        parameters = request.parameters
        return cls(student, request.scope, data, image, text, loss, parameters.batch, parameters.seed)

    def __call__(self, step: int) -> torch.Tensor:
        """The loss of that step's batch."""
        data, device, clip = self.data, self.student.device, self.student
        image = text = teacher_image = teacher_text = labels = None
        if data.pixels is not None:
            assert self.teacher_image is not None
            picked = draw(len(data.pixels), self.batch, self.seed, step)
            image = teacher_image = self.teacher_image[picked.to(device)]
            if self.scope != "text":
                image = unit(clip.layout.encode_image(clip.module, data.pixels[picked].to(device)))
            labels = None if data.labels is None else data.labels[picked].to(device)
        if data.texts:
            assert self.teacher_text is not None
            # As many captions as images are the pairs: the same places are drawn.
            captions = data.captions[draw(len(data.captions), self.batch, self.seed, step)]
            text = teacher_text = self.teacher_text[captions.to(device)]
            if self.scope != "vision":
                distinct, places = torch.unique(captions, return_inverse=True)
                tokens = clip.tokenizer([data.texts[place] for place in distinct.tolist()])
                text = unit(clip.layout.encode_text(clip.module, tokens, device))[places.to(device)]
        return self.loss(Features(image, text, teacher_image, teacher_text, labels, self.student.logit_scale))


# The run


def quantize(
    full: Clip,
    request: Request,
    method: str,
    *,
    loss: Loss,
    attach: Attach,
    paired: bool = False,
    transforms: Transforms | None = None,
) -> Clip:
    """A quantized copy of `full`, trained on pairs or on images and captions apart.

    `method` names, for checkpoints, what the functions do.

    Raises InputError where the loss becomes NaN or infinite.
    """
    clip, layers = engine_layers.unpack_layers(full, request.scope)
    clip.module.requires_grad_(False)  # but for what is attached
    if transforms is not None:
        with torch.no_grad():
            for name, by in transforms(clip, layers, request).items():
                input_quantizer.transform(layers[name], by)
    attach(clip, layers, request, input_steps(clip, layers, request))
    tensors = learned.trainable(clip.module, layers)
    data = load(full, request, paired=paired)
    checkpoint = None
    if request.checkpoints is not None:
        checkpoint = Checkpoint(request.checkpoints / f"{run_key(full, request, method, data)}.pt")
    done, state = checkpoint.load(tensors) if checkpoint is not None else (0, None)
    request.advance(done)
    if done < request.parameters.steps:
        objective = Objective.build(full, clip, data, loss, request)
        with torch.enable_grad():
            _run(objective, tensors, request, checkpoint, done, state)
    learned.bake(layers)
    return clip


def _run(
    objective: Objective,
    tensors: Mapping[str, nn.Parameter],
    request: Request,
    checkpoint: Checkpoint | None,
    done: int,
    state: Any,
) -> None:
    steps, rate = request.parameters.steps, request.parameters.learning_rate
    # Gradients of steps are small; an eps of the usual size would outweigh them.
    optimizer = torch.optim.Adam(tensors.values(), lr=rate, eps=1e-20)
    if state is not None:
        optimizer.load_state_dict(state)
    for step in range(done, steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        loss = objective(step)
        if not bool(loss.isfinite()):
            raise _diverged(objective.student, float(loss.detach()), step, rate)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        last = step + 1 == steps
        # What has no gradient belongs to a part that no feature comes from, as CoCa's decoder: it was not trained.
        if last and not all(bool(value.isfinite().all()) for value in tensors.values() if value.grad is not None):
            raise _diverged(objective.student, math.nan, step, rate)
        if checkpoint is not None and (last or (step + 1) % max(1, steps // CHECKPOINTS) == 0):
            checkpoint.save(tensors, step + 1, None if last else optimizer.state_dict())
        request.advance(1)
    optimizer.zero_grad()


def _diverged(clip: Clip, loss: float, step: int, rate: float) -> InputError:
    return InputError(
        f"{clip.name}: the loss became {loss} at training step {step + 1}; lower learning_rate ({rate:g})"
    )


# Checkpoints


# What is learned


# The methods
