"""Read decoded images from the cache or from their sources."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from pytest_qreliab.data.batches import (
    BATCH,
    CPU,
    batched,
    batches,
    count_unreadable,
    decode_pixels,
    finish_batch,
    read_ahead,
)
from pytest_qreliab.data.images import ImageSet, Pixels
from pytest_qreliab.data.preprocessing import Preprocess, SplitPreprocess, corrupt_pixels, split_preprocess
from pytest_qreliab.embedding.file_digests import FileDigests
from pytest_qreliab.embedding.pixel_files import PixelFiles
from pytest_qreliab.embedding.store import Store
from pytest_qreliab.errors import InputError
from pytest_qreliab.hashing import digest

KNOWN = 256  # image sets whose contents are remembered


@dataclass(frozen=True)
class _Contents:
    """The contents of an image set."""

    images: ImageSet  # held, so that no other set gets its id
    each: list[str]  # the id of each image and a digest of its content
    digest: str  # of all


class Reader:
    """Batches of images that a store keeps, decoded and resized.

    Every model with that preprocessing reads them, in this process, in others and in later runs.
    """

    def __init__(self, store: Store, environment: str) -> None:
        """Read through a store. `environment` says what else the pixels depend on."""
        self._store, self._environment = store, environment
        self._pixel_files, self._file_digests = PixelFiles(store), FileDigests(store)
        self._contents: dict[tuple[int, int], _Contents] = {}
        self._opened: dict[str, list[tuple[dict[str, int], Pixels]]] = {}

    def file_digests(self, paths: Sequence[Path]) -> list[str]:
        """Return the digest of each file's content. Raises InputError for a file that cannot be read."""
        return self._file_digests.digests(paths)

    def manifest(self, images: ImageSet) -> str:
        """Return a digest of which images these are, whatever is done to them.

        Raises:
            InputError: A file cannot be read.
        """
        return self._contents_of(images).digest

    def _contents_of(self, images: ImageSet) -> _Contents:
        key = id(images.ids), id(images.content)  # which the corrupted variants of a set share
        if key not in self._contents:
            content = images.content
            assert content is not None
            found = [content(i) for i in range(len(images))]
            paths = [value for value in found if isinstance(value, Path)]
            digests = dict(zip(paths, self.file_digests(paths), strict=True))
            values = [digests[value] if isinstance(value, Path) else value for value in found]
            each = [f"{name} {value}" for name, value in zip(images.ids, values, strict=True)]
            while len(self._contents) >= KNOWN:  # most are parts that were taken for one use
                del self._contents[next(iter(self._contents))]
            self._contents[key] = _Contents(images, each, digest(each))
        return self._contents[key]

    def batches(
        self, images: ImageSet, preprocess: Preprocess, size: int = BATCH, device: torch.device = CPU
    ) -> Iterator[torch.Tensor]:
        """Yield the preprocessed images: float32 (batch, 3, height, width).

        They are the ones that the function `batches` yields, to the bit.

        Args:
            images: The images.
            preprocess: The model's preprocessing.
            size: How many images a batch holds.
            device: Where the batches are needed.

        Raises:
            InputError: An image cannot be read, or the preprocessing keeps the images' sizes.
        """
        parts = split_preprocess(preprocess)
        if parts is None:
            yield from batches(images, preprocess, size, device)
            return
        key = self._pixels_key(images, parts)
        if self._find(images, parts, key) is None:
            with self._store.lock(key):
                if self._find(images, parts, key) is None:
                    decoded = self._decode(images, parts, key)
                    if device.type == "cpu" or images.corruption is not None:
                        deque(decoded, maxlen=0)  # the model would want the cores that decode
                    else:
                        yield from (finish_batch(parts, batch, device) for batch in batched(decoded, size))
                        return
        pixels = self._find(images, parts, key)
        if pixels is None:  # nothing can be kept
            yield from batches(images, preprocess, size, device)
        elif images.corruption is None:
            yield from (
                finish_batch(parts, pixels(a, min(a + size, len(images))), device) for a in range(0, len(images), size)
            )
        else:
            corruption = images.corruption
            spoiled = read_ahead(lambda i: corrupt_pixels(pixels(i, i + 1)[0], corruption), len(images))
            yield from (finish_batch(parts, batch, device) for batch in batched(spoiled, size))

    def fingerprints(self, images: ImageSet, preprocess: Preprocess) -> list[int]:
        """Return a number for each image, the same for images that a model sees alike, in this process alone.

        Args:
            images: The images.
            preprocess: The model's preprocessing.

        Raises:
            InputError: An image cannot be read.
        """
        parts = split_preprocess(preprocess)
        if parts is not None:
            key = self._pixels_key(images, parts)
            if self._find(images, parts, key) is None:
                deque(self.batches(images, preprocess), maxlen=0)  # decodes and keeps them
            if (pixels := self._find(images, parts, key)) is not None:
                return [hash(pixels(place, place + 1).tobytes()) for place in range(len(images))]
        return [hash(row.numpy().tobytes()) for batch in self.batches(images, preprocess) for row in batch.cpu()]

    def _pixels_key(self, images: ImageSet, parts: SplitPreprocess) -> str:
        return digest("pixels", self._environment, parts.signature, self.manifest(images))

    def _find(self, images: ImageSet, parts: SplitPreprocess, key: str) -> Callable[[int, int], Pixels] | None:
        """Return a function from a range of images to their pixels, if they are kept, on their own or among others."""
        wanted = self._contents_of(images).each
        opened = self._opened.setdefault(parts.signature, [])
        for places, array in opened:
            if all(content in places for content in wanted):
                rows = np.array([places[content] for content in wanted])
                return lambda start, stop: array[rows[start:stop]]
        mapped = self._pixel_files.open_pixels(key)
        if mapped is None:
            return None
        opened.append(({content: row for row, content in enumerate(wanted)}, mapped))
        return lambda start, stop: mapped[start:stop]

    def _decode(self, images: ImageSet, parts: SplitPreprocess, key: str) -> Iterator[Pixels]:
        """Yield the decoded images; they are kept once the last one was asked for."""
        plain = replace(images, corruption=None)
        decoded = count_unreadable(images, read_ahead(lambda i: decode_pixels(plain, parts, i), len(images)))
        first = next(decoded)
        shape, about = (len(images), *first.shape), f"{len(images)} images of {images.name}, resized"
        with self._pixel_files.rows(key, shape, about) as keep:
            for image in chain([first], decoded):
                if image.shape != first.shape:
                    raise InputError(
                        f"{images.name}: the model's preprocessing gives images of different sizes, "
                        f"{image.shape[:2]} and {first.shape[:2]}"
                    )
                keep(image)
                yield image
