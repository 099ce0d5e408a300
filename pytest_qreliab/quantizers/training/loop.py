"""Light quantization-aware training: a short seeded run on calibration images and captions.

The model is prepared as for post-training quantization. Then what `parametrize` puts on its layers is trained with
Adam, its rate falling to 0 along a cosine. Weights and biases of the Linears and convolutions are trained; embeddings,
norms and the logit scale are not.

The model stays in eval mode, without dropout. A run is deterministic given its seed and leaves torch's random state
alone. One that is cut short goes on from its last checkpoint, to the same result bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from pytest_qreliab.data.batches import BATCH
from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import input_quantizer
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.post_training.procedure import Transforms
from pytest_qreliab.quantizers.request import Request
from pytest_qreliab.quantizers.training.checkpoint import CHECKPOINTS, Checkpoint, TrainingState, run_key
from pytest_qreliab.quantizers.training.losses import Features, Loss, TowerFeatures, unit
from pytest_qreliab.quantizers.training.pairs import Comparison, Pairs, draw, load
from pytest_qreliab.quantizers.training.parametrize import Parametrize, bake, first_inputs, trainable


class BatchLoss(Protocol):
    """A loss of a student, step by step."""

    @property
    def student(self) -> Clip:
        """The model that is trained."""

    @property
    def request(self) -> Request:
        """The steps, the learning rate, and whom to tell of each step."""

    def __call__(self, step: int) -> torch.Tensor:
        """Return the loss of the batch of a step."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss of a student on its data, step by step."""

    student: Clip
    request: Request
    data: Pairs
    teacher_image: torch.Tensor | None  # (images, dim), unit rows, computed once; None: there are no images
    teacher_text: torch.Tensor | None  # (distinct captions, dim), unit rows; None: there are no captions
    loss: Loss

    @classmethod
    def build(cls, teacher: Clip, student: Clip, data: Pairs, loss: Loss, request: Request) -> Objective:
        """Compute the teacher's features. Raises InputError if they hold NaN or infinity."""
        image = text = None
        if data.pixels is not None:
            image = unit(torch.cat([teacher.encode_image(pixels) for pixels in torch.split(data.pixels, BATCH)]))
        if data.texts:
            starts = range(0, len(data.texts), BATCH)
            text = unit(torch.cat([teacher.encode_text(data.texts[start : start + BATCH]) for start in starts]))
        for features in (image, text):
            if features is not None and not bool(features.isfinite().all()):
                raise InputError(f"{teacher.name}: NaN or infinity in the full-precision features: nothing to train to")
        return cls(student=student, request=request, data=data, teacher_image=image, teacher_text=text, loss=loss)

    def __call__(self, step: int) -> torch.Tensor:
        """Return the loss of the batch of a step."""
        labels = None
        if self.data.labels is not None:
            labels = self.data.labels[self._draw(len(self.data.labels), step)].to(self.student.device)
        features = Features(
            image=self._image_features(step),
            text=self._text_features(step),
            labels=labels,
            logit_scale=self.student.logit_scale,
        )
        return self.loss(features)

    def _image_features(self, step: int) -> TowerFeatures | None:
        if self.data.pixels is None or self.teacher_image is None:
            return None
        device = self.student.device
        picked = self._draw(len(self.data.pixels), step)
        teacher = self.teacher_image[picked.to(device)]
        if self.request.scope == "text":
            return TowerFeatures(teacher, teacher)
        return TowerFeatures(unit(self.encode_image(self.data.pixels[picked].to(device))), teacher)

    def _text_features(self, step: int) -> TowerFeatures | None:
        if self.teacher_text is None:
            return None
        clip, device = self.student, self.student.device
        # As many captions as images are the pairs: the same places are drawn.
        captions = self.data.captions[self._draw(len(self.data.captions), step)]
        teacher = self.teacher_text[captions.to(device)]
        if self.request.scope == "vision":
            return TowerFeatures(teacher, teacher)
        distinct, places = torch.unique(captions, return_inverse=True)
        tokens = clip.tokenizer([self.data.texts[place] for place in distinct.tolist()])
        return TowerFeatures(unit(self.encode_text(tokens))[places.to(device)], teacher)

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the student's features of preprocessed images, (batch, dim)."""
        return self.student.layout.encode_image(self.student.module, pixels)

    def encode_text(self, tokens: Any) -> torch.Tensor:
        """Return the student's features of tokenized captions, (batch, dim)."""
        return self.student.layout.encode_text(self.student.module, tokens, self.student.device)

    def _draw(self, count: int, step: int) -> torch.Tensor:
        return draw(count, self.request.parameters.batch, self.request.parameters.seed, step)


def quantize(
    full: Clip,
    request: Request,
    method: str,
    *,
    loss: Loss,
    parametrize: Parametrize,
    compared: Comparison = "features",
    transforms: Transforms | None = None,
    objective: type[Objective] = Objective,
) -> Clip:
    """Return a quantized copy of a model, trained for a short while.

    Args:
        full: The full-precision model, which is left as it is.
        request: What is asked for.
        method: The name, in checkpoints, of the three functions together.
        loss: The loss of a batch.
        parametrize: Puts what is to be learned on the layers.
        compared: What the loss compares, which decides the training data.
        transforms: Finds the transformations of layers' inputs; None: there are none.
        objective: Computes the loss of a step.

    Raises:
        InputError: The loss becomes NaN or infinite.
    """
    clip, layers, request = engine_layers.prepare_layers(full, request)
    clip.module.requires_grad_(False)  # but for what is attached
    if transforms is not None:
        with torch.no_grad():
            for name, transform in transforms(clip, layers, request).items():
                input_quantizer.transform_input(layers[name], transform)
    parametrize(clip, layers, request, first_inputs(clip, layers, request))
    tensors = trainable(clip.module, layers)
    data = load(full, request, compared)
    checkpoint, state = None, TrainingState()
    if request.checkpoints is not None:
        checkpoint = Checkpoint(request.checkpoints / f"{run_key(full, request, method, data)}.pt")
        state = checkpoint.load(tensors)
    request.advance(state.done)
    if state.done < request.parameters.steps:
        batch_loss = objective.build(full, clip, data, loss, request)
        with torch.enable_grad():
            train(batch_loss, tensors, state, checkpoint)
    bake(layers)
    return clip


def train(
    objective: BatchLoss, tensors: Mapping[str, nn.Parameter], state: TrainingState, checkpoint: Checkpoint | None
) -> None:
    """Train tensors from a state to the last step, in place.

    Args:
        objective: The loss of each step.
        tensors: The tensors to train, by name.
        state: How far the run has come.
        checkpoint: Where to save it; None: nowhere.

    Raises:
        InputError: The loss or a tensor becomes NaN or infinite.
    """
    request = objective.request
    steps, rate = request.parameters.steps, request.parameters.learning_rate
    # Gradients of steps are small; an eps of the usual size would outweigh them.
    optimizer = torch.optim.Adam(tensors.values(), lr=rate, eps=1e-20)
    if state.optimizer is not None:
        optimizer.load_state_dict(state.optimizer)
    for step in range(state.done, steps):
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
            checkpoint.save(tensors, TrainingState(step + 1, None if last else optimizer.state_dict()))
        request.advance(1)
    optimizer.zero_grad()


def _diverged(clip: Clip, loss: float, step: int, rate: float) -> InputError:
    return InputError(
        f"{clip.name}: the loss became {loss} at training step {step + 1}; lower learning_rate ({rate:g})"
    )
