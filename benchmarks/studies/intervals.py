"""Do the intervals hold what they promise? Coverage, family-wise false failures and power, by simulation.

    python benchmarks/studies/intervals.py coverage [--replicates 1000] [--n 500 2000 10000] [--scenario plain ties ...]
    python benchmarks/studies/intervals.py bootstrap --replicates 200 --n 500
    python benchmarks/studies/intervals.py family --scenario plain --n 500 2000

Every replicate draws a pair of models on the same samples and passes them to `comparison.compare`, as a run does. The
samples of a class lie around its mean with unit variance. Their logits (of linear discriminant analysis) are perfectly
calibrated at scale 1 and overconfident above. The quantized model sees the samples through more noise.

An interval should hold the value of an endless data set, which is approximated by one draw of two million samples.
Estimators that are biased at n (`BIASED`) are compared with their mean over the replicates, and a column shows the
endless data set as well.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import norm

from pytest_qreliab.config.thresholds import Correction, Gate, Limit, Policy
from pytest_qreliab.evaluation.measurement import comparison, measure
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.evaluation.verdicts import gates as gating
from pytest_qreliab.metrics import binning, calibration, classification, ood, ood_scores, registry
from pytest_qreliab.metrics.names import MetricName
from pytest_qreliab.statistics import power, proportions
from pytest_qreliab.statistics.arrays import FloatArray, IntArray

CLASSES = tuple(f"c{k}" for k in range(10))
POPULATION = 2_000_000
SEEDS = {"population": 0, "coverage": 1, "family": 2, "power": 3}
# One-sided: of the nominal 95 %, of one gate, of one gate of eighteen, and of one gate of a hundred.
ALPHAS = (0.025, 0.05, 0.05 / 18, 0.05 / 100)
LEAST, MOST = 0.93, 0.97

METRICS = (
    *("accuracy", "top5_accuracy", "balanced_accuracy", "recall.c0", "agreement", "flips.lost", "flips.gained", "kl"),
    *("nll", "brier", "brier.reliability", "brier.resolution", "ece", "ece.equal_mass", "ece.debiased"),
    *("ece.rms", "ece.classwise", "mce", "confidence_gap", "aurc", "eaurc", "augrc"),
    *("failure.auroc", "failure.aupr_error", "failure.aupr_success", "failure.fpr95"),
    *(f"ood.{statistic}.mcm" for statistic in registry.OOD_STATISTICS),
    "spectral.high_band_energy",
)
BIASED = frozenset(calibration.BINNED)
BOOTSTRAPPED = ("ece", "ood.fpr95.mcm", "ood.aupr_out.mcm")
DRAWS = 200


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A pair of models, and the data that they see."""

    distance: float = 2.5  # of the class means from 0
    baseline: float = 1.2  # how overconfident the baseline is; 1: not at all
    quantized: float = 1.4  # how overconfident the quantized model is
    noise: float = 0.3  # the standard deviation of the quantized model's own noise
    step: float = 0.0  # what logits and scores are rounded to; 0: nothing


SCENARIOS = {
    "plain": Scenario(),
    "ties": Scenario(step=2.0),
    "near-perfect": Scenario(distance=4.3, baseline=1.1, quantized=1.2, noise=0.25),
    "calibrated": Scenario(baseline=1.0, quantized=1.0),
    "leaves calibration": Scenario(baseline=1.0, quantized=1.4),
}


