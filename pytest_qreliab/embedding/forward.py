"""Forward passes: images and prompts through a model, into arrays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from pytest_qreliab.data.batches import BATCH
from pytest_qreliab.embedding.entry_files import Arrays
from pytest_qreliab.errors import InputError
from pytest_qreliab.metrics.definitions import GRATINGS
from pytest_qreliab.metrics.spectral import high_band_share, power
from pytest_qreliab.models import text_ends
from pytest_qreliab.models.block_hooks import BlockOutputs, watch_blocks
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.layout import OPEN_CLIP, LocalOutputs
from pytest_qreliab.quantizers.engine.input_quantizer import takes_each_token_alone

Advance = Callable[[int], None]
Encoded = TypeVar("Encoded")

# What is taken from the images of a set, each part kept by itself: `features`; from the maps of the image tower
# `high_band`, `blocks` and `penultimate`; and `local` features, which are compared with a classifier.
Part = Literal["features", "high_band", "local", "blocks", "penultimate"]
WATCHED: frozenset[Part] = frozenset({"blocks", "penultimate"})

LARGE_BATCH = 256  # on a GPU, to begin with
GRATING_RMS = 0.1  # in units of the pixels' own spread
KNOWN_PACKAGES = ("torch", "open_clip", "pytest_qreliab")  # whose layers, but for attention, take each token by itself


@dataclass
class BatchSize:
    """The most images, or prompts, of a forward pass: halved for good when the memory runs out."""

    value: int

    @classmethod
    def for_device(cls, device: torch.device) -> BatchSize:
        """Return the size to begin with on a device."""
        return cls(LARGE_BATCH if device.type == "cuda" else BATCH)

    def run(self, encode: Callable[[Any], Encoded], batch: Any) -> Iterator[tuple[int, Encoded]]:
        """Encode a batch in as few passes as fit.

        Yields:
            How many images or prompts a pass took, and their encoding.

        Raises:
            InputError: Not even one image fits.
        """
        done = 0
        while done < len(batch):
            try:
                part = batch[done : done + self.value]
                result = encode(part)
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                if self.value == 1:
                    raise InputError(
                        f"the memory of the device does not hold the model and one image: {error}"
                    ) from None
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                self.value = max(1, min(self.value, len(part)) // 2)
                continue
            yield len(part), result
            done += len(part)


def _out_of_memory(error: RuntimeError) -> bool:
    # On a CPU it is a plain RuntimeError of torch's allocator.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute matrix products in true float32 on a GPU.

    TF32 keeps 10 bits, which is coarser than the differences to be measured.
    """
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@contextmanager
def _channels_last(clip: Clip) -> Iterator[None]:
    """Lay the weights of convolutions as their kernels are fastest, and afterwards as a quantizer expects them."""
    weights = [
        module.weight
        for module in clip.module.modules()
        if isinstance(module, nn.Conv2d) and type(module.weight) is nn.Parameter
    ]
    before = [weight.data for weight in weights]
    if len(weights) > 1:  # a ViT's only one is a large product
        for weight in weights:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    try:
        yield
    finally:
        for weight, data in zip(weights, before, strict=True):
            weight.data = data


def images(
    clip: Clip,
    batches: Iterable[torch.Tensor],
    parts: Collection[Part],
    size: BatchSize,
    *,
    advance: Advance = lambda done: None,
    classifier: npt.NDArray[np.float32] | None = None,
) -> dict[Part, Arrays]:
    """Encode images and return the parts that were asked for.

    Args:
        clip: The model.
        batches: The preprocessed images, float32 (batch, 3, height, width).
        parts: The parts to return.
        size: The most images of a pass, which is lowered if the memory runs out.
        advance: Called with the number of images of every pass.
        classifier: The text features that local features are compared with, float32 (classes, dim), unit rows.

    Returns:
        For each part its arrays by name; none if the image tower does not show them.
    """
    found = _PartAccumulator(parts, None if classifier is None else torch.from_numpy(classifier).to(clip.device))
    looks = WATCHED & set(parts)
    watching = watch_blocks(clip, power) if looks else nullcontext(BlockOutputs())
    with _channels_last(clip), torch.inference_mode(), watching as seen:

        def encode(batch: torch.Tensor) -> LocalOutputs:
            seen.clear()
            if "local" in parts:
                return clip.encode_image_with_local(batch)
            if looks or "high_band" in parts:
                return LocalOutputs(*clip.encode_image_with_map(batch))
            return LocalOutputs(clip.encode_image(batch))

        for batch in batches:
            for count, maps in size.run(encode, batch):
                found.add(maps, seen)
                advance(count)
    return found.arrays()


