"""Print how post-training quantizers do on a full-size random image tower with planted outliers, as Markdown.

    python benchmarks/studies/outliers.py  # ViT-B/32, some 10 minutes on two cores
    python benchmarks/studies/outliers.py --quantizers minmax,gptq --bits w3

Five channels of each block's norms are 20 to 60 times as large, and one channel of two positions exceeds all others.
The model compares 64 images of noise with 64 others, as if those were classes. Each cell is the agreement with full
precision / KL divergence from it, in nats / distance of unit features. Below, the quantizers in the order of KL.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from pytest_qreliab.config.formats import Format
from pytest_qreliab.data.images import from_arrays
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.calibration import Calibration
from pytest_qreliab.quantizers.request import Request

METHODS = "minmax,percentile,mse,smoothquant,outlier-suppression,quarot,gptq,awq,hqq"
IMAGES = 64  # to calibrate on, to measure, and to stand for classes
SCALE = 30.0  # of logits: random features differ little


def planted(name: str) -> Clip:
    """Return a random model with outliers in its image tower."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    module, _, preprocess = open_clip.create_model_and_transforms(name)
    module.eval().requires_grad_(False)
    for path, norm in module.visual.named_modules():
        if isinstance(norm, nn.LayerNorm) and not path.startswith(("ln_pre", "ln_post")):
            at = torch.randperm(len(norm.weight), generator=generator)[:5]
            norm.weight[at] *= 20 + 40 * torch.rand(5, generator=generator)
    positions = module.visual.positional_embedding
    for token in torch.randperm(len(positions), generator=generator)[:2]:
        channel = torch.randint(positions.shape[1], (1,), generator=generator)
        positions[token, channel] += 8 * positions.std() * positions.shape[1] ** 0.5
    return Clip(name, module, preprocess, open_clip.get_tokenizer(name))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32", help="an open_clip architecture with a ViT")
    parser.add_argument("--quantizers", default=METHODS)
    parser.add_argument("--bits", default="w8a8,w4a8,w3,w2")
    args = parser.parse_args()
    clip = planted(args.model)
    pixels = np.random.default_rng(0).integers(0, 256, (3 * IMAGES, 8, 8, 3), dtype=np.uint8)
    calibration = Calibration(
        images=from_arrays("noise", pixels[:IMAGES]), held_out=None, classes=["a"], templates=["{}"]
    )
    batch = torch.stack([clip.preprocess(Image.fromarray(image)) for image in pixels[IMAGES:]])
    wanted = F.normalize(clip.encode_image(batch), dim=-1)
    middle = wanted.mean(0)  # which all features of a random model share
    classes = F.normalize(wanted[IMAGES:] - middle, dim=-1)
    full = (SCALE * F.normalize(wanted[:IMAGES] - middle, dim=-1) @ classes.T).log_softmax(1)
    found: dict[tuple[str, str], tuple[float, float, float]] = {}
    for method in args.quantizers.split(","):
        recipe = Catalog().recipe(method)
        for bits in args.bits.split(","):
            started = time.perf_counter()
            request = Request(
                bits=Format.of(bits), scope="vision", parameters=recipe.parameters, calibration=calibration
            )
            features = F.normalize(recipe.quantize(clip, request).encode_image(batch[:IMAGES]), dim=-1)
            ours = (SCALE * F.normalize(features - middle, dim=-1) @ classes.T).log_softmax(1)
            agreement = float((ours.argmax(1) == full.argmax(1)).double().mean())
            kl = float(F.kl_div(ours, full, reduction="batchmean", log_target=True))
            found[method, bits] = agreement, kl, float((features - wanted[:IMAGES]).norm(dim=-1).mean())
            print(method, bits, *found[method, bits], f"{time.perf_counter() - started:.1f} s", file=sys.stderr)
    widths = args.bits.split(",")
    print(f"| quantizer | {' | '.join(widths)} |\n|---{'|---' * len(widths)}|")
    for method in args.quantizers.split(","):
        cells = (" / ".join(f"{value:.3f}".removeprefix("0") for value in found[method, bits]) for bits in widths)
        print(f"| `{method}` | {' | '.join(cells)} |")
    print()
    for bits in widths:
        order = sorted(args.quantizers.split(","), key=lambda method: found[method, bits][1])
        print(f"{bits}, by KL: {', '.join(order)}")


if __name__ == "__main__":
    main()