class World:
    """The samples that both models see: n in distribution, and two OOD sets of n / 2 and n / 4."""

    def __init__(self, scenario: Scenario, n: int, rng: np.random.Generator) -> None:
        self._scenario, self.n = scenario, n
        self.labels = rng.integers(len(CLASSES), size=n)
        # Nearly in distribution, at half the distance from the origin, and with nothing of any class.
        sizes = {"": (n, 1.0), "near": (n // 2, 0.5), "far": (n // 4, 0.0)}
        self._seen = {}
        for name, (size, share) in sizes.items():
            of = self.labels if not name else rng.integers(len(CLASSES), size=size)
            self._seen[name] = rng.normal(size=(size, len(CLASSES))) + share * scenario.distance * np.eye(10)[of]
        self._high_band = rng.beta(8, 24, n)

    def measure(self, scale: float, noise: float, rng: np.random.Generator) -> Measurement:
        """Measure a model with noise of its own, `scale` times as confident as it should be."""
        scenario, scores = self._scenario, {}
        predictions = None
        for name, seen in self._seen.items():
            x = seen + noise * rng.normal(size=seen.shape) if noise else seen
            logits = torch.from_numpy(_rounded(scale * scenario.distance / (1 + noise**2) * x, scenario.step))
            if not name:
                predictions = classification.predict(logits, self.labels)
            samples = ood_scores.ScoredSamples(logits=logits, cosines=logits / 10)
            scores[name] = {"mcm": _rounded(ood_scores.score_samples(samples)["mcm"], scenario.step / 10)}
        assert predictions is not None
        high_band = self._high_band * np.exp(noise * rng.normal(size=self.n) / 2)
        id_scores = scores.pop("")
        of_sets = {"mcm": {name: of["mcm"] for name, of in scores.items()}}
        found = Measurement(
            classes=CLASSES,
            samples=self.n,
            predictions=predictions,
            high_band=high_band,
            id_scores=id_scores,
            ood_scores=of_sets,
        )
        found.values.update(measure.values(found))
        return found


def _rounded(values: FloatArray, step: float) -> FloatArray:
    return np.round(values / step) * step if step else values


def pair(scenario: Scenario, n: int, rng: np.random.Generator) -> tuple[Measurement, Measurement]:
    world = World(scenario, n, rng)
    return world.measure(scenario.baseline, 0.0, rng), world.measure(scenario.quantized, scenario.noise, rng)


def truth(name: str) -> dict[str, float]:
    """Return the change of each metric in an endless data set."""
    changes = comparison.compare(*pair(SCENARIOS[name], POPULATION, _rng("population", name, 0, 0)), ())
    return {metric: changes[metric].delta for metric in METRICS}


@dataclass(frozen=True)
class Runs:
    """The estimates and bounds of each metric over the replicates."""

    estimates: dict[str, FloatArray]  # (replicates,)
    bounds: dict[str, FloatArray]  # (replicates, alphas, 2), NaN where there are none

    def spread(self, metric: str) -> float:
        return float(self.estimates[metric].std(ddof=1))


def simulate(name: str, n: int, replicates: int, metrics: Sequence[str] = METRICS) -> Runs:
    estimates = {metric: np.empty(replicates) for metric in metrics}
    bounds = {metric: np.full((replicates, len(ALPHAS), 2), np.nan) for metric in metrics}
    for replicate in range(replicates):
        changes = comparison.compare(*pair(SCENARIOS[name], n, _rng("coverage", name, n, replicate)), metrics)
        for metric in metrics:
            change = changes[metric]
            estimates[metric][replicate] = change.delta
            if change.bounds is not None:
                bounds[metric][replicate] = [change.bounds(alpha) for alpha in ALPHAS]
    return Runs(estimates, bounds)


def _rng(purpose: str, name: str, n: int, replicate: int) -> np.random.Generator:
    return np.random.default_rng([SEEDS[purpose], list(SCENARIOS).index(name), n, replicate])


def coverage(name: str, n: int, replicates: int, true: dict[str, float]) -> tuple[Runs, int, int]:
    """Print the table of one scenario and n; return the runs, how many intervals hold, and how many there are."""
    runs = simulate(name, n, replicates)
    print(f"\n{name}, n = {n}, {replicates} replicates")
    print(f"{'':28}covers  below  above  width   of endless data   tails of .0005")
    inside = total = 0
    for metric in METRICS:
        found = runs.bounds[metric]
        if np.isnan(found).any():
            print(f"{metric:28}no interval")
            continue
        expected = float(runs.estimates[metric].mean()) if metric in BIASED else true[metric]
        below, above = _misses(found[:, 0], expected)
        held, total = LEAST <= 1 - below - above <= MOST, total + 1
        inside += held
        width = float((found[:, 0, 1] - found[:, 0, 0]).mean()) / 2 / (norm.isf(ALPHAS[0]) * runs.spread(metric))
        endless = f"{1 - sum(_misses(found[:, 0], true[metric])):.1%}" if metric in BIASED else ""
        far = "  ".join(f"{share:.2%}" for share in _misses(found[:, 3], expected))
        print(
            f"{metric:28}{1 - below - above:6.1%} {below:6.1%} {above:6.1%} {width:6.2f}   {endless:15}   {far}"
            + ("" if held else "   <- outside 93-97 %")
        )
    return runs, inside, total


def _misses(found: FloatArray, expected: float) -> tuple[float, float]:
    """Return the shares of intervals, (replicates, 2), that lie below the expected value and above it."""
    return float((found[:, 1] < expected).mean()), float((found[:, 0] > expected).mean())


def bootstrap(name: str, n: int, replicates: int, true: dict[str, float]) -> None:
    """Print how often the percentile bootstrap holds the expected values of `BOOTSTRAPPED`.

    Samples are drawn with replacement, in pairs, and the metric is computed from each draw.
    """
    estimates = {metric: np.empty(replicates) for metric in BOOTSTRAPPED}
    found = {metric: np.empty((replicates, 2)) for metric in BOOTSTRAPPED}
    for replicate in range(replicates):
        rng = _rng("coverage", name, n, replicate)
        both = pair(SCENARIOS[name], n, rng)
        draws: dict[str, list[float]] = {metric: [] for metric in BOOTSTRAPPED}
        for _ in range(DRAWS):
            id_draw = rng.integers(n, size=n)
            sizes = {of_set: len(scores) for of_set, scores in both[0].ood_scores["mcm"].items()}
            ood_draws = {of_set: rng.integers(size, size=size) for of_set, size in sizes.items()}
            before, after = (_resampled(model, id_draw, ood_draws) for model in both)
            for metric in BOOTSTRAPPED:
                draws[metric].append(after[metric] - before[metric])
        for metric in BOOTSTRAPPED:
            estimates[metric][replicate] = both[1].values[metric] - both[0].values[metric]
            found[metric][replicate] = np.quantile(draws[metric], [ALPHAS[0], 1 - ALPHAS[0]])
    print(f"\n{name}, n = {n}, {replicates} replicates of the percentile bootstrap with {DRAWS} draws")
    for metric in BOOTSTRAPPED:
        at_n, endless = (_misses(found[metric], value) for value in (float(estimates[metric].mean()), true[metric]))
        print(f"{metric:28}{1 - sum(at_n):6.1%}, below {at_n[0]:.1%}, above {at_n[1]:.1%}", end="")
        print(f"; of endless data {1 - sum(endless):.1%}")


def _resampled(model: Measurement, id_draw: IntArray, ood_draws: dict[str, IntArray]) -> dict[str, float]:
    assert model.predictions is not None
    table = binning.EqualWidthBins(model.predictions.confidence[id_draw], model.predictions.correct[id_draw])
    values = {"ece": float(table.metrics_from_sums(table.sums())["ece"][0])}
    for metric in BOOTSTRAPPED[1:]:
        name = MetricName.parse(metric)
        id_scores, scores = model.id_scores[name.score][id_draw], model.ood_scores[name.score]
        ranked = (ood.SortedScores(id_scores, scores[of_set][ood_draws[of_set]]) for of_set in model.ood_sets(name))
        values[metric] = float(np.mean([ood.STATISTICS[name.statistic].value(sorted_) for sorted_ in ranked]))
    return values


POWERED = ("accuracy", "nll", "ood.auroc.mcm", "ece")


def show_power(runs: Runs, name: str, n: int, true: dict[str, float]) -> None:
    """Print how often a harm fails that exceeds its limit by the announced minimum detectable effect.

    The limit is moved, not the harm, so that the spread is that of the runs. The spread of accuracy comes with its
    harm: numbers of lost and gained samples are drawn with the churn of the runs.
    """
    print(f"\n{name}, n = {n}: power at the minimum detectable effect (nominal {power.POWER:.0%})")
    for metric in POWERED:
        sign = -1.0 if registry.lookup(metric).better == "higher" else 1.0
        expected = float(runs.estimates[metric].mean()) if metric in BIASED else true[metric]
        shares = []
        for index in (1, 2):
            if metric == "accuracy":
                shares.append(f"{_power_of_accuracy(runs, n, ALPHAS[index]):6.1%} at alpha {ALPHAS[index]:.4f}")
                continue
            effect = power.minimum_detectable(runs.spread(metric) * math.sqrt(n), n, ALPHAS[index])
            lowest = (sign * runs.bounds[metric][:, index]).min(axis=1)
            shares.append(f"{(lowest > sign * expected - effect).mean():6.1%} at alpha {ALPHAS[index]:.4f}")
        print(f"{metric:28}{'  '.join(shares)}")


def _power_of_accuracy(runs: Runs, n: int, alpha: float) -> float:
    churn = runs.spread("accuracy") ** 2 * n
    drop = power.minimum_detectable_drop(churn, n, alpha)
    share = max(churn, drop)
    draws = _rng("power", "plain", n, 0).multinomial(n, [(share + drop) / 2, (share - drop) / 2, 1 - share], 1000)
    return float(np.mean([proportions.score_interval(gained, lost, n, alpha).high < 0 for lost, gained, _ in draws]))


CASES = 10
CORRECTIONS: tuple[Correction, ...] = ("bonferroni", "holm")
GATED = (
    *("accuracy", "balanced_accuracy", "agreement", "nll", "brier", "ece", "aurc"),
    *("ood.auroc.mcm", "ood.aupr_out.mcm", "ood.fpr95.mcm"),
)


def family(name: str, n: int, replicates: int, true: dict[str, float]) -> None:
    """Print how often any of a hundred gates fails falsely, if each limit is exactly the true harm.

    There are ten models quantized from one baseline, with ten metrics each.
    """
    scenario, gates = SCENARIOS[name], []
    at_n = _mean_deltas(name, n, replicates)
    for metric in GATED:
        limit: Limit = "max_drop" if registry.lookup(metric).better == "higher" else "max_rise"
        expected = at_n[metric] if metric in BIASED else true[metric]
        gates.append(Gate(metric=metric, limit=limit, value=-expected if limit == "max_drop" else expected, where=""))
    failed = {correction: np.zeros((replicates, CASES, len(gates)), dtype=bool) for correction in CORRECTIONS}
    for replicate in range(replicates):
        rng = _rng("family", name, n, replicate)
        world = World(scenario, n, rng)
        baseline = world.measure(scenario.baseline, 0.0, rng)
        for case in range(CASES):
            changes = comparison.compare(baseline, world.measure(scenario.quantized, scenario.noise, rng), GATED)
            for correction, found in failed.items():
                policy = Policy.model_validate(
                    {"version": 1, "correction": correction, "gates": {"nll": {"max_rise": 0}}}
                )
                alpha = (1 - policy.confidence) / (CASES * len(gates))
                rule = gating.JudgingRule(error_probability=alpha, policy=policy, samples=n)
                verdicts = gating.judge(changes, gates, rule)
                found[replicate, case] = [verdict.outcome == "fail" for verdict in verdicts]
    print(f"\n{name}, n = {n}, {replicates} families of {CASES * len(gates)} gates, every harm exactly at its limit")
    for correction, found in failed.items():
        counts = dict(zip(GATED, map(int, found.sum(axis=(0, 1))), strict=True))
        share = found.any(axis=(1, 2)).mean()
        print(f"{correction}: {share:.1%} of families hold a false failure; of each metric {counts}")


def _mean_deltas(name: str, n: int, replicates: int) -> dict[str, float]:
    totals = dict.fromkeys(GATED, 0.0)
    for replicate in range(replicates):
        changes = comparison.compare(*pair(SCENARIOS[name], n, _rng("coverage", name, n, replicate)), ())
        totals = {metric: total + changes[metric].delta for metric, total in totals.items()}
    return {metric: total / replicates for metric, total in totals.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("coverage", "family", "bootstrap"))
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--n", type=int, nargs="+", default=[500, 2000, 10000])
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    inside = total = 0
    for name in args.scenario:
        true = truth(name)
        for n in args.n:
            start = time.perf_counter()
            if args.study == "coverage":
                runs, held, of = coverage(name, n, args.replicates, true)
                show_power(runs, name, n, true)
                inside, total = inside + held, total + of
            else:
                {"family": family, "bootstrap": bootstrap}[args.study](name, n, args.replicates, true)
            print(f"({time.perf_counter() - start:.0f} s)", flush=True)
    if total:
        print(f"\n{inside} of {total} intervals cover between {LEAST:.0%} and {MOST:.0%}")


if __name__ == "__main__":
    main()
