"""Batches of preprocessed images, decoded in parallel and ahead of the model."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.data.preprocessing import Preprocess, corrupted
from pytest_qreliab.errors import InputError

# Fixed, because the same image can come out differently in the last digit in a batch of another size.
BATCH = 64
BATCHES_AHEAD = 2


def batches(images: ImageSet, preprocess: Preprocess) -> Iterator[torch.Tensor]:
    """Preprocessed batches in order; the next ones are decoded while the model works on this one.

    Raises InputError, with their number and the first, where images cannot be read.
    """
    if images.corruption is not None:
        preprocess = corrupted(preprocess, images.corruption)
    try:
        yield from _batches(images, preprocess)
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

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        count = sum(pool.map(bad, range(len(images))))
    return InputError(f"{images.name}: {count} of {len(images)} images cannot be read; the first: {first}")


def _batches(images: ImageSet, preprocess: Preprocess) -> Iterator[torch.Tensor]:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        ahead: deque[list[Future[torch.Tensor]]] = deque()
        try:
            for start in range(0, len(images), BATCH):
                indices = range(start, min(start + BATCH, len(images)))
                ahead.append([pool.submit(lambda i: preprocess(images.load(i)), i) for i in indices])
                if len(ahead) > BATCHES_AHEAD:
                    yield torch.stack([future.result() for future in ahead.popleft()])
            while ahead:
                yield torch.stack([future.result() for future in ahead.popleft()])
        finally:
            pool.shutdown(cancel_futures=True)
