"""Train `tiny-digits`, the embedded model, from scratch on the CPU.

    python benchmarks/training/train_tiny_digits.py  # about 10 minutes on two cores; writes the package's weights
    python benchmarks/training/train_tiny_digits.py --out DIR  # writes a folder that `local-dir:DIR` loads

The data are the training part of scikit-learn's handwritten digits (899 images, `digits("train")`) with captions made
from the benchmark's templates. The loss is CLIP's symmetric cross-entropy with every caption of the same digit in the
batch as a target (as in UniCL, Yang et al. 2022). With ten classes in a batch of 128, the one-to-one targets of the
original would call nine in ten matching pairs wrong.

Augmentation (turn, scale, shear, shift, stroke contrast, tint, blur, noise) keeps the model from being brittle: every
quantizer would look harmful on a brittle model. Everything is seeded. The same machine gives the same weights, another
one the same accuracy within half a point.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms.functional import gaussian_blur

from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.data.sources.builtin import digits
from pytest_qreliab.models import tiny_digits

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = (
    "a photo of the digit {}.",
    "a handwritten {}.",
    "a scan of the number {}.",
    "a blurry photo of a handwritten {}.",
    "the digit {} in someone's handwriting.",
    "a small picture of the number {}.",
    "{}",
)
EPOCHS, BATCH, PEAK_RATE, WEIGHT_DECAY = 400, 128, 2e-3, 0.1


def pixels(images: ImageSet, transform: Callable[[Image.Image], torch.Tensor]) -> torch.Tensor:
    return torch.stack([transform(images.load(i)) for i in range(len(images))])


def augment(x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Return a random view of each image, (batch, 3, 32, 32) in [-1, 1]."""
    n = len(x)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=rng)

    angle, shear = uniform(-0.26, 0.26), uniform(-0.2, 0.2)
    scale_x, scale_y = uniform(0.85, 1.18), uniform(0.85, 1.18)
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.stack(
        [
            torch.stack([cos * scale_x, -sin * scale_y + shear, uniform(-0.14, 0.14)], 1),
            torch.stack([sin * scale_x, cos * scale_y, uniform(-0.14, 0.14)], 1),
        ],
        1,
    )
    ink = (x + 1) / 2
    ink = F.grid_sample(ink, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)
    ink = ink.clamp(0, 1) ** uniform(0.6, 1.6, 1, 1, 1)
    blurred = gaussian_blur(ink, [5, 5], [1.2, 1.2])
    mix = uniform(0, 1, 1, 1, 1) * (uniform(0, 1, 1, 1, 1) < 0.4)
    ink = ink * (1 - mix) + blurred * mix
    tint, floor = uniform(0.55, 1.0, 3, 1, 1), uniform(0.0, 0.15, 3, 1, 1)
    ink = floor + ink * (tint - floor)
    noise = torch.randn(x.shape, generator=rng) * uniform(0, 0.12, 1, 1, 1)
    return (ink + noise).clamp(0, 1) * 2 - 1


def contrastive_loss(
    images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    logits = scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    same = (labels[:, None] == labels[None, :]).float()
    targets = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


@torch.no_grad()
def zero_shot(
    model: torch.nn.Module, tokenizer: tiny_digits.ByteTokenizer, x: torch.Tensor, y: torch.Tensor
) -> tuple[float, float, float]:
    """Return top-1 accuracy, mean confidence and NLL of the template ensemble."""
    model.eval()
    prompts = [template.format(name) for name in NAMES for template in TEMPLATES]
    texts = F.normalize(model.encode_text(tokenizer(prompts)), dim=-1)
    classes = F.normalize(texts.reshape(len(NAMES), len(TEMPLATES), -1).mean(1), dim=-1)
    logits = model.logit_scale.exp() * F.normalize(model.encode_image(x), dim=-1) @ classes.T
    confidence, predicted = logits.softmax(-1).max(-1)
    model.train()
    return (
        (predicted == y).double().mean().item(),
        confidence.mean().item(),
        F.cross_entropy(logits, y).item(),
    )


def train(epochs: int, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    config = json.loads((tiny_digits.FOLDER / "open_clip_config.json").read_text())
    model = open_clip.CLIP(**config["model_cfg"])
    transform = open_clip.image_transform(
        model.visual.image_size,
        is_train=False,
        **{key: config["preprocess_cfg"][key] for key in ("mean", "std", "interpolation", "resize_mode")},
    )
    tokenizer = tiny_digits.ByteTokenizer(model.context_length)
    seen, held_out = digits("train"), digits("test")
    x, y = pixels(seen, transform), torch.from_numpy(np.asarray(seen.labels))
    test_x, test_y = pixels(held_out, transform), torch.from_numpy(np.asarray(held_out.labels))
    captions = tokenizer([template.format(name) for name in NAMES for template in TEMPLATES])

    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
        lr=PEAK_RATE,
        betas=(0.9, 0.98),
    )
    steps = epochs * (len(x) // BATCH)
    warmup = steps // 20
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: s / warmup if s < warmup else 0.5 * (1 + math.cos(math.pi * (s - warmup) / (steps - warmup))),
    )
    for epoch in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(x), generator=rng)[: len(x) // BATCH * BATCH].split(BATCH):
            labels = y[batch]
            which = labels * len(TEMPLATES) + torch.randint(len(TEMPLATES), (BATCH,), generator=rng)
            loss = contrastive_loss(
                model.encode_image(augment(x[batch], rng)),
                model.encode_text(captions)[which],
                model.logit_scale.exp(),
                labels,
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(100))
            total += loss.item()
        if (epoch + 1) % 20 == 0:
            accuracy, confidence, nll = zero_shot(model, tokenizer, test_x, test_y)
            print(
                f"epoch {epoch + 1:3d}  loss {total / (len(x) // BATCH):.4f}  held-out top-1 {accuracy:.4f}  "
                f"confidence {confidence:.4f}  NLL {nll:.4f}  logit scale {model.logit_scale.exp().item():.2f}",
                flush=True,
            )
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=tiny_digits.FOLDER, help="folder to write")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(2)
    model = train(args.epochs, args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    weights = args.out / tiny_digits.WEIGHTS.name
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, weights)
    (args.out / tiny_digits.SHA256.name).write_text(hashlib.sha256(weights.read_bytes()).hexdigest() + "\n")
    if args.out != tiny_digits.FOLDER:
        config = (tiny_digits.FOLDER / "open_clip_config.json").read_text()
        (args.out / "open_clip_config.json").write_text(config)
    print(f"wrote {weights} ({weights.stat().st_size / 1e6:.2f} MB)")


if __name__ == "__main__":
    main()
