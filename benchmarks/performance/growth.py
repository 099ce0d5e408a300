"""Show how the time and the peak memory of a whole gate grow with the images and with the cases.

    python benchmarks/performance/growth.py [--images 1000,2000,4000] [--cases 1,2,4,8] [--runs 3] [--work FOLDER]

The model is tiny-digits, on synthetic JPEGs of 32x32 pixels in class folders, with `minmax` at one width per case and
the default thresholds. Each run is a whole process in an empty folder. Below the table are slopes: between neighbouring
numbers of images at the most cases, and between neighbouring numbers of cases at the most images. They are alike if
growth is linear.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from pathlib import Path

import speed

CLASSES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
BITS = ["w8a8", "w7a8", "w6a8", "w5a8", "w4a8", "w3a8", "w8a7", "w8a6"]
CALIBRATION = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="1000,2000,4000")
    parser.add_argument("--cases", default="1,2,4,8", help=f"numbers of cases, {len(BITS)} at most")
    parser.add_argument("--runs", type=int, default=3, help="of each; the median counts")
    parser.add_argument("--work", type=Path, help="a folder for images, to be used again")
    args = parser.parse_args()
    images, cases = ([int(n) for n in text.split(",")] for text in (args.images, args.cases))
    if max(cases) > len(BITS):
        parser.error(f"--cases: {len(BITS)} at most")
    found: dict[tuple[int, int], list[speed.Finished]] = {}
    with speed.workspace(args.work) as work:
        speed.photos(work / "images", max(images), CLASSES, size=(32, 32))
        speed.photos(work / "calibration", CALIBRATION, ["all"], seed=1, size=(32, 32))
        for _, n, k in itertools.product(range(args.runs), images, cases):
            benchmark = speed.write_yaml(
                work / f"first-{n}.yaml",
                classes=CLASSES,
                in_distribution={"source": "image-folder", "path": str(work / "images"), "limit": n},
                calibration={"source": "flat-folder", "path": str(work / "calibration" / "all")},
            )
            options = [f"--qreliab-bits={','.join(BITS[:k])}", f"--qreliab-benchmarks={benchmark}"]
            found.setdefault((n, k), []).append(speed.pytest(speed.fresh(work / "run"), *options))
    seconds = {key: statistics.median(of.seconds for of in runs) for key, runs in found.items()}
    mebibytes = {key: statistics.median(of.peak for of in runs) / 2**20 for key, runs in found.items()}
    head = ["images", *(f"{k} case{'s' * (k > 1)}" for k in cases)]
    print(
        speed.table(head, [[n, *(f"{seconds[n, k]:.1f} s, {mebibytes[n, k]:.0f} MiB" for k in cases)] for n in images])
    )
    for what, of, unit in (("time", seconds, "ms"), ("peak memory", mebibytes, "KiB")):
        scale = 1000 if unit == "ms" else 1024
        per_image = [(of[b, cases[-1]] - of[a, cases[-1]]) / (b - a) * scale for a, b in itertools.pairwise(images)]
        per_case = [(of[images[-1], b] - of[images[-1], a]) / (b - a) * scale for a, b in itertools.pairwise(cases)]
        print(f"\n{what}, {unit} per image at {cases[-1]} cases: " + ", ".join(f"{slope:.2f}" for slope in per_image))
        print(f"{what}, {unit} per case at {images[-1]} images: " + ", ".join(f"{slope:.0f}" for slope in per_case))


if __name__ == "__main__":
    main()
