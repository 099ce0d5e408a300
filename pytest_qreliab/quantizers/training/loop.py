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

import hashlib
import math
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from pytest_qreliab import __version__
from pytest_qreliab.data.batches import BATCH
from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.calibration import Calibration
from pytest_qreliab.quantizers.engine import grid
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.engine.layers import Layers
from pytest_qreliab.quantizers.engine.transform import Transform
from pytest_qreliab.quantizers.post_training.procedure import Transforms
from pytest_qreliab.quantizers.post_training.rotation import rotate
from pytest_qreliab.quantizers.request import Request
from pytest_qreliab.quantizers.training import learned
from pytest_qreliab.quantizers.training.learned import LearnedTransform, Rounding, SoftRounding

RANGE_IMAGES = 128  # images from which the activations' first ranges are taken
CHECKPOINTS = 10  # a run is saved so many times


class CheckpointWarning(UserWarning):
    """A checkpoint could not be read or written; training goes on without it."""


# Data


@dataclass(frozen=True)
class Pairs:
    """What a run is trained on.

    `pixels` is (n, 3, height, width), `texts` are the distinct captions; `captions` (m,) points into `texts`.
    With `labels`, (n,), they are pairs: n = m, and caption i describes image i. Without, images and captions have
    nothing to do with each other, and there may be none of either.
    """

    pixels: torch.Tensor | None
    texts: tuple[str, ...]
    captions: torch.Tensor
    labels: torch.Tensor | None

    def digest(self) -> str:
        return _digest([self.pixels, self.captions, self.labels], "\0".join(self.texts))


def load(clip: Clip, request: Request, *, paired: bool) -> Pairs:
    """The images, at most as many as the parameters say, and captions, preprocessed; all in memory.

    Pairs are every image with one template of its class: the k-th image of a class with the k-th template, over
    and over. Otherwise the towers in scope get what the ranges are calibrated with, images and prompts.
    """
    calibration = request.needed()
    pixels = labels = None
    if paired or request.scope != "text":
        assert calibration.images is not None
        images = calibration.images.limited(request.parameters.images)
        pixels = torch.cat(list(calibration.read(images, clip.preprocess)))
        if paired:
            assert images.labels is not None
            labels = torch.from_numpy(images.labels)
    captions: list[str] = []
    if labels is not None:
        captions = _captions(calibration, labels.tolist())
    elif request.scope != "vision":
        captions = [caption for batch in calibration.prompt_batches() for caption in batch]
    distinct = {caption: place for place, caption in enumerate(dict.fromkeys(captions))}
    places = torch.tensor([distinct[caption] for caption in captions], dtype=torch.int64)
    return Pairs(pixels, tuple(distinct), places, labels)


def _captions(calibration: Calibration, labels: list[int]) -> list[str]:
    seen = [0] * len(calibration.classes)
    captions = []
    for label in labels:
        templates = calibration.captions(label)
        captions.append(templates[seen[label] % len(templates)])
        seen[label] += 1
    return captions


