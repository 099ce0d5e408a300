"""Time the main job, `pytest --qreliab-bits=4,8`, beside what it cannot do without.

    python benchmarks/performance/main_job.py [--runs 5]

Each run is a whole process in an empty folder, imports included. Three are timed in turn, so that a machine whose
speed drifts does not favour one: the main job; importing torch and open_clip alone; and importing them and
encoding the benchmark's images three times (full precision and two quantized models) with bare forward passes.
The job's budget is 45 s on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

IMPORTS = "import torch, open_clip"

FORWARDS = """
import torch, open_clip
from pytest_qreliab.models import tiny_digits
model = open_clip.create_model(f"local-dir:{tiny_digits.FOLDER}").eval()
with torch.inference_mode():
    for _ in range(3):
        for images in (898, 564, 520):
            for batch in torch.zeros(images, 3, 32, 32).split(64):
                model.encode_image(batch)
"""

COMMANDS = {
    "main job": ["-m", "pytest", "-q", "--qreliab-bits=4,8"],
    "imports alone": ["-c", IMPORTS],
    "imports and bare forward passes": ["-c", FORWARDS],
}


def seconds(arguments: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=folder, check=True, capture_output=True)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each, after one that is not counted")
    runs = parser.parse_args().runs
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for run in range(runs + 1):
        for name, arguments in COMMANDS.items():
            taken = seconds(arguments)
            if run:
                times[name].append(taken)
    for name, taken in times.items():
        ratio = statistics.median(job / other for job, other in zip(times["main job"], taken, strict=True))
        print(
            f"{name:32} median {statistics.median(taken):6.2f} s  (min {min(taken):.2f}, max {max(taken):.2f})", end=""
        )
        print("" if name == "main job" else f"  the main job takes {ratio:.2f} x this")


if __name__ == "__main__":
    main()
