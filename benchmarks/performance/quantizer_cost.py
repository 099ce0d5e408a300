"""Time each post-training quantizer on a full-size model, and take its peak memory, in a process of its own.

    python benchmarks/performance/quantizer_cost.py  # ViT-B/32, random weights, some 4 minutes
    python benchmarks/performance/quantizer_cost.py --model RN50 --quantizers minmax,gptq

Both towers go to w4a8, with 32 calibration images of noise and 32 prompts (`--images` sets another number of both).
Building the model and imports are not counted. Time is also given as a multiple of encoding those images and prompts
once. Memory is what comes on top of the loaded model.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

METHODS = "minmax:weights,minmax,percentile,mse,smoothquant,smoothquant:search,outlier-suppression,quarot,gptq,awq"


def measure(model: str, name: str, images: int) -> dict[str, float]:
    """Seconds and bytes of one quantizer, which `:search` or `:weights` may follow; of bare encoding for `forward`."""
    import numpy as np
    import open_clip
    import torch

    from pytest_qreliab.config.formats import Format
    from pytest_qreliab.data.images import from_arrays
    from pytest_qreliab.evaluation.planning.catalog import Catalog
    from pytest_qreliab.models.clip import Clip
    from pytest_qreliab.quantizers.calibration import Calibration
    from pytest_qreliab.quantizers.request import Request

    torch.manual_seed(0)
    module, _, preprocess = open_clip.create_model_and_transforms(model)
    clip = Clip(model, module.eval().requires_grad_(False), preprocess, open_clip.get_tokenizer(model))
    noise = np.random.default_rng(0).integers(0, 256, (images, 64, 64, 3), dtype=np.uint8)
    calibration = Calibration(
        images=from_arrays("noise", noise),
        held_out=None,
        classes=[f"thing {i}" for i in range(images)],
        templates=["a photo of a {}."],
    )

    def forward() -> None:
        for batch in calibration.batches(clip, images):
            clip.encode_image(batch)
        for prompts in calibration.prompt_batches():
            clip.encode_text(prompts)

    plain, _, option = name.partition(":")
    if name != "forward":
        recipe = Catalog().recipe(plain)
        parameters = recipe.parameters.model_copy(update={"alpha": "search"} if option == "search" else {})
        bits = Format.integers(4) if option == "weights" else Format.integers(4, 8)
        apply, request = (
            recipe.apply(),
            Request(bits=bits, scope="both", parameters=parameters, calibration=calibration),
        )
    forward()  # warm up: threads, caches
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    if name == "forward":
        forward()
    else:
        apply(clip, request)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "bytes": 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32", help="an open_clip architecture")
    parser.add_argument("--quantizers", default=METHODS)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.model, args.one, args.images)))
        return

    def run(name: str) -> dict[str, float]:
        command = [sys.executable, __file__, "--model", args.model, "--images", str(args.images), "--one", name]
        found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return found

    forward = run("forward")["seconds"]
    print(f"encoding {args.images} images and {args.images} prompts: {forward:.1f} s\n")
    print("| quantizer | seconds | times encoding | peak memory added |\n|---|---|---|---|")
    for name in args.quantizers.split(","):
        found = run(name)
        seconds, added = found["seconds"], found["bytes"] / 2**30
        print(f"| `{name}` | {seconds:.1f} | {seconds / forward:.1f} | {added:.2f} GiB |", flush=True)


if __name__ == "__main__":
    main()
