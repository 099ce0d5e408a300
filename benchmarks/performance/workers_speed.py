"""Compare two workers of pytest-xdist with one process, on a grid of equal cases: their speed and their results.

    python benchmarks/performance/workers_speed.py [--model ViT-B-32] [--images 200] [--runs 1] [--work FOLDER]

The model is a random ViT-B-32, with `minmax` at eight widths, on synthetic JPEGs. Three runs take turns, each a whole
process in an empty folder: one process with all threads; as many workers as there are cores, with one thread each; one
process with one thread. A test in the folder writes every metric of every case, and runs are compared bit by bit. Sums
of floats depend on the number of threads, so only runs with the same number are expected to have the same bits.

The machine limits how much faster several processes can be, because its "cores" may share one. The ceiling is measured
with bare forward passes: as many processes at once as there are cores, with one thread each, compared with one process
that does the work of all.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import speed

BITS = "w3a8,w4a8,w5a8,w6a8,w7a8,w8a8,w4,w8"
CALIBRATION = 128
CLASSES = speed.CLASSES[:10]
Values = dict[str, dict[str, tuple[float, float]]]


def compared(one: Values, other: Values) -> str:
    """Say how many values are the same, bit by bit, and how large the largest difference is."""
    if one.keys() != other.keys() or any(one[case].keys() != other[case].keys() for case in one):
        return "not the same cases or metrics"
    pairs = [
        (a, b)
        for case, metrics in one.items()
        for name, both in metrics.items()
        for a, b in zip(both, other[case][name], strict=True)
    ]
    differing = [(a, b) for a, b in pairs if a != b and not (math.isnan(a) and math.isnan(b))]
    if not differing:
        return f"all {len(pairs)} values of {len(one)} cases are the same, bit by bit"
    largest = max(abs(a - b) for a, b in differing)
    return f"{len(differing)} of {len(pairs)} values of {len(one)} cases differ, by {largest:.2g} at most"


BARE = """
import sys
import torch
from pytest_qreliab import load_model
clip = load_model(sys.argv[1])
images = torch.randn(64, 3, *[clip.module.visual.image_size[0]] * 2)
for _ in range(int(sys.argv[2])):
    clip.encode_image(images)
"""


def ceiling(model: str, folder: Path) -> float:
    """Return how many times as fast as one process, of one thread, a process per core does the forward passes."""

    def seconds(processes: int, batches: int) -> float:
        command = [sys.executable, "-c", BARE, model, str(batches)]
        with ThreadPoolExecutor(processes) as pool:
            started = time.perf_counter()
            list(pool.map(lambda _: speed.run(command, folder, threads=1), range(processes)))
            return time.perf_counter() - started

    n, few, many = speed.CORES, 2, 10  # the difference leaves out imports and loading
    alone = seconds(1, n * many) - seconds(1, n * few)
    return alone / (seconds(n, many) - seconds(n, few))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32", help="an open_clip architecture")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--bits", default=BITS)
    parser.add_argument("--runs", type=int, default=1, help="of each; the median counts")
    parser.add_argument("--work", type=Path, help="a folder for images and checkpoints, to be used again")
    args = parser.parse_args()
    n = speed.CORES
    ways = {
        f"one process, {n} threads": ([], n),
        f"{n} workers, 1 thread each": (["-n", str(n)], 1),
        "one process, 1 thread": ([], 1),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    peaks: dict[str, str] = {}
    results: dict[str, Values] = {}
    with speed.workspace(args.work) as work:
        weights = speed.checkpoint(work, args.model)
        speed.photos(work / f"images-{args.images}", args.images, CLASSES)
        speed.photos(work / "calibration", CALIBRATION, ["all"], seed=1)
        benchmark = speed.write_yaml(
            work / f"photos-{args.images}.yaml",
            classes=CLASSES,
            in_distribution={"source": "image-folder", "path": str(work / f"images-{args.images}")},
            calibration={"source": "flat-folder", "path": str(work / "calibration" / "all")},
        )
        options = [
            f"--qreliab-models={speed.model_name(args.model, weights)}",
            f"--qreliab-bits={args.bits}",
            f"--qreliab-benchmarks={benchmark}",
        ]
        for _ in range(args.runs):
            for name, (spread, threads) in ways.items():
                folder = speed.fresh(work / "run", values=True)
                took = speed.pytest(folder, *spread, *options, threads=threads)
                times[name].append(took.seconds)
                peaks[name], results[name] = took.gib, speed.values(folder)
        most = ceiling(speed.model_name(args.model, weights), speed.fresh(work / "run"))
    first, workers, single = ways
    rows = []
    for name, taken in times.items():
        ratio = statistics.median(a / b for a, b in zip(taken, times[first], strict=True))
        rows.append([name, f"{statistics.median(taken):.1f}", f"{ratio:.2f}", peaks[name]])
    print(f"{args.model}, {args.images} images, {len(args.bits.split(','))} cases\n")
    print(speed.table(["", "s", f"of {first}", "peak memory of the largest process"], rows))
    faster = statistics.median(a / b for a, b in zip(times[single], times[workers], strict=True))
    print(f"\n{workers} are {faster:.2f} times as fast as {single}; this machine's ceiling is {most:.2f}")
    print(f"{workers} and {single}: {compared(results[workers], results[single])}")
    print(f"{workers} and {first}: {compared(results[workers], results[first])}")


if __name__ == "__main__":
    main()