def sensitivity(clip: Clip, batches: Iterable[torch.Tensor], size: BatchSize) -> npt.NDArray[np.float64]:
    """Return how far gratings of each frequency move the features of images.

    The orientation and the phase are drawn for each image, with a seed.

    Args:
        clip: The model.
        batches: The preprocessed images, float32 (batch, 3, height, width).
        size: The most images of a pass, which is lowered if the memory runs out.

    Returns:
        |change| / |features| over the grating's RMS, float64 (images, gratings).
    """
    rng, found = np.random.default_rng(0), []

    def encode(batch: torch.Tensor) -> torch.Tensor:
        return torch.cat([features for _, features in size.run(clip.encode_image, batch)]).double()

    with _channels_last(clip), torch.inference_mode():
        for batch in batches:
            plain = encode(batch)
            angles, phases = rng.uniform(0, 2 * np.pi, (2, len(batch)))
            waves = (_grating(batch.shape[-2:], frequency, angles, phases) for frequency in GRATINGS.values())
            moved = [encode(batch + GRATING_RMS * wave.to(batch.device)) for wave in waves]
            found.append(torch.stack([(m - plain).norm(dim=1) / plain.norm(dim=1) / GRATING_RMS for m in moved], dim=1))
    return torch.cat(found).cpu().numpy()


def _grating(
    size: Sequence[int], frequency: float, angles: npt.NDArray[np.float64], phases: npt.NDArray[np.float64]
) -> torch.Tensor:
    """Return gratings of RMS 1, (n, 1, rows, columns), with that many cycles per pixel, one for each angle."""
    y, x = np.indices(size)
    along = np.cos(angles)[:, None, None] * x + np.sin(angles)[:, None, None] * y
    waves = np.sqrt(2) * np.cos(2 * np.pi * frequency * along + phases[:, None, None])
    return torch.from_numpy(waves[:, None]).float()


class _PartAccumulator:
    """The parts of the batches that went through an image tower."""

    def __init__(self, parts: Collection[Part], classifier: torch.Tensor | None) -> None:
        self._parts, self._classifier = parts, classifier
        self._found: dict[Part, list[torch.Tensor]] = defaultdict(list)
        self._spectra = _PowerAccumulator()

    def add(self, encoded: LocalOutputs, seen: BlockOutputs) -> None:
        self._found["features"].append(encoded.features.float().cpu())
        if encoded.local is not None and self._classifier is not None:
            self._found["local"].append(_largest_log_softmax(encoded.local, self._classifier))
        maps = seen.blocks
        if encoded.patch_map is not None and (not maps or maps[-1].shape[1:] != encoded.patch_map.shape[-2:]):
            maps = [power(encoded.patch_map)]  # the tower shows the last map alone, or others than are known here
        if maps and "high_band" in self._parts:
            self._found["high_band"].append(high_band_share(maps[-1]))
        if maps and "blocks" in self._parts:
            self._spectra.add(maps)
        if "penultimate" in self._parts and seen.penultimate is not None:
            self._found["penultimate"].append(seen.penultimate.float().cpu())

    def arrays(self) -> dict[Part, Arrays]:
        """Return the arrays of each part by name; none if the tower does not show it."""
        joined: dict[Part, Arrays] = {part: {part: torch.cat(t).numpy()} for part, t in self._found.items()}
        joined["blocks"] = self._spectra.arrays()
        return {part: joined.get(part, {}) for part in self._parts}


