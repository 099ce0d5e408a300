"""Read decoded images from the cache or from their sources."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from pytest_qreliab.data.batches import (
    BATCH,
    CPU,
    Pixels,
    batched,
    batches,
    count_unreadable,
    decode_pixels,
    finish_batch,
    read_ahead,
)
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.data.preprocessing import Preprocess, SplitPreprocess, corrupt_pixels, split_preprocess
from pytest_qreliab.embedding.store import Store
from pytest_qreliab.errors import InputError
from pytest_qreliab.hashing import digest

KNOWN = 256  # image sets whose contents are remembered


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
        parts = split_preprocess(preprocess)
        if parts is None:
            yield from batches(images, preprocess, size, device)
            return
        key = digest("pixels", self._environment, parts.signature, self.manifest(images))
        if self._find(images, parts, key) is None:
            with self.store.lock(key):
                if self._find(images, parts, key) is None:
                    decoded = self._decoded(images, parts, key)
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

    def _find(self, images: ImageSet, parts: SplitPreprocess, key: str) -> Callable[[int, int], Pixels] | None:
        """What gives the images from one number to another, if they are kept: on their own, or among others."""
        wanted = self._known(images)[1]
        opened = self._mapped.setdefault(parts.signature, [])
        for places, array in opened:
            if all(content in places for content in wanted):
                rows = np.array([places[content] for content in wanted])
                return lambda start, stop: array[rows[start:stop]]
        mapped = self.store.open_pixels(key)
        if mapped is None:
            return None
        opened.append(({content: row for row, content in enumerate(wanted)}, mapped))
        return lambda start, stop: mapped[start:stop]

    def _decoded(self, images: ImageSet, parts: SplitPreprocess, key: str) -> Iterator[Pixels]:
        """The images as they are decoded; they are kept once the last one was asked for."""
        plain = replace(images, corruption=None)
        decoded = count_unreadable(images, read_ahead(lambda i: decode_pixels(plain, parts, i), len(images)))
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
