"""Time a whole gate, compared with what no gate can do without: bare forward passes, decoding and imports.

    python benchmarks/performance/gate_cost.py [--sizes 500,1000,2000] [--model ViT-B-32] [--bits 4,8] [--work FOLDER]

The model is a random ViT-B-32. There are 10 classes of synthetic JPEGs of 500x375 pixels, `minmax` at two widths, and
the default thresholds. For every size, the table has the seconds of

- cold: `pytest` as a whole process in an empty folder, with imports, loading, quantizing and metrics;
- bare: as many random images and the prompts through the same three models (full precision and quantized), already
  built, in batches of 64, in inference mode, with the same threads;
- decode: reading and preprocessing the images once, on all cores;
- warm: the same command in the same folder again; and import: `python -c "import torch, open_clip"`.

A third run in the folder counts the calls of any module's forward with a hook of torch's, in a plugin that this script
writes. Only the cold run has the 128 calibration images and the one that measures the coverage. The images and the
checkpoint in the folder that --work names are used again.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import speed

BATCH, CALIBRATION = 64, 128
CLASSES = speed.CLASSES[:10]
HEAD = [
    *("images", "cold s", "bare s", "decode s", "cold / bare", "warm s", "import s", "warm - import s"),
    *("forward calls, warm", "peak memory, cold"),
]

COUNT_FORWARD = """\
from pathlib import Path
from typing import Any

import torch

calls = 0


def count(module, inputs, outputs):
    global calls
    calls += 1


torch.nn.modules.module.register_module_forward_hook(count)
torch.nn.Identity()(torch.zeros(1))
assert calls == 1, "the hook does not count"
calls = 0


def pytest_sessionfinish():
    Path("forward_calls").write_text(str(calls))
"""


def bare(architecture: str, weights: Path, bits: list[str], size: int) -> float:
    """Return the seconds of the forward passes through the full-precision and the quantized models, built before."""
    import numpy as np
    import torch

    from pytest_qreliab.config.formats import Format
    from pytest_qreliab.data.images import from_arrays
    from pytest_qreliab.evaluation.planning.catalog import Catalog
    from pytest_qreliab.models import loading
    from pytest_qreliab.quantizers.calibration import Calibration
    from pytest_qreliab.quantizers.request import Request

    torch.set_num_threads(speed.CORES)
    full = loading.load_model(speed.model_name(architecture, weights))
    noise = np.random.default_rng(0).integers(0, 256, (CALIBRATION, 64, 64, 3), dtype=np.uint8)
    calibration = Calibration(
        images=from_arrays("noise", noise), held_out=None, classes=CLASSES, templates=speed.TEMPLATES
    )
    recipe = Catalog().recipe("minmax")
    clips = [full]
    for text in bits:
        request = Request(
            bits=recipe.bits(Format.parse(text), "both"),
            scope="both",
            parameters=recipe.parameters,
            calibration=calibration,
        )
        clips.append(recipe.apply()(full, request))
    visual: Any = full.module.visual
    side = visual.image_size
    batch = torch.randn(BATCH, 3, *(side if isinstance(side, tuple) else (side, side)))
    prompts = [template.format(name) for name in CLASSES for template in speed.TEMPLATES]
    with torch.inference_mode():
        for clip in clips:
            clip.encode_image(batch[:8])  # warm up: threads, caches
        started = time.perf_counter()
        for clip in clips:
            for start in range(0, len(prompts), BATCH):
                clip.encode_text(prompts[start : start + BATCH])
            for start in range(0, size, BATCH):
                clip.encode_image(batch[: size - start])
        return time.perf_counter() - started


def decode(architecture: str, weights: Path, folder: Path) -> float:
    """Return the seconds to read and preprocess all images of a folder."""
    from PIL import Image

    from pytest_qreliab.models import loading

    preprocess = loading.load_model(speed.model_name(architecture, weights)).preprocess
    paths = sorted(folder.rglob("*.jpg"))
    with ThreadPoolExecutor(speed.CORES) as pool:
        started = time.perf_counter()
        for start in range(0, len(paths), BATCH):
            list(pool.map(lambda path: preprocess(Image.open(path)).shape, paths[start : start + BATCH]))
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="500,1000,2000", help="numbers of images")
    parser.add_argument("--model", default="ViT-B-32", help="an open_clip architecture")
    parser.add_argument("--bits", default="4,8")
    parser.add_argument("--runs", type=int, default=1, help="of each; the median counts")
    parser.add_argument("--work", type=Path, help="a folder for images and checkpoints, to be used again")
    args = parser.parse_args()
    sizes = [int(size) for size in args.sizes.split(",")]
    with speed.workspace(args.work) as work:
        weights = speed.checkpoint(work, args.model)
        speed.photos(work / "calibration", CALIBRATION, ["all"], seed=1)
        for size in sizes:
            speed.photos(work / f"images-{size}", size, CLASSES)
        prompts = len(CLASSES) * len(speed.TEMPLATES)
        print(f"{args.model}, random weights, minmax at {args.bits}, {prompts} prompts, {speed.CORES} threads\n")
        print(speed.table(HEAD, []), flush=True)
        for size in sizes:
            print(speed.line(row(args, work, weights, size)), flush=True)


def row(args: argparse.Namespace, work: Path, weights: Path, size: int) -> list[object]:
    """Return the figures of one size."""
    images = work / f"images-{size}"
    benchmark = speed.write_yaml(
        work / f"photos-{size}.yaml",
        classes=CLASSES,
        templates=speed.TEMPLATES,
        in_distribution={"source": "image-folder", "path": str(images)},
        calibration={"source": "flat-folder", "path": str(work / "calibration" / "all")},
    )
    options = [
        f"--qreliab-models={speed.model_name(args.model, weights)}",
        f"--qreliab-bits={args.bits}",
        f"--qreliab-benchmarks={benchmark}",
    ]
    times: dict[str, list[float]] = {name: [] for name in ("cold", "bare", "decode", "ratio", "warm", "import")}
    for _ in range(args.runs):
        folder = speed.fresh(work / "run")
        cold, warm = speed.pytest(folder, *options), speed.pytest(folder, *options)
        times["cold"].append(cold.seconds)
        times["warm"].append(warm.seconds)
        times["import"].append(speed.python("import torch, open_clip", folder).seconds)
        times["decode"].append(speed.apart(decode, args.model, weights, images))
        times["bare"].append(speed.apart(bare, args.model, weights, args.bits.split(","), size))
        times["ratio"].append(times["cold"][-1] / times["bare"][-1])
    (folder / "count_forward.py").write_text(COUNT_FORWARD)
    speed.pytest(folder, "-p", "count_forward", *options)
    calls = int((folder / "forward_calls").read_text())
    of = {name: statistics.median(taken) for name, taken in times.items()}
    figures = [of["cold"], of["bare"], of["decode"], of["ratio"], of["warm"], of["import"], of["warm"] - of["import"]]
    return [size, *(f"{figure:.2f}" for figure in figures), calls, cold.gib]


if __name__ == "__main__":
    main()
