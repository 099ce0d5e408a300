"""Print the tables of docs/quantizers.md as Markdown: every quantizer at every width, on one model and benchmark.

    python benchmarks/studies/quantizers.py  # tiny-digits on digits, about 10 minutes
    python benchmarks/studies/quantizers.py --models local-dir:CLIP --benchmarks CIFAR.yaml
    python benchmarks/studies/quantizers.py --quantizers minmax,gptq --bits w3,w2

Each cell is top-1 accuracy / ECE / OOD AUROC. A line for each result goes to the standard error as it comes.
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
    "minmax,percentile,mse,smoothquant,outlier-suppression,quarot,gptq,awq,"
    "lsq,lsq+contrastive,lsq+contrastive+mse,quarot+lsq,dsq,lr-qat,omniquant,distillation"
)
METRICS = ("accuracy", "ece", "ood.auroc.mcm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="tiny-digits")
    parser.add_argument("--benchmarks", default="digits")
    parser.add_argument("--quantizers", default=OURS)
    parser.add_argument("--bits", default="w8a8,w6a8,w4a8,w3,w2")
    args = vars(parser.parse_args())
    settings = config_settings.resolve(lambda ini: args.get(ini.removeprefix("qreliab_")), lambda ini: None)
    planned = make_plan.make_plan(settings, Catalog())
    evaluator = Evaluator(planned)
    cells: dict[tuple[str, str], str] = {}
    baseline = ""
    for case in planned.cases:
        started = time.perf_counter()
        changes = evaluator.result(case).changes
        metrics = [metric for metric in METRICS if metric in changes]
        key = case.build.quantizer, str(case.build.bits)
        cells[key] = " / ".join(f"{changes[metric].quantized:.4f}".lstrip("0") for metric in metrics)
        baseline = " / ".join(f"{changes[metric].baseline:.4f}".lstrip("0") for metric in metrics)
        print(*key, cells[key], f"{time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
    widths = list(dict.fromkeys(bits for _, bits in cells))
    print(f"\nFull precision: {baseline}\n")
    print(f"| quantizer | {' | '.join(widths)} |")
    print(f"|---{'|---' * len(widths)}|")
    for quantizer in dict.fromkeys(name for name, _ in cells):
        print(f"| `{quantizer}` | {' | '.join(cells.get((quantizer, bits), '') for bits in widths)} |")


if __name__ == "__main__":
    main()