class _PowerAccumulator:
    """The sums of the power maps of batches, block by block."""

    def __init__(self) -> None:
        self._sums: list[npt.NDArray[np.float64]] = []
        self._shares: list[torch.Tensor] = []
        self._last: list[torch.Tensor] = []

    def add(self, maps: Sequence[torch.Tensor]) -> None:
        sums = [block.sum(dim=0).numpy() for block in maps]
        self._sums = [before + now for before, now in zip(self._sums, sums, strict=True)] if self._sums else sums
        self._shares.append(torch.stack([high_band_share(block) for block in maps], dim=1))
        self._last.append(maps[-1].float())

    def arrays(self) -> Arrays:
        """Return the mean power map of each block, by its number, the `shares` and the `last` maps; see `Blocks`."""
        if not self._sums:
            return {}
        shares, last = torch.cat(self._shares).numpy(), torch.cat(self._last).numpy()
        return {"shares": shares, "last": last, **{f"{i}": total / len(last) for i, total in enumerate(self._sums)}}


def _largest_log_softmax(local: torch.Tensor, classifier: torch.Tensor) -> torch.Tensor:
    """Return the maximum over patches and classes at temperature 1: float64 (batch,), NaN if any patch has one."""
    cosines = F.normalize(local.float(), dim=-1) @ classifier.T
    return cosines.log_softmax(dim=-1).amax(dim=(1, 2)).cpu().double()


@torch.inference_mode()
def classifier(
    clip: Clip, captions: Sequence[Sequence[str]], size: BatchSize, advance: Advance = lambda done: None
) -> npt.NDArray[np.float32]:
    """Return the text features of classes: the mean of the captions' unit features, normalised again.

    Args:
        clip: The model.
        captions: The captions of each class, the same number for all.
        size: The most prompts of a pass, which is lowered if the memory runs out.
        advance: Called with the number of prompts of every pass.

    Returns:
        float32 (classes, dim), unit rows.
    """
    prompts = [prompt for class_captions in captions for prompt in class_captions]
    encode = _text_encoder(clip, prompts[: text_ends.TRIALS])
    encoded = []
    for start in range(0, len(prompts), BATCH):
        for count, features in size.run(encode, prompts[start : start + BATCH]):
            encoded.append(F.normalize(features.float(), dim=-1).cpu())
            advance(count)
    by_class = torch.cat(encoded).reshape(len(captions), len(captions[0]), -1)
    found: npt.NDArray[np.float32] = F.normalize(by_class.mean(dim=1), dim=-1).numpy()
    return found


def _text_encoder(clip: Clip, prompts: Sequence[str]) -> Callable[[Sequence[str]], torch.Tensor]:
    """Return a function that encodes prompts without their padding, if the features do not depend on it.

    A causal text tower that is read at the end of the text does not see what follows. But a quantizer may take a range
    over all tokens. So the padding stays unless every layer and hook is known to take each token by itself, and some of
    `prompts` do not show otherwise.
    """
    module: Any = clip.module
    mask = getattr(module, "attn_mask", None)
    causal = (
        clip.layout is OPEN_CLIP
        and isinstance(mask, torch.Tensor)
        and bool(torch.equal(mask, torch.full_like(mask, float("-inf")).triu(1)))
        and getattr(module, "text_pool_type", None) == "argmax"
        and isinstance(getattr(module, "positional_embedding", None), nn.Parameter)
        and all(
            type(part).__module__.partition(".")[0] in KNOWN_PACKAGES and takes_each_token_alone(part)
            for name, part in module.named_modules()
            if clip.in_scope(name, "text")
        )
    )
    end = text_ends.find_text_end(clip, prompts) if causal else None
    if end is None:
        return clip.encode_text

    def encode(prompts: Sequence[str]) -> torch.Tensor:
        tokens = clip.tokenizer(list(prompts))
        return text_ends.encode_cut(clip, tokens, int(end.lengths(tokens).max()))

    return encode
