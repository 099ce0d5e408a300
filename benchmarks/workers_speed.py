"""Two workers of pytest-xdist beside one process, on a grid of equal cases, and whether their results are the same.

    python benchmarks/workers_speed.py [--model ViT-B-32] [--images 200] [--runs 1] [--work FOLDER]

A random ViT-B-32, `minmax` at eight widths, synthetic JPEGs. Three are run in turn, each a whole process in an empty
folder: one process with all threads; as many workers as there are cores, one thread each; one process with one thread.
A test in the folder writes every metric of every case; runs are compared bit by bit. Sums of floats depend on the
number of threads: the same bits are to be expected where that is the same.
"""

from __future__ import annotations

import argparse
import math
import statistics
from pathlib import Path

import speed

BITS = "w3a8,w4a8,w5a8,w6a8,w7a8,w8a8,w4,w8"
CALIBRATION = 128
CLASSES = speed.CLASSES[:10]
Values = dict[str, dict[str, tuple[float, float]]]


def compared(one: Values, other: Values) -> str:
    """How many values are the same, bit by bit, and the largest difference."""
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
    first, workers, single = ways
    rows = []
    for name, taken in times.items():
        ratio = statistics.median(a / b for a, b in zip(taken, times[first], strict=True))
        rows.append([name, f"{statistics.median(taken):.1f}", f"{ratio:.2f}", peaks[name]])
    print(f"{args.model}, {args.images} images, {len(args.bits.split(','))} cases\n")
    print(speed.table(["", "s", f"of {first}", "peak memory of the largest process"], rows))
    print(f"\n{workers} and {single}: {compared(results[workers], results[single])}")
    print(f"{workers} and {first}: {compared(results[workers], results[first])}")


if __name__ == "__main__":
    main()
