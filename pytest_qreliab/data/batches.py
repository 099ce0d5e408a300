"""Batches of preprocessed images, decoded in parallel and ahead of the model."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from PIL import Image

from pytest_qreliab.data.images import ImageSet

# Fixed, because the same image can come out differently in the last digit in a batch of another size.
BATCH = 64
BATCHES_AHEAD = 2


def batches(images: ImageSet, preprocess: Callable[[Image.Image], torch.Tensor]) -> Iterator[torch.Tensor]:
    """Preprocessed batches in order; the next ones are decoded while the model works on this one."""
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
