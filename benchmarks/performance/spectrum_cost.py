"""Time the spectral part on top of the forward passes: all blocks' spectra, penultimate features and ranks.

    python benchmarks/performance/spectrum_cost.py [ARCHITECTURE ...]

Weights and images are random. Rounds of bare passes and of watched ones take turns, so that a noisy machine disturbs
both alike. The ratio is of the sums over all rounds. The metrics by rank are of 2,000 samples.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import open_clip
import torch

from pytest_qreliab.metrics import spectral
from pytest_qreliab.metrics.rank import FeaturePair, Spectrum
from pytest_qreliab.models.block_hooks import watch_blocks
from pytest_qreliab.models.clip import Clip

BATCH, ROUNDS, SAMPLES = 32, 6, 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architectures", nargs="*", default=["ViT-B-32", "ViT-B-16", "RN50", "convnext_base"])
    for name in parser.parse_args().architectures:
        module = open_clip.create_model(name).eval()
        clip = Clip(name, module, open_clip.image_transform(224, is_train=False), open_clip.get_tokenizer(name))
        size = module.visual.image_size
        images = torch.randn(BATCH, 3, *(size if isinstance(size, tuple) else (size, size)))
        bare = with_spectra = 0.0
        for _ in range(ROUNDS):
            bare += seconds(partial(clip.encode_image, images))
            with watch_blocks(clip, spectral.power) as seen:
                seen.clear()
                with_spectra += seconds(partial(clip.encode_image, images))
        x = torch.randn(SAMPLES, clip.encode_image(images).shape[1]).numpy()
        of_ranks = seconds(partial(ranks, x, x + 0.1 * np.roll(x, 1)))
        share = of_ranks / (bare / ROUNDS / BATCH * SAMPLES)
        extra = with_spectra / bare - 1
        print(
            f"{name:16} bare {bare / ROUNDS / BATCH * 1000:7.1f} ms an image; spectra of {len(seen.blocks)} blocks "
            f"{extra:+.1%}; ranks {share:+.1%}; together {extra + share:+.1%}"
        )


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ranks(full: np.ndarray, quantized: np.ndarray) -> None:
    """Compute all metrics of image features by rank, with what their intervals need."""
    spectrum, other = Spectrum.fit(full), Spectrum.fit(quantized)
    for name in ("effective_rank", "stable_rank", "participation_ratio"):
        other.estimate(name, quantized, "x") - spectrum.estimate(name, full, "x")
    pair = FeaturePair(spectrum, full, quantized, "x")
    assert np.isfinite(pair.cka.value)
    pair.principal_angle(other)
    for band in pair.bands:
        pair.residual_ratio(band)


if __name__ == "__main__":
    main()
