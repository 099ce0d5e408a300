"""Print the coverage table of docs/quantizers.md as Markdown: full-size architectures with random weights.

    python benchmarks/studies/coverage.py

Each cell is the share of the towers' matmul and convolution weights / of their FLOPs that is quantized.
"""

from __future__ import annotations

import argparse

import numpy as np
import open_clip
import torch

from pytest_qreliab.config.formats import Format
from pytest_qreliab.data.images import from_arrays
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.calibration import Calibration
from pytest_qreliab.quantizers.inspection import coverage
from pytest_qreliab.quantizers.request import Request

ARCHITECTURES = "ViT-B-32,RN50,convnext_base,ViT-B-16-SigLIP,coca_ViT-B-32"
QUANTIZERS = "minmax/w4a8,torchao/w8a8,bitsandbytes/w8a8,onnxruntime/w8a8,onnxruntime/w4"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", default=ARCHITECTURES)
    parser.add_argument("--quantizers", default=QUANTIZERS)
    args = parser.parse_args()
    chosen = [text.split("/") for text in args.quantizers.split(",")]
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    calibration = Calibration(
        images=from_arrays("noise", noise), held_out=None, classes=["cat", "dog"], templates=["a photo of a {}."]
    )
    print(f"| architecture | {' | '.join(f'`{name}` {bits}' for name, bits in chosen)} |\n|---{'|---' * len(chosen)}|")
    for architecture in args.architectures.split(","):
        clip = load(architecture)
        cells = []
        for name, text in chosen:
            bits = Format.parse(text)
            assert isinstance(bits, Format)
            recipe = Catalog().recipe(name)
            try:
                quantized = recipe.apply()(
                    clip, Request(bits=bits, scope="both", parameters=recipe.parameters, calibration=calibration)
                )
            except InputError as refused:
                cells.append(f"refused: {refused}")
                continue
            found = coverage.measure(clip, quantized, bits, "both")
            cells.append(f"{found.weights:.1%} / {found.flops:.1%}")
        print(f"| {architecture} | {' | '.join(cells)} |", flush=True)


def load(architecture: str) -> Clip:
    """Return an architecture with random weights; texts become zeros if its tokenizer would have to be downloaded."""
    torch.manual_seed(0)
    module, _, preprocess = open_clip.create_model_and_transforms(architecture, pretrained_hf=False)
    config = open_clip.get_model_config(architecture)["text_cfg"]
    if "hf_tokenizer_name" in config:
        length = config["context_length"]
        tokenizer = lambda texts: torch.zeros(len(texts), length, dtype=torch.int64)  # noqa: E731
    else:
        tokenizer = open_clip.get_tokenizer(architecture)
    return Clip(architecture, module.eval().requires_grad_(False), preprocess, tokenizer)


if __name__ == "__main__":
    main()
