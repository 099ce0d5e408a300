"""Batches of preprocessed images, decoded in parallel ahead of the model that takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import torch

from pytest_qreliab import workers
from pytest_qreliab.data.images import ImageSet, Pixels
from pytest_qreliab.data.preprocessing import (
    Preprocess,
    SplitPreprocess,
    corrupt_pixels,
    split_preprocess,
    with_corruption,
)
from pytest_qreliab.errors import InputError

BATCH = 64  # images on a CPU, where larger batches are no faster
AHEAD = 128  # images
CPU = torch.device("cpu")

Item = TypeVar("Item")


def batches(
    images: ImageSet, preprocess: Preprocess, size: int = BATCH, device: torch.device = CPU
) -> Iterator[torch.Tensor]:
    """Yield preprocessed batches in order, decoded ahead of the model and kept nowhere.

    Args:
        images: The images; a corruption is applied once they have the size that the model sees.
        preprocess: A PIL image to a float32 tensor (3, height, width).
        size: Images per batch; the last one may be smaller.
        device: Where the batches go.

    Yields:
        float32 (batch, 3, height, width).

    Raises:
        InputError: Images cannot be read; it says how many and names the first.
    """
    parts = split_preprocess(preprocess)
    if parts is None:
        if images.corruption is not None:
            preprocess = with_corruption(preprocess, images.corruption)
        tensors = read_ahead(lambda i: preprocess(images.load(i)), len(images))
        yield from (torch.stack(batch).to(device) for batch in batched(count_unreadable(images, tensors), size))
        return
    pixels = count_unreadable(images, read_ahead(lambda i: decode_pixels(images, parts, i), len(images)))
    yield from (finish_batch(parts, batch, device) for batch in batched(pixels, size))


def decode_pixels(images: ImageSet, parts: SplitPreprocess, index: int) -> Pixels:
    """Return one image at the size that the model sees, corrupted if the set is, uint8 (height, width, 3)."""
    pixels = parts.pixels(images.load(index))
    return pixels if images.corruption is None else corrupt_pixels(pixels, images.corruption)


def finish_batch(parts: SplitPreprocess, pixels: Sequence[Pixels] | Pixels, device: torch.device) -> torch.Tensor:
    """Turn pixels of one size into a batch for the model, float32 (batch, 3, height, width), on a device."""
    stacked = np.stack(pixels) if isinstance(pixels, list) else np.array(pixels)  # a copy: what is mapped is read-only
    return parts.finish(torch.from_numpy(stacked), device)


def batched(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` items; the last one may be shorter."""
    while batch := list(islice(items, size)):
        yield batch


def read_ahead(read: Callable[[int], Item], count: int) -> Iterator[Item]:
    """Yield `read(0)`, `read(1)`, ... `read(count - 1)`, the next ones read in parallel while one is used."""
    with ThreadPoolExecutor(min(8, workers.cores())) as pool:
        ahead: deque[Future[Item]] = deque()
        try:
            for index in range(count):
                ahead.append(pool.submit(read, index))
                if len(ahead) > AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def count_unreadable(images: ImageSet, items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items made of images; raise InputError with the number of unreadable images if one cannot be read."""
    try:
        yield from items
    except InputError as error:
        raise _all_unreadable(images, error) from None


def _all_unreadable(images: ImageSet, first: InputError) -> InputError:
    """Return the error that says how many images of the set cannot be read."""

    def is_unreadable(index: int) -> bool:
        try:
            images.load(index)
        except InputError:
            return True
        return False

    with ThreadPoolExecutor(min(8, workers.cores())) as pool:
        count = sum(pool.map(is_unreadable, range(len(images))))
    return InputError(f"{images.name}: {count} of {len(images)} images cannot be read; the first: {first}")