def draw(count: int, batch: int, seed: int, step: int) -> torch.Tensor:
    """The items of one step: a stretch of an endless row of permutations of all, made from the seed alone."""
    batch = min(batch, count)
    first = step * batch
    epochs = range(first // count, (first + batch - 1) // count + 1)
    order = torch.cat(
        [torch.randperm(count, generator=torch.Generator().manual_seed(seed + (epoch << 32))) for epoch in epochs]
    )
    return order[first - epochs[0] * count :][:batch]


# Losses


@dataclass(frozen=True)
class Features:
    """Of one batch: unit rows, (batch, dim), of the model in training and of its full-precision teacher.

    Of a tower that is not in scope, the student's are the teacher's, or both None. `labels` are the images' and
    captions' classes, where they are pairs.
    """

    image: torch.Tensor | None
    text: torch.Tensor | None
    teacher_image: torch.Tensor | None
    teacher_text: torch.Tensor | None
    labels: torch.Tensor | None
    logit_scale: float

    def logits(self) -> torch.Tensor:
        """(images, captions), the student's."""
        assert self.image is not None
        assert self.text is not None
        return self.logit_scale * self.image @ self.text.T

    def teacher_logits(self) -> torch.Tensor:
        """(images, captions), the teacher's."""
        assert self.teacher_image is not None
        assert self.teacher_text is not None
        return self.logit_scale * self.teacher_image @ self.teacher_text.T


Loss = Callable[[Features], torch.Tensor]


def feature_mse(features: Features) -> torch.Tensor:
    """Squared distance of unit features from the teacher's, summed over dimensions and towers, meaned over a batch."""
    towers = ((features.image, features.teacher_image), (features.text, features.teacher_text))
    return sum(
        ((ours - theirs).square().sum(1).mean() for ours, theirs in towers if ours is not None and theirs is not None),
        start=torch.zeros(()),
    )


def contrastive(features: Features) -> torch.Tensor:
    """CLIP's symmetric cross-entropy, all captions of an image's class its targets (UniCL, Yang et al. 2022).

    A logit bias, the same for all pairs, would cancel.
    """
    assert features.labels is not None
    same = (features.labels[:, None] == features.labels).float()
    targets, logits = same / same.sum(1, keepdim=True), features.logits()
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def contrastive_and_mse(features: Features) -> torch.Tensor:
    """The sum of both."""
    return contrastive(features) + feature_mse(features)


def distillation_loss(features: Features) -> torch.Tensor:
    """KL divergence of the student's from the teacher's similarity softmax, images to captions and back, meaned."""
    ours, theirs = features.logits(), features.teacher_logits()
    return sum(
        (
            F.kl_div(o.log_softmax(1), t.log_softmax(1), reduction="batchmean", log_target=True) / 2
            for o, t in ((ours, theirs), (ours.T, theirs.T))
        ),
        start=torch.zeros(()),
    )


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
    def of(cls, teacher: Clip, student: Clip, data: Pairs, loss: Loss, request: Request) -> Objective:
        """Raises InputError where the teacher's features hold NaN or infinity."""
        image = text = None
        if data.pixels is not None:
            image = _unit(torch.cat([teacher.encode_image(pixels) for pixels in torch.split(data.pixels, BATCH)]))
        if data.texts:
            starts = range(0, len(data.texts), BATCH)
            text = _unit(torch.cat([teacher.encode_text(data.texts[start : start + BATCH]) for start in starts]))
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
                image = _unit(clip.layout.encode_image(clip.module, data.pixels[picked].to(device)))
            labels = None if data.labels is None else data.labels[picked].to(device)
        if data.texts:
            assert self.teacher_text is not None
            # As many captions as images are the pairs: the same places are drawn.
            captions = data.captions[draw(len(data.captions), self.batch, self.seed, step)]
            text = teacher_text = self.teacher_text[captions.to(device)]
            if self.scope != "vision":
                distinct, places = torch.unique(captions, return_inverse=True)
                tokens = clip.tokenizer([data.texts[place] for place in distinct.tolist()])
                text = _unit(clip.layout.encode_text(clip.module, tokens, device))[places.to(device)]
        return self.loss(Features(image, text, teacher_image, teacher_text, labels, self.student.logit_scale))


def _unit(features: torch.Tensor) -> torch.Tensor:
    return F.normalize(features.float(), dim=-1)


# The run

# Puts what is to be learned on the layers; the first steps of the inputs are given by name.
Attach = Callable[[Clip, Layers, Request, Mapping[str, torch.Tensor]], None]


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
    clip, layers = engine_layers.prepare(full, request.scope)
    clip.module.requires_grad_(False)  # but for what is attached
    if transforms is not None:
        with torch.no_grad():
            for name, by in transforms(clip, layers, request).items():
                engine_layers.transform(layers[name], by)
    attach(clip, layers, request, input_steps(clip, layers, request))
    tensors = learned.trainable(clip.module, layers)
    data = load(full, request, paired=paired)
    checkpoint = None
    if request.checkpoints is not None:
        checkpoint = Checkpoint(request.checkpoints / f"{_run_key(full, request, method, data)}.pt")
    done, state = checkpoint.load(tensors) if checkpoint is not None else (0, None)
    request.advance(done)
    if done < request.parameters.steps:
        objective = Objective.of(full, clip, data, loss, request)
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


@torch.no_grad()
def input_steps(clip: Clip, layers: Layers, request: Request) -> dict[str, torch.Tensor]:
    """For each layer that calibration reaches, the step of least squared error of its input; none for weights only."""
    bits = request.bits.activations
    if bits is None:
        return {}
    seen = engine_layers.observe(clip, layers, _for_ranges(request), engine_layers.Values)
    return {name: grid.lay(*grid.mse(v.row(), bits, True), bits, True).scale[0, 0] for name, v in seen.items()}


def _for_ranges(request: Request) -> Request:
    """The same, with as few images as ranges take."""
    few = min(RANGE_IMAGES, request.parameters.images)
    return replace(request, parameters=request.parameters.model_copy(update={"images": few}))


@torch.no_grad()
def weight_steps(layer: nn.Module, bits: int) -> torch.Tensor:
    """The steps of least squared error of the layer's weight, (out, 1, ...)."""
    weight = layer.get_parameter("weight")
    rows = grid.rows(weight, "channel")
    steps = grid.lay(*grid.mse(rows, bits, True), bits, True).scale
    return steps.view(-1, *(1,) * (weight.ndim - 1))


# Checkpoints


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


def _run_key(full: Clip, request: Request, method: str, data: Pairs) -> str:
    """A digest of all that the result depends on."""
    parameters = f"{type(request.parameters).__name__} {request.parameters.model_dump_json()}"
    what = (__version__, torch.__version__, full.device.type, method, parameters, str(request.bits), request.scope)
    state = full.module.state_dict()
    digest = _digest([*state.values()], "\n".join([*what, *state, data.digest()]))
    return f"{method}-{request.bits}-{digest[:32]}"


def _digest(tensors: list[torch.Tensor | None], text: str = "") -> str:
    digest = hashlib.sha256(text.encode())
    for tensor in tensors:
        if tensor is None:
            digest.update(b"none")
        else:
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# What is learned


def learn_steps(clip: Clip, layers: Layers, request: Request, inputs: Mapping[str, torch.Tensor]) -> None:
    """Weights, biases, and the steps of weights and inputs: LSQ."""
    _learn_weights(layers, request, inputs, Rounding)


def learn_soft_steps(clip: Clip, layers: Layers, request: Request, inputs: Mapping[str, torch.Tensor]) -> None:
    """The same, with DSQ's gradients and sharpness."""
    _learn_weights(layers, request, inputs, SoftRounding)


def _learn_weights(layers: Layers, request: Request, inputs: Mapping[str, torch.Tensor], kind: type[Rounding]) -> None:
    for name, layer in layers.items():
        start = weight_steps(layer, request.bits.weights)
        if layer.bias is not None:
            learned.attach(layer, "bias", learned.Scaled(start.flatten()), train=True)
        learned.attach(layer, "weight", learned.RoundedWeight(kind(start, request.bits.weights)), train=True)
        _learn_input(name, layer, request, inputs, kind)


def _learn_input(
    name: str, layer: nn.Module, request: Request, inputs: Mapping[str, torch.Tensor], kind: type[Rounding] = Rounding
) -> None:
    if name in inputs:
        assert request.bits.activations is not None
        engine_layers.input_quantizer(layer).round = kind(inputs[name], request.bits.activations)


def learn_low_rank(clip: Clip, layers: Layers, request: Request, inputs: Mapping[str, torch.Tensor]) -> None:
    """A low-rank change of every frozen weight, and the steps: LR-QAT."""
    generator = torch.Generator().manual_seed(request.parameters.seed)
    bits = request.bits.weights
    for name, layer in layers.items():
        rounding = Rounding(weight_steps(layer, bits), bits)
        weight = layer.get_parameter("weight")
        by = learned.LowRankWeight(rounding, weight, request.parameters.rank, generator)
        learned.attach(layer, "weight", by, train=False)
        _learn_input(name, layer, request, inputs)


def learn_clipping(clip: Clip, layers: Layers, request: Request, inputs: Mapping[str, torch.Tensor]) -> None:
    """The clipping of frozen weights, and a scale and shift of what a norm makes: OmniQuant."""
    bits = request.bits.weights
    observed = _for_ranges(request)
    transforms: dict[str, LearnedTransform] = {}
    normed = [readers.names for readers in engine_layers.readers(clip, layers, observed) if readers.norm is not None]
    largest = engine_layers.observe(
        clip, {name: layers[name] for names in normed for name in names}, observed, engine_layers.Largest
    )
    for names in normed:
        seen = largest[names[0]].largest
        assert seen is not None
        shift = not any(any(getattr(layers[name], "padding", ())) for name in names)
        transform = LearnedTransform(torch.ones_like(seen), seen / grid.levels(bits), bits, shift=shift)
        transforms |= dict.fromkeys(names, transform)
    for name, layer in layers.items():
        by = transforms.get(name)
        if by is not None:
            engine_layers.input_quantizer(layer).transform = cast(Transform, by)  # until it is fixed, by `bake`
            if by.shift is not None:
                if layer.bias is None:
                    layer.bias = nn.Parameter(layer.get_parameter("weight").new_zeros(len(layer.weight)))
                learned.attach(layer, "bias", learned.ShiftedBias(layer, by), train=False)
        weight = layer.get_parameter("weight")
        largest_weight = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True)
        share = weight_steps(layer, bits) * grid.levels(bits) / largest_weight
        clipped = learned.ClippedWeight(layer, share.nan_to_num(1.0).clamp(0.01, 0.999), bits, by)
        learned.attach(layer, "weight", clipped, train=False)
        _learn_input(name, layer, request, inputs)


