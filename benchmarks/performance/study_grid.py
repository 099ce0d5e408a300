"""Time the study's grid in small: 16 quantizers x 3 widths x 2 scopes on tiny-digits and all of `digits`.

    python benchmarks/performance/study_grid.py [--quantizers minmax,lsq] [--bits 4,6,8] [--workers 1,2]

Each run is a whole `pytest` process: cold in an empty folder, then warm in the same folder again. One process uses all
cores. Two (`-n 2`) share them equally. The budget of one process is 15 minutes cold and 20 s warm.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import speed

QUANTIZERS = (
    "minmax,percentile,mse,smoothquant,outlier-suppression,quarot,gptq,awq,"
    "lsq,lsq+contrastive,lsq+contrastive+mse,quarot+lsq,dsq,lr-qat,omniquant,distillation"
)
BUDGETS = (15 * 60, 20)  # seconds cold and warm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quantizers", default=QUANTIZERS)
    parser.add_argument("--bits", default="4,6,8")
    parser.add_argument("--scopes", default="vision,both")
    parser.add_argument("--workers", default="1,2", help="numbers of processes to try")
    parser.add_argument("--work", type=Path, help="a folder for the runs")
    args = parser.parse_args()
    options = [f"--qreliab-{name}={getattr(args, name)}" for name in ("quantizers", "bits", "scopes")]
    cases = len(args.quantizers.split(",")) * len(args.bits.split(",")) * len(args.scopes.split(","))
    rows = []
    with speed.workspace(args.work) as work:
        for workers in map(int, args.workers.split(",")):
            folder, threads = speed.fresh(work / "run"), max(1, speed.CORES // workers)
            spread = [] if workers == 1 else ["-n", str(workers)]
            for what, budget in zip(("cold", "warm"), BUDGETS, strict=True):
                took = speed.pytest(folder, *spread, *options, threads=threads)
                kept = f"{budget} s: {'kept' if took.seconds <= budget else 'BROKEN'}"
                each = f"{took.seconds / cases:.2f}"
                rows.append([workers, threads, what, f"{took.seconds:.1f}", each, took.gib, kept])
    print(f"{cases} cases: {args.quantizers} x {args.bits} x {args.scopes}\n")
    print(speed.table(["processes", "threads each", "", "s", "s per case", "peak memory of one", "budget"], rows))


if __name__ == "__main__":
    main()
