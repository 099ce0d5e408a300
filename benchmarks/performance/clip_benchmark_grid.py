"""Compare our gate with LAION's `clip-benchmark` 1.6.2: one model on one set, and a grid of models and image sets.

    python3 -m venv cb && cb/bin/pip install clip-benchmark==1.6.2 requests "numpy<2.4"
    python benchmarks/performance/clip_benchmark_grid.py --python cb/bin/python [--images 200] [--work DIR]

The models are one open_clip architecture with random weights, in full precision and with the weights of both towers
at w8 to w3 (`minmax`). clip-benchmark reads the quantized ones as checkpoints. There are 100 classes in 18 templates,
as many as for CIFAR-100. The sets are synthetic JPEGs of 500x375 pixels: one in distribution, 3 OOD, and the first
under 15 corruptions of severity 3, made beforehand. Both tools encode the same files in float32 (`--no_amp`), in
batches of 64, with the same threads. All timings are of whole processes.

One model on one set: clip-benchmark runs on the class folders with each number of workers (`--dataset
imagenet_sketch`, which reads any folders, with our names and templates). Ours runs through the Python API, in full
precision alone, and computes what is gated by default. Then a seventh of the whole gate, which makes six quantized
models and encodes with seven, is compared with a seventh of one clip-benchmark command for the same seven checkpoints.

The grid: one `pytest` command is compared with clip-benchmark on tar shards (`wds/...`) of the same files. That is one
command with the default workers, one with the fastest number, and two commands per model, of which the first saves the
class embeddings for the second. clip-benchmark has no OOD scores: it classifies OOD images as any others, with their
folders as labels.

At the end, top-1 of both is compared, in samples, on every labelled set and model.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import statistics
import sys
import tarfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import speed

# As many as CIFAR-100 has, in the order of the alphabet, which is that of the folders.
CLASSES = sorted(f"{kind} {name}" for kind in ("big", "old", "red", "small", "wet") for name in speed.CLASSES)
ID, OOD, SEVERITY = "id", ["ood-1", "ood-2", "ood-3"], 3
DEFAULT_WORKERS = 4  # clip-benchmark's
SHARDS = 4  # as many as clip-benchmark has workers by default: one without a shard would be idle
BATCH = 64
FOLDERS = "imagenet_sketch"  # clip-benchmark's name for whatever class folders --dataset_root has
ALONE = """
import sys
from pytest_qreliab.config.settings import resolve
from pytest_qreliab.evaluation.evaluator import Evaluator
from pytest_qreliab.evaluation.measurement import measure
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.evaluation.planning.make_plan import make_plan
given = dict(zip(("models", "benchmarks"), sys.argv[1:]), bits="w8", device="cpu")
plan = make_plan(resolve(lambda name: given.get(name.removeprefix("qreliab_")), lambda name: None), Catalog())
(data,) = plan.data.values()
evaluator, needs = Evaluator(plan), plan.needs(plan.cases[0].benchmark)
found = evaluator.embedder.embed(evaluator.model_cache.get(given["models"]), data, lambda done: None, needs)
print(measure.values(measure.measure(found, data.classes))["accuracy"])
"""


def make_sets(work: Path, images: int) -> list[str]:
    """Write all sets as class folders below `sets` and as tar shards below `shards`; return their names."""
    from pytest_qreliab.config.benchmark import STANDARD

    sets = work / f"sets-{images}"
    for seed, name in enumerate([ID, *OOD]):
        speed.photos(sets / name, images, CLASSES, seed=seed)
    missing = [kind for kind in STANDARD if not (sets / f"{kind}.made").is_file()]
    with ProcessPoolExecutor(speed.CORES, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(partial(corrupt, sets), missing))
    names = [ID, *OOD, *STANDARD]
    for name in names:
        pack(sets / name, work / f"shards-{images}" / name)
    return names


def corrupt(sets: Path, kind: str) -> None:
    """Write the in-distribution set under one corruption."""
    import numpy as np
    from PIL import Image

    from pytest_qreliab.data import corruptions

    for path in sorted((sets / ID).rglob("*.jpg")):
        place = sets / kind / path.relative_to(sets / ID)
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = corruptions.corrupt(np.asarray(Image.open(path)), kind, SEVERITY)
        Image.fromarray(pixels).save(place, quality=90)
    (sets / f"{kind}.made").touch()


def pack(source: Path, target: Path) -> None:
    """Pack the images of class folders into shards, in the layout of clip-benchmark's `wds/` data sets."""
    if (target / "test" / "nshards.txt").is_file():
        return
    (target / "test").mkdir(parents=True, exist_ok=True)
    paths = sorted(source.rglob("*.jpg"))
    for shard in range(SHARDS):
        with tarfile.open(target / "test" / f"{shard}.tar", "w") as tar:
            for index, path in enumerate(paths[shard::SHARDS]):
                label = str(CLASSES.index(path.parent.name)).encode()
                for suffix, content in (("jpg", path.read_bytes()), ("cls", label)):
                    member = tarfile.TarInfo(f"{index:06}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    (target / "test" / "nshards.txt").write_text(str(SHARDS))


def make_checkpoints(work: Path, architecture: str, widths: Sequence[str]) -> list[Path]:
    """Write checkpoints of the model in full precision and quantized at each width, as open_clip reads them."""
    full = speed.checkpoint(work, architecture)
    paths = [work / f"{architecture}-{width}.safetensors" for width in widths]
    if not all(path.is_file() for path in paths):
        speed.apart(quantize, architecture, full, dict(zip(widths, paths, strict=True)))
    return [full, *paths]


def quantize(architecture: str, full: Path, paths: dict[str, Path]) -> None:
    from safetensors.torch import save_file

    from pytest_qreliab.config.formats import Format
    from pytest_qreliab.evaluation.planning.catalog import Catalog
    from pytest_qreliab.models import loading
    from pytest_qreliab.quantizers.calibration import Calibration
    from pytest_qreliab.quantizers.request import Request

    clip = loading.load_model(speed.model_name(architecture, full))
    recipe = Catalog().recipe("minmax")
    for width, path in paths.items():
        bits = Format.integers(int(width.removeprefix("w")))
        made = recipe.apply()(
            clip,
            Request(
                bits=bits,
                scope="both",
                parameters=recipe.parameters,
                calibration=Calibration(images=None, held_out=None, classes=[], templates=[]),
            ),
        )
        packed = {name: repacked(made.module.state_dict(), name) for name in clip.module.state_dict()}
        save_file(packed, path)


def repacked(state: dict[str, Any], name: str) -> Any:
    """Return a tensor in open_clip's own name and layout, out of the Linears that quantizers make of packed weights."""
    import torch

    head, _, last = name.rpartition("in_proj_")
    if name in state:
        found = state[name]
    elif head and last in ("weight", "bias"):
        found = torch.cat([state[f"{head}{part}_proj.{last}"] for part in "qkv"])
    else:
        found = state[f"{name}.weight"].T  # a projection
    return found.contiguous().clone()


class ClipBenchmark:
    def __init__(self, args: argparse.Namespace, work: Path, run: Path, templates: Sequence[str]) -> None:
        self._args, self.run = args, run
        self._folders, self._shards = work / f"sets-{args.images}" / ID, work / f"shards-{args.images}"
        texts = {"classes": CLASSES, "templates": [template.replace("{}", "{c}") for template in templates]}
        for name, content in texts.items():
            (run / f"{name}.json").write_text(json.dumps({FOLDERS: content}))
        for target in self._shards.iterdir():
            (target / "classnames.txt").write_text("\n".join(texts["classes"]))
            (target / "zeroshot_classification_templates.txt").write_text("\n".join(texts["templates"]))

    def __call__(self, checkpoints: Sequence[Path], sets: Sequence[str], *options: str, workers: int) -> speed.Finished:
        """Run one command on the shards of some sets, or on the class folders of the first if none is named."""
        if sets:
            of, root = [f"wds/{name}" for name in sets], str(self._shards / "{dataset}")
        else:
            of, root = [FOLDERS], str(self._folders)
            options = ("--custom_classname_file", "classes.json", "--custom_template_file", "templates.json", *options)
        # Not resolved: the interpreter of an environment is a link.
        command = [str(Path.cwd() / self._args.python), "-m", "clip_benchmark.cli", "eval"]
        command += [
            "--dataset",
            *of,
            "--dataset_root",
            root,
            "--task",
            "zeroshot_classification",
            "--no_amp",
            "--quiet",
        ]
        command += ["--model", self._args.model, "--pretrained", *map(str, checkpoints)]
        command += ["--batch_size", str(BATCH), "--num_workers", str(workers), *options]
        return speed.run([*command, "--output", "{dataset} {pretrained}.json"], self.run, threads=self._args.threads)

    def top1(self, checkpoint: Path, name: str) -> float:
        path = self.run / f"{name} {checkpoint.name}.json"
        return float(json.loads(path.read_text())["metrics"]["acc1"])


def write_benchmarks(work: Path, images: int, templates: Sequence[str]) -> tuple[Path, Path]:
    """Write our YAML of the one set, and of the grid."""
    sets = work / f"sets-{images}"

    def folder(name: str) -> dict[str, object]:
        return {"source": "image-folder", "path": str(sets / name)}

    common = {"classes": CLASSES, "templates": list(templates), "in_distribution": folder(ID)}
    one = speed.write_yaml(work / f"one-set-{images}.yaml", **common)
    grid = speed.write_yaml(
        work / f"grid-{images}.yaml",
        **common,
        corruptions={"severities": [SEVERITY], "source": folder("{kind}")},
        ood={"near": {OOD[0]: folder(OOD[0])}, "far": {name: folder(name) for name in OOD[1:]}},
    )
    return one, grid


def gate(args: argparse.Namespace, folder: Path, full: Path, benchmark: Path) -> speed.Finished:
    return speed.pytest(
        folder,
        f"--qreliab-models={speed.model_name(args.model, full)}",
        f"--qreliab-bits={args.bits}",
        f"--qreliab-benchmarks={benchmark}",
        threads=args.threads,
    )


def one_model(args: argparse.Namespace, laion: ClipBenchmark, checkpoints: list[Path], benchmark: Path) -> int:
    """Print the first table and return the number of workers that clip-benchmark is fastest with."""
    full, run = checkpoints[0], laion.run
    name = speed.model_name(args.model, full)
    workers = [int(number) for number in args.workers.split(",")]
    times: dict[str, list[float]] = {}
    for _ in range(args.runs):
        for number in workers:
            took = laion([full], [], workers=number)
            times.setdefault(f"clip-benchmark, {number} workers", []).append(took.seconds)
        alone = speed.run([sys.executable, "-c", ALONE, name, str(benchmark)], run, threads=args.threads)
        times.setdefault("ours, full precision alone", []).append(alone.seconds)
        if abs(float(alone.output.split()[-1]) - laion.top1(full, FOLDERS)) > 1e-9:
            print(f"top-1 of full precision differs: {alone.output.split()[-1]}, {laion.top1(full, FOLDERS)}")
    of = {what: statistics.median(taken) for what, taken in times.items()}
    best = min(workers, key=lambda number: of[f"clip-benchmark, {number} workers"])
    of[f"ours, the gate of {len(checkpoints)} models, of each"] = statistics.median(
        gate(args, speed.fresh(run / "gate"), full, benchmark).seconds / len(checkpoints) for _ in range(args.runs)
    )
    of[f"clip-benchmark, {best} workers, {len(checkpoints)} checkpoints, of each"] = statistics.median(
        laion(checkpoints, [], workers=best).seconds / len(checkpoints) for _ in range(args.runs)
    )
    ours = of["ours, full precision alone"]
    print(f"One model on one set of {args.images} images, {len(CLASSES) * args.templates} prompts\n")
    rows = [[what, f"{taken:.2f}", f"{taken / ours:.2f}"] for what, taken in of.items()]
    print(speed.table(["", "s", "of ours, alone"], rows), flush=True)
    return best


def grid(
    args: argparse.Namespace, laion: ClipBenchmark, checkpoints: list[Path], sets: list[str], benchmark: Path, best: int
) -> None:
    ways, default = args.ways.split(","), DEFAULT_WORKERS
    folder = speed.fresh(laion.run / "grid", values=True)
    took = {"ours, cold": gate(args, folder, checkpoints[0], benchmark)}
    took["ours, warm"] = gate(args, folder, checkpoints[0], benchmark)
    times = {what: (finished.seconds, finished.gib) for what, finished in took.items()}
    if "default" in ways:
        done = laion(checkpoints, sets, workers=default)
        times[f"clip-benchmark, one command, {default} workers"] = done.seconds, done.gib
    if "best" in ways and not ("default" in ways and best == default):
        done = laion(checkpoints, sets, workers=best)
        times[f"clip-benchmark, one command, {best} workers"] = done.seconds, done.gib
    if "classifiers" in ways:
        both = [
            done
            for path in checkpoints
            for done in (
                laion([path], sets[:1], "--save_clf", "classes.pt", workers=best),
                laion([path], sets[1:], "--load_clfs", "classes.pt", workers=best),
            )
        ]
        largest = max(both, key=lambda done: done.peak)
        what = f"clip-benchmark, saved class embeddings, {best} workers"
        times[what] = sum(done.seconds for done in both), largest.gib
    ours = took["ours, cold"].seconds
    print(f"\nThe grid: {len(checkpoints)} models on {len(sets)} sets of {args.images} images\n")
    rows = [[what, f"{seconds:.1f}", f"{seconds / ours:.2f}", gib] for what, (seconds, gib) in times.items()]
    print(speed.table(["", "s", "of ours, cold", "peak memory of the largest process"], rows), flush=True)
    if len(times) > 2:
        print(f"\n{same_top1(args.images, laion, checkpoints, sets, folder)}")


def same_top1(images: int, laion: ClipBenchmark, checkpoints: list[Path], sets: list[str], folder: Path) -> str:
    """Say how many samples the numbers of right predictions are apart, over all models and labelled sets."""
    apart: list[str] = []
    compared, numbers = 0, set()
    found = speed.values(folder)
    for index, path in enumerate(checkpoints):
        # In full precision the same in all cases.
        metrics = next(of for case, of in found.items() if not index or f" {path.stem.rpartition('-')[2]} " in case)
        for name in sets:
            if name in OOD:
                continue
            metric = "accuracy" if name == ID else f"corruption.accuracy.{name}"
            ours = round(metrics[metric][index > 0] * images)
            other = round(laion.top1(path, name) * images)
            compared += 1
            numbers.add(ours)
            if ours != other:
                apart.append(f"{path.stem} on {name}: {ours} and {other} of {images}")
    head = f"top-1 on {compared} pairs of model and set ({min(numbers)} to {max(numbers)} of {images} right): "
    return head + ("the same to the sample" if not apart else "; ".join(apart))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True, help="the interpreter that has clip-benchmark")
    parser.add_argument("--model", default="ViT-S-32-alt", help="an open_clip architecture")
    parser.add_argument("--images", type=int, default=200, help="in every set")
    parser.add_argument("--bits", default="w8,w7,w6,w5,w4,w3", help="widths of weights")
    parser.add_argument("--templates", type=int, default=len(speed.TEMPLATES), help="how many of the 18")
    parser.add_argument("--threads", type=int, default=speed.CORES, help="of torch")
    parser.add_argument("--workers", default="0,1,2,4", help="clip-benchmark's; its default is 4")
    parser.add_argument("--runs", type=int, default=3, help="of one model on one set; the median counts")
    parser.add_argument("--ways", default="default,best,classifiers", help="how clip-benchmark runs the grid")
    parser.add_argument("--parts", default="one,grid")
    parser.add_argument("--work", type=Path, help="a folder for images and checkpoints, to be used again")
    args = parser.parse_args()
    templates = speed.TEMPLATES[: args.templates]
    with speed.workspace(args.work) as work:
        sets = speed.apart(make_sets, work, args.images)
        checkpoints = make_checkpoints(work, args.model, args.bits.split(","))
        one, whole = write_benchmarks(work, args.images, templates)
        laion = ClipBenchmark(args, work, speed.fresh(work / "run"), templates)
        print(f"{args.model}, {args.threads} threads\n")
        best = DEFAULT_WORKERS
        if "one" in args.parts:
            best = one_model(args, laion, checkpoints, one)
        if "grid" in args.parts:
            grid(args, laion, checkpoints, sets, whole, best)


if __name__ == "__main__":
    main()
