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
from pytest_qreliab.errors import InputError
from pytest_qreliab.metrics.registry import GRATINGS
from pytest_qreliab.metrics.spectral import high_band_share, power
from pytest_qreliab.models.block_hooks import BlockOutputs, watched
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.layout import OPEN_CLIP

Advance = Callable[[int], None]
Arrays = dict[str, npt.NDArray[Any]]
Result = TypeVar("Result")

# What may be taken from the images of a set, each kept by itself: `features`, and of the maps of the image tower
# `high_band`, `blocks` and `penultimate`; `local` features beside a classifier.
Part = Literal["features", "high_band", "local", "blocks", "penultimate"]
WATCHED: frozenset[Part] = frozenset({"blocks", "penultimate"})

LARGE_BATCH = 256  # on a GPU, to begin with
GRATING_RMS = 0.1  # in units of the pixels' own spread
FEW = 4  # prompts, on which padding is tried


@dataclass
class BatchSize:
    """How many images, or prompts, a forward pass takes at most: halved for good where the memory runs out."""

    value: int

    @classmethod
    def for_device(cls, device: torch.device) -> BatchSize:
        return cls(LARGE_BATCH if device.type == "cuda" else BATCH)

    def run(self, encode: Callable[[Any], Result], batch: Any) -> Iterator[tuple[int, Result]]:
        """The batch in as few passes as fit: of each how many it took, and what it gave. Raises InputError where not
        even one image fits."""
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
    """Matrix products in true float32 on a GPU: TF32 keeps 10 bits, coarser than what is to be measured."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@contextmanager
def _channels_last(clip: Clip) -> Iterator[None]:
    """The weights of convolutions in the order that their kernels are fastest in, and back again: to whoever quantizes
    the model, they are as they were."""
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
    advance: Advance,
    classifier: npt.NDArray[np.float32] | None = None,
) -> dict[Part, Arrays]:
    """Each part as arrays by name; none, where the tower does not show it. Local features need the `classifier`."""
    found: dict[Part, list[torch.Tensor]] = defaultdict(list)
    spectra = _PowerAccumulator()
    local_to = None if classifier is None else torch.from_numpy(classifier).to(clip.device)
    looks = WATCHED & set(parts)
    watching = watched(clip, power) if looks else nullcontext(BlockOutputs())
    with _channels_last(clip), torch.inference_mode(), watching as seen:

        def encode(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
            seen.clear()
            if "local" in parts:
                return clip.encode_image_with_local(batch)
            if looks or "high_band" in parts:
                return *clip.encode_image_with_map(batch), None
            return clip.encode_image(batch), None, None

        for batch in batches:
            for count, (features, patch_map, local) in size.run(encode, batch):
                found["features"].append(features.float().cpu())
                if local is not None and local_to is not None:
                    found["local"].append(_largest_log_softmax(local, local_to))
                maps = seen.blocks
                if patch_map is not None and (not maps or maps[-1].shape[1:] != patch_map.shape[-2:]):
                    maps = [power(patch_map)]  # the tower shows the last map alone, or others than are known here
                if maps and "high_band" in parts:
                    found["high_band"].append(high_band_share(maps[-1]))
                if maps and "blocks" in parts:
                    spectra.add(maps)
                if "penultimate" in parts and seen.penultimate is not None:
                    found["penultimate"].append(seen.penultimate.float().cpu())
                advance(count)
    joined: dict[Part, Arrays] = {part: {part: torch.cat(of).numpy()} for part, of in found.items()}
    joined["blocks"] = spectra.arrays()
    return {part: joined.get(part, {}) for part in parts}


def sensitivity(clip: Clip, batches: Iterable[torch.Tensor], size: BatchSize) -> npt.NDArray[np.float64]:
    """How far gratings of each frequency move the features of images: |change| / |features| over the grating's
    RMS, float64 (images, gratings). Orientation and phase are drawn for each image, with a seed."""
    rng, found = np.random.default_rng(0), []

    def encode(batch: torch.Tensor) -> torch.Tensor:
        return torch.cat([features for _, features in size.run(clip.encode_image, batch)]).double()

    with _channels_last(clip), torch.inference_mode():
        for batch in batches:
            plain = encode(batch)
            angles, phases = rng.uniform(0, 2 * np.pi, (2, len(batch)))
            waves = (_grating(batch.shape[-2:], frequency, angles, phases) for frequency in GRATINGS.values())
            moved = [encode(batch + GRATING_RMS * wave.to(batch.device)) for wave in waves]
            found.append(
                torch.stack([(of - plain).norm(dim=1) / plain.norm(dim=1) / GRATING_RMS for of in moved], dim=1)
            )
    return torch.cat(found).cpu().numpy()


def _grating(
    size: Sequence[int], frequency: float, angles: npt.NDArray[np.float64], phases: npt.NDArray[np.float64]
) -> torch.Tensor:
    """Gratings of RMS 1, (n, 1, rows, columns), of that many cycles per pixel, one of each angle and phase."""
    y, x = np.indices(size)
    along = np.cos(angles)[:, None, None] * x + np.sin(angles)[:, None, None] * y
    waves = np.sqrt(2) * np.cos(2 * np.pi * frequency * along + phases[:, None, None])
    return torch.from_numpy(waves[:, None]).float()


class _PowerAccumulator:
    """Adds the power maps of batches up, block by block."""

    def __init__(self) -> None:
        self._sums: list[npt.NDArray[np.float64]] = []
        self._shares: list[torch.Tensor] = []
        self._last: list[torch.Tensor] = []

    def add(self, maps: Sequence[torch.Tensor]) -> None:
        sums = [of_block.sum(dim=0).numpy() for of_block in maps]
        self._sums = [before + now for before, now in zip(self._sums, sums, strict=True)] if self._sums else sums
        self._shares.append(torch.stack([high_band_share(of_block) for of_block in maps], dim=1))
        self._last.append(maps[-1].float())

    def arrays(self) -> Arrays:
        """The mean power map of each block, by its number, the `shares` and the `last` maps; see `Blocks`."""
        if not self._sums:
            return {}
        shares, last = torch.cat(self._shares).numpy(), torch.cat(self._last).numpy()
        return {"shares": shares, "last": last, **{f"{i}": total / len(last) for i, total in enumerate(self._sums)}}


def _largest_log_softmax(local: torch.Tensor, classifier: torch.Tensor) -> torch.Tensor:
    """Over patches and classes, of cosines at temperature 1: float64 (batch,), NaN where any patch has one."""
    cosines = F.normalize(local.float(), dim=-1) @ classifier.T
    return cosines.log_softmax(dim=-1).amax(dim=(1, 2)).cpu().double()


@torch.inference_mode()
def classifier(
    clip: Clip, captions: Sequence[Sequence[str]], size: BatchSize, advance: Advance = lambda done: None
) -> npt.NDArray[np.float32]:
    """One unit vector per class: the mean over its captions of their unit features, normalised again."""
    prompts = [prompt for of_class in captions for prompt in of_class]
    encode = _text_encoder(clip, prompts[:FEW])
    encoded = []
    for start in range(0, len(prompts), BATCH):
        for count, features in size.run(encode, prompts[start : start + BATCH]):
            encoded.append(F.normalize(features.float(), dim=-1).cpu())
            advance(count)
    by_class = torch.cat(encoded).reshape(len(captions), len(captions[0]), -1)
    found: npt.NDArray[np.float32] = F.normalize(by_class.mean(dim=1), dim=-1).numpy()
    return found


def _text_encoder(clip: Clip, some: Sequence[str]) -> Callable[[Sequence[str]], torch.Tensor]:
    """What encodes prompts without the padding behind the longest, where that is no part of the features.

    A causal text tower that is read at the end of the text does not see what follows; but a quantizer may take a range
    over all tokens. So `some` prompts are encoded with other tokens in the place of the padding as well: where that
    changes the features by a single bit, the padding stays.
    """
    module: Any = clip.module
    mask = getattr(module, "attn_mask", None)
    causal = (
        clip.layout is OPEN_CLIP
        and isinstance(mask, torch.Tensor)
        and bool(torch.equal(mask, torch.full_like(mask, float("-inf")).triu(1)))
        and getattr(module, "text_pool_type", None) == "argmax"
        and isinstance(getattr(module, "positional_embedding", None), nn.Parameter)
    )
    if not causal:
        return clip.encode_text

    def encode(prompts: Sequence[str]) -> torch.Tensor:
        tokens = clip.tokenizer(list(prompts))
        length = int(tokens.argmax(dim=-1).max()) + 1
        with _cut(module, length):
            return clip.layout.encode_text(module, tokens[:, :length], clip.device)

    tokens = clip.tokenizer(list(some))
    behind = torch.arange(tokens.shape[1]) > tokens.argmax(dim=-1, keepdim=True)
    others = torch.where(behind, tokens[:, 1:2], tokens)
    plain, filled = (clip.layout.encode_text(module, of, clip.device) for of in (tokens, others))
    return encode if torch.equal(plain, filled) else clip.encode_text


@contextmanager
def _cut(module: Any, length: int) -> Iterator[None]:
    """While the text tower takes that many tokens."""
    positions, mask = module.positional_embedding, module.attn_mask
    module.positional_embedding, module.attn_mask = nn.Parameter(positions[:length], False), mask[:length, :length]
    try:
        yield
    finally:
        module.positional_embedding, module.attn_mask = positions, mask
