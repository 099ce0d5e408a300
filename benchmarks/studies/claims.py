"""Rerun the study's claims: minmax at w8a8, w6a8 and w4a8, towers alone and together, and matched controls.

    python benchmarks/studies/claims.py                                             # tiny-digits on digits
    python benchmarks/studies/claims.py --models local-dir:CLIP --benchmarks CIFAR.yaml

Prints a Markdown table for each claim: changes from full precision with their 95 % intervals, in bold if these exclude
0. docs/spectrum.md shows the results and discusses them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from pytest_qreliab.config import settings as config_settings
from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.data import loading as data
from pytest_qreliab.evaluation.evaluator import Evaluator
from pytest_qreliab.evaluation.planning import make_plan
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.evaluation.result import Result
from pytest_qreliab.evaluation.verdicts.controls import Explanation
from pytest_qreliab.metrics import registry
from pytest_qreliab.metrics.definitions import RANK_BANDS

ALPHA = 0.025
BITS = "w8a8,w6a8,w4a8"
EXPLAINED = "w4a8,w3a8,w2a8"  # on to where all moves
BY_RANK = [f"spectral.residual_{band}" for band in RANK_BANDS]
ALONE = [f"spectral.accuracy_{band}" for band in RANK_BANDS]
CLAIMS = (
    ("Calibration moves by the sign of the confidence gap", ["confidence_gap", "ece", "nll"], "both"),
    ("Calibration and OOD detection decouple", ["ece", "ood.auroc", "ood.fpr95"], "both"),
    ("The text tower hurts calibration most, and a refit of the logit scale repairs it", ["ece", "rescaled.ece"], ""),
    (
        "Noise robustness improves, shift and spurious correlation do not",
        ["corruption.accuracy", "shift.accuracy", "spurious.gap", "spurious.vulnerability"],
        "both",
    ),
    ("The error grows with rank, the effective rank hardly moves", [*BY_RANK, "spectral.effective_rank"], "vision"),
    ("The low ranks carry the answers, and keep them", ALONE, "vision"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="tiny-digits")
    parser.add_argument("--benchmarks", default="digits")
    args = vars(parser.parse_args())
    images = data.load(Benchmark.load(args["benchmarks"]))
    metrics = dict.fromkeys(name for _, names, _ in CLAIMS for name in names)
    there = [name for name in metrics if registry.image_sets(name, images.sets)]
    cells = [f"corruption.accuracy.{name.partition('.')[2]}" for name in images.labelled if name.startswith("corr")]
    results = run({**args, "bits": BITS, "scopes": "vision,text,both"}, [*there, *cells])
    for title, names, scope in CLAIMS:
        shown = [name for name in names if name in there]
        print(f"**{title}**\n")
        table([r for r in results if scope in ("", r.case.build.scope)], shown)
    window(results, cells)
    for result in run({**args, "bits": EXPLAINED, "controls": "features"}, there):
        assert result.controls is not None
        print(f"**What accounts for {result.case.quantization}: controls with features that err as much**\n")
        if result.controls.problem:
            print(f"None: {result.controls.problem}.\n")
        else:
            explanations(result.controls.explanations)


def run(settings: dict[str, str], names: Sequence[str]) -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        thresholds = Path(folder) / "all.yaml"
        gates = {name: {"max_change": 1e9} for name in names}
        thresholds.write_text(yaml.safe_dump({"version": 1, "gates": gates, "correction": "none"}))
        given = {**settings, "thresholds": str(thresholds)}
        resolved = config_settings.resolve(lambda ini: given.get(ini.removeprefix("qreliab_")), lambda ini: None)
        planned = make_plan.make_plan(resolved, Catalog())
        evaluator = Evaluator(planned)
        return [evaluator.result(case) for case in planned.cases]


def table(results: Sequence[Result], names: Sequence[str]) -> None:
    print("| | " + " | ".join(f"`{name}`" for name in names) + " |")
    print("|---" * (len(names) + 1) + "|")
    values = (results[0].changes[registry.canonical(name)].baseline for name in names)
    print("| full precision | " + " | ".join(f"{value:.4f}" for value in values) + " |")
    for result in results:
        print(f"| {result.case.quantization} | " + " | ".join(cell(result, name) for name in names) + " |")
    print()


def cell(result: Result, name: str) -> str:
    change = result.changes[registry.canonical(name)]
    if change.bounds is None:
        return f"{change.delta:+.4f}"
    low, high = change.bounds(ALPHA)
    text = f"{change.delta:+.4f}"
    return f"{text} ({low:+.4f} to {high:+.4f})" if low <= 0 <= high else f"**{text}** ({low:+.4f} to {high:+.4f})"


def window(results: Sequence[Result], cells: Sequence[str]) -> None:
    """Print in how many cells of the corruption grid accuracy rose and fell, and in how many of those surely so."""
    print("**The gain sits in a window of corruptions**\n")
    print("| | cells | up | surely | down | surely |\n|---|---|---|---|---|---|")
    for result in results:
        if result.case.build.scope == "both":
            changes = [result.changes[name] for name in cells]
            intervals = [change.bounds(ALPHA / len(cells)) for change in changes if change.bounds is not None]
            up, down = (sum(sign * change.delta > 0 for change in changes) for sign in (1, -1))
            sure_up, sure_down = sum(i.low > 0 for i in intervals), sum(i.high < 0 for i in intervals)
            print(f"| {result.case.quantization} | {len(cells)} | {up} | {sure_up} | {down} | {sure_down} |")
    print()


def explanations(found: Sequence[Explanation]) -> None:
    print("| | quantized | lowrank | noise | conclusion |\n|---|---|---|---|---|")
    for of in found:
        moved = (of.quantized, *of.controls.values())
        cells = [f"{m.change:+.4f} ({m.interval.low:+.4f} to {m.interval.high:+.4f})" for m in moved]
        print(f"| `{of.metric}` | {' | '.join(cells)} | {of.conclusion} |")
    print()


if __name__ == "__main__":
    main()
