"""Print the tables of docs/quantizers.md as Markdown: every quantizer at every width, on one model and benchmark.

    python benchmarks/studies/quantizers.py  # tiny-digits on digits, about 10 minutes
    python benchmarks/studies/quantizers.py --models local-dir:CLIP --benchmarks CIFAR.yaml
    python benchmarks/studies/quantizers.py --quantizers minmax,gptq --bits w3,w2

Each cell is top-1 accuracy / agreement with full precision / KL divergence from it, in nats (`--metrics` sets others).
Below each table, the quantizers in the order of KL. A line for each result goes to the standard error as it comes.
"""

from __future__ import annotations

import argparse
import sys
import time

from pytest_qreliab.config import settings as config_settings
from pytest_qreliab.evaluation.evaluator import Evaluator
from pytest_qreliab.evaluation.planning import make_plan
from pytest_qreliab.evaluation.planning.catalog import Catalog

OURS = (
    "minmax,percentile,mse,smoothquant,outlier-suppression,quarot,gptq,awq,hqq,"
    "lsq,lsq-8bit-ends,lsq+contrastive,lsq+contrastive+mse,quarot+lsq,dsq,dsq-8bit-ends,lr-qat,omniquant,q-vit,qt-dog,"
    "distillation"
)
METRICS = "accuracy,agreement,kl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="tiny-digits")
    parser.add_argument("--benchmarks", default="digits")
    parser.add_argument("--quantizers", default=OURS)
    parser.add_argument("--bits", default="w8a8,w6a8,w4a8,w3,w2")
    parser.add_argument("--metrics", default=METRICS, help="the last decides the order")
    args = vars(parser.parse_args())
    wanted = args.pop("metrics").split(",")
    settings = config_settings.resolve(lambda ini: args.get(ini.removeprefix("qreliab_")), lambda ini: None)
    planned = make_plan.make_plan(settings, Catalog())
    evaluator = Evaluator(planned)
    cells: dict[tuple[str, str], list[float]] = {}
    baseline: list[float] = []
    for case in planned.cases:
        started = time.perf_counter()
        changes = evaluator.result(case).changes
        metrics = [metric for metric in wanted if metric in changes]
        key = case.build.quantizer, str(case.build.bits)
        cells[key] = [changes[metric].quantized for metric in metrics]
        baseline = [changes[metric].baseline for metric in metrics]
        print(*key, _cell(cells[key]), f"{time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
    widths = list(dict.fromkeys(bits for _, bits in cells))
    print(f"\nFull precision: {_cell(baseline)}\n")
    print(f"| quantizer | {' | '.join(widths)} |")
    print(f"|---{'|---' * len(widths)}|")
    for quantizer in dict.fromkeys(name for name, _ in cells):
        row = (_cell(cells.get((quantizer, bits), [])) for bits in widths)
        print(f"| `{quantizer}` | {' | '.join(row)} |")
    print()
    for bits in widths:
        order = sorted((values[-1], name) for (name, its), values in cells.items() if its == bits)
        print(f"{bits}, by {wanted[-1]}: {', '.join(name for _, name in order)}")


def _cell(values: list[float]) -> str:
    return " / ".join(f"{value:.4f}".removeprefix("0") for value in values)


if __name__ == "__main__":
    main()
