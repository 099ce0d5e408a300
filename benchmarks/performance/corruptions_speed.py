"""Time each corruption: how many images one thread makes in a second, compared with decoding and resizing a JPEG.

    python benchmarks/performance/corruptions_speed.py [--size 224] [--images 10]

The image is the middle of scikit-learn's photograph of a flower, at severities 1 to 5 in turn. Ratios are within one
run.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from pytest_qreliab.config.corruption_kinds import EXTRA_KINDS, SEVERITIES, STANDARD_KINDS
from pytest_qreliab.data.corruptions import corrupt


def seconds(times: int, make: Callable[[int], object]) -> float:
    """Return the least of three mean times of one call."""
    make(0)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        for index in range(times):
            make(index)
        best = min(best, (time.perf_counter() - started) / times)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[224, 32])
    parser.add_argument("--images", type=int, default=10)
    args = parser.parse_args()
    photo = Image.fromarray(load_sample_images().images[1])
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=90)
    for size in args.size:

        def decode(index: int, size: int = size) -> Image.Image:
            with Image.open(io.BytesIO(buffer.getvalue())) as image:
                return image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)

        image = np.asarray(decode(0))
        decoding = seconds(args.images, decode)
        print(f"{size}x{size}: decoding and resizing {photo.width}x{photo.height} {1 / decoding:8.0f} images/s")
        for kind in (*STANDARD_KINDS, *EXTRA_KINDS):
            taken = seconds(args.images, lambda i, kind=kind, image=image: corrupt(image, kind, SEVERITIES[i % 5], i))
            print(f"  {kind:20} {1 / taken:8.0f} images/s  {taken / decoding:6.2f} times the decoding")


if __name__ == "__main__":
    main()
