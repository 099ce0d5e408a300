"""Print the spread of every metric's change: its standard error times the root of the number of samples.

    python benchmarks/studies/spreads.py                                             # tiny-digits on digits, w4a8
    python benchmarks/studies/spreads.py --models local-dir:CLIP --benchmarks CIFAR.yaml

The power of gates in a plan rests on the spreads of the table of metrics in `pytest_qreliab/metrics/`. Those are the
largest that this script shows for minmax w4a8 of tiny-digits and of a CLIP trained on CIFAR-10, rounded up.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import yaml
from scipy.stats import norm

from pytest_qreliab.config import settings as config_settings
from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.data import loading as data
from pytest_qreliab.evaluation.evaluator import Evaluator
from pytest_qreliab.evaluation.planning import make_plan
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.evaluation.verdicts.power import effective_samples
from pytest_qreliab.metrics import registry, robustness

ALPHA = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="tiny-digits")
    parser.add_argument("--benchmarks", default="digits")
    parser.add_argument("--bits", default="w4a8")
    args = vars(parser.parse_args())
    images = data.load(Benchmark.load(args["benchmarks"]))
    given = {"local", "blocks", "penultimate", "gratings", *(["negatives"] if images.negatives else [])}
    if images.calibration is not None:
        given |= {"calibration", *(["labels"] if images.calibration.labels is not None else [])}
    given |= {name.partition(".")[0] for name in images.labelled}
    names = [n for n in registry.names() if registry.lookup(n).spread is not None and registry.lookup(n).needs <= given]
    names += [f"recall.{name}" for name in images.classes]
    names += [
        name for of in images.labelled for name in robustness.metrics_on_set(of) if registry.names_image_set(name)
    ]
    names = list(dict.fromkeys(names))
    limits = {name: {"max_change": 1.0} for name in names}
    with tempfile.TemporaryDirectory() as folder:
        thresholds = Path(folder) / "all.yaml"
        thresholds.write_text(yaml.safe_dump({"version": 1, "gates": limits}))
        args["thresholds"] = str(thresholds)
        settings = config_settings.resolve(lambda ini: args.get(ini.removeprefix("qreliab_")), lambda ini: None)
        planned = make_plan.make_plan(settings, Catalog())
        result = Evaluator(planned).result(planned.cases[0])
    for name in names:
        change = result.changes.get(registry.canonical(name))
        if change is None or change.bounds is None:
            print(f"{name:32} none")
            continue
        low, high = change.bounds(ALPHA)
        error = (high - low) / 2 / norm.isf(ALPHA)
        spread = error * effective_samples(name, images) ** 0.5
        print(f"{name:32} {change.baseline:8.4f} {change.delta:+.4f}  spread {spread:.4f}")


if __name__ == "__main__":
    main()
