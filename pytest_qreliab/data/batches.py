"""Batches of preprocessed images, which are decoded and resized once, in parallel, and then mapped into memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from pytest_qreliab import workers
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.data.preprocessing import (
    Preprocess,
    SplitPreprocess,
    corrupt_pixels,
    split_preprocess,
    with_corruption,
)
from pytest_qreliab.errors import InputError

BATCH = 64  # on a CPU, where larger ones are no faster
AHEAD = 128  # images
CPU = torch.device("cpu")

Pixels = npt.NDArray[np.uint8]
Made = TypeVar("Made")


def batches(
    images: ImageSet, preprocess: Preprocess, size: int = BATCH, device: torch.device = CPU
) -> Iterator[torch.Tensor]:
    """Preprocessed batches in order, decoded ahead of the model, and kept nowhere.

    Raises InputError, with their number and the first, where images cannot be read.
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
    pixels = parts.pixels(images.load(index))
    return pixels if images.corruption is None else corrupt_pixels(pixels, images.corruption)


def finish_batch(parts: SplitPreprocess, pixels: Sequence[Pixels] | Pixels, device: torch.device) -> torch.Tensor:
    stacked = np.stack(pixels) if isinstance(pixels, list) else np.array(pixels)  # a copy: what is mapped is read-only
    return parts.finish(torch.from_numpy(stacked), device)


def batched(made: Iterator[Made], size: int) -> Iterator[list[Made]]:
    while batch := list(islice(made, size)):
        yield batch


def read_ahead(make: Callable[[int], Made], count: int) -> Iterator[Made]:
    """What `make` makes of 0, 1, ... in order, the next ones in parallel while this one is used."""
    with ThreadPoolExecutor(min(8, workers.cores())) as pool:
        ahead: deque[Future[Made]] = deque()
        try:
            for index in range(count):
                ahead.append(pool.submit(make, index))
                if len(ahead) > AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def count_unreadable(images: ImageSet, made: Iterator[Made]) -> Iterator[Made]:
    try:
        yield from made
    except InputError as error:
        raise _unreadable(images, error) from None


def _unreadable(images: ImageSet, first: InputError) -> InputError:
    """How many images of the set cannot be read, now that one is known."""

    def bad(index: int) -> bool:
        try:
            images.load(index)
        except InputError:
            return True
        return False

    with ThreadPoolExecutor(min(8, workers.cores())) as pool:
        count = sum(pool.map(bad, range(len(images))))
    return InputError(f"{images.name}: {count} of {len(images)} images cannot be read; the first: {first}")
