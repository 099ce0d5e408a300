"""Batches of preprocessed images, which are decoded and resized once, in parallel, and then mapped into memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from pytest_qreliab import workers
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.data.preprocessing import Halves, Preprocess, corrupted, halves, spoilt
from pytest_qreliab.embedding.store import Store, digest
from pytest_qreliab.errors import InputError

BATCH = 64  # on a CPU, where larger ones are no faster
AHEAD = 128  # images
KNOWN = 256  # image sets whose contents are remembered
CPU = torch.device("cpu")

Pixels = npt.NDArray[np.uint8]
Made = TypeVar("Made")


def batches(
    images: ImageSet, preprocess: Preprocess, size: int = BATCH, device: torch.device = CPU
) -> Iterator[torch.Tensor]:
    """Preprocessed batches in order, decoded ahead of the model, and kept nowhere.

    Raises InputError, with their number and the first, where images cannot be read.
    """
    parts = halves(preprocess)
    if parts is None:
        if images.corruption is not None:
            preprocess = corrupted(preprocess, images.corruption)
        tensors = _ahead(lambda i: preprocess(images.load(i)), len(images))
        yield from (torch.stack(batch).to(device) for batch in _batched(_readable(images, tensors), size))
        return
    pixels = _readable(images, _ahead(lambda i: _pixels(images, parts, i), len(images)))
    yield from (_finished(parts, batch, device) for batch in _batched(pixels, size))


class Reader:
    """Batches of images that are kept, decoded and resized, in a store: every model of that preprocessing reads them,
    in this process, in others and in later runs. `environment` says what else the pixels depend on."""

    def __init__(self, store: Store, environment: str) -> None:
        self.store, self._environment = store, environment
        self._contents: dict[tuple[int, int], tuple[ImageSet, list[str], str]] = {}
        self._mapped: dict[str, list[tuple[dict[str, int], Pixels]]] = {}

    def manifest(self, images: ImageSet) -> str:
        """A digest of which images these are, whatever is done to them. Raises InputError for unreadable files."""
        return self._known(images)[2]

    def _known(self, images: ImageSet) -> tuple[ImageSet, list[str], str]:
        """What tells each image from all others, its id and a digest of its content, and a digest of all."""
        key = id(images.ids), id(images.content)  # which the corrupted variants of a set share
        known = self._contents.get(key)
        if known is None:
            assert images.content is not None
            found = [images.content(i) for i in range(len(images))]
            paths = [content for content in found if isinstance(content, Path)]
            digests = dict(zip(paths, self.store.digests(paths), strict=True))
            contents = [digests[content] if isinstance(content, Path) else content for content in found]
            told = [f"{name} {content}" for name, content in zip(images.ids, contents, strict=True)]
            known = images, told, digest(told)
            while len(self._contents) >= KNOWN:  # most are parts that were taken for one use
                del self._contents[next(iter(self._contents))]
            self._contents[key] = known
        return known

    def batches(
        self, images: ImageSet, preprocess: Preprocess, size: int = BATCH, device: torch.device = CPU
    ) -> Iterator[torch.Tensor]:
        """As the function `batches` gives them."""
        parts = halves(preprocess)
        if parts is None:
            yield from batches(images, preprocess, size, device)
            return
        key = digest("pixels", self._environment, parts.signature, self.manifest(images))
        if self._find(images, parts, key) is None:
            with self.store.claimed(key):
                if self._find(images, parts, key) is None:
                    decoded = self._decoded(images, parts, key)
                    if device.type == "cpu" or images.corruption is not None:
                        deque(decoded, maxlen=0)  # the model would want the cores that decode
                    else:
                        yield from (_finished(parts, batch, device) for batch in _batched(decoded, size))
                        return
        pixels = self._find(images, parts, key)
        if pixels is None:  # nothing can be kept
            yield from batches(images, preprocess, size, device)
        elif images.corruption is None:
            yield from (
                _finished(parts, pixels(a, min(a + size, len(images))), device) for a in range(0, len(images), size)
            )
        else:
            corruption = images.corruption
            spoiled = _ahead(lambda i: spoilt(pixels(i, i + 1)[0], corruption), len(images))
            yield from (_finished(parts, batch, device) for batch in _batched(spoiled, size))

    def _find(self, images: ImageSet, parts: Halves, key: str) -> Callable[[int, int], Pixels] | None:
        """What gives the images from one number to another, if they are kept: on their own, or among others."""
        wanted = self._known(images)[1]
        opened = self._mapped.setdefault(parts.signature, [])
        for places, array in opened:
            if all(content in places for content in wanted):
                rows = np.array([places[content] for content in wanted])
                return lambda start, stop: array[rows[start:stop]]
        mapped = self.store.mapped(key)
        if mapped is None:
            return None
        opened.append(({content: row for row, content in enumerate(wanted)}, mapped))
        return lambda start, stop: mapped[start:stop]

    def _decoded(self, images: ImageSet, parts: Halves, key: str) -> Iterator[Pixels]:
        """The images as they are decoded; they are kept once the last one was asked for."""
        plain = replace(images, corruption=None)
        decoded = _readable(images, _ahead(lambda i: _pixels(plain, parts, i), len(images)))
        first = next(decoded)
        with self.store.rows(
            key, (len(images), *first.shape), f"{len(images)} images of {images.name}, resized"
        ) as keep:
            for image in chain([first], decoded):
                if image.shape != first.shape:
                    raise InputError(
                        f"{images.name}: the model's preprocessing gives images of different sizes, "
                        f"{image.shape[:2]} and {first.shape[:2]}"
                    )
                keep(image)
                yield image


def _pixels(images: ImageSet, parts: Halves, index: int) -> Pixels:
    pixels = parts.pixels(images.load(index))
    return pixels if images.corruption is None else spoilt(pixels, images.corruption)


def _finished(parts: Halves, pixels: Sequence[Pixels] | Pixels, device: torch.device) -> torch.Tensor:
    stacked = np.stack(pixels) if isinstance(pixels, list) else np.array(pixels)  # a copy: what is mapped is read-only
    return parts.finish(torch.from_numpy(stacked), device)


def _batched(made: Iterator[Made], size: int) -> Iterator[list[Made]]:
    while batch := list(islice(made, size)):
        yield batch


def _ahead(make: Callable[[int], Made], count: int) -> Iterator[Made]:
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


def _readable(images: ImageSet, made: Iterator[Made]) -> Iterator[Made]:
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