# The methods


def lsq(clip: Clip, request: Request) -> Clip:
    """LSQ towards the full-precision features: no labels needed."""
    return quantize(clip, request, "lsq", loss=feature_mse, attach=learn_steps)


def lsq_contrastive(clip: Clip, request: Request) -> Clip:
    """LSQ with CLIP's own loss alone."""
    return quantize(clip, request, "lsq+contrastive", loss=contrastive, attach=learn_steps, paired=True)


def lsq_contrastive_mse(clip: Clip, request: Request) -> Clip:
    """LSQ with CLIP's own loss and the distance from the full-precision features."""
    return quantize(clip, request, "lsq+contrastive+mse", loss=contrastive_and_mse, attach=learn_steps, paired=True)


def quarot_lsq(clip: Clip, request: Request) -> Clip:
    """LSQ towards the full-precision features, after QuaRot's rotation of inputs and weights."""
    return quantize(clip, request, "quarot+lsq", loss=feature_mse, attach=learn_steps, transforms=rotate)


def distillation(clip: Clip, request: Request) -> Clip:
    """LSQ towards the full-precision model's similarities of images and captions."""
    return quantize(clip, request, "distillation", loss=distillation_loss, attach=learn_steps, paired=True)


def dsq(clip: Clip, request: Request) -> Clip:
    """Differentiable soft quantization towards the full-precision features."""
    return quantize(clip, request, "dsq", loss=feature_mse, attach=learn_soft_steps)


def lr_qat(clip: Clip, request: Request) -> Clip:
    """Low-rank QAT towards the full-precision features."""
    return quantize(clip, request, "lr-qat", loss=feature_mse, attach=learn_low_rank)


def omniquant(clip: Clip, request: Request) -> Clip:
    """OmniQuant's clipping and transformation, learned towards the full-precision features."""
    return quantize(clip, request, "omniquant", loss=feature_mse, attach=learn_clipping)
