"""The A/A self-check: what the gates do where there is nothing to find, and what they would find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from pytest_qreliab.config.cases import Case
from pytest_qreliab.config.thresholds import Gate, Policy
from pytest_qreliab.evaluation.measurement.comparison import Change, compare
from pytest_qreliab.evaluation.measurement.measure import values
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.evaluation.verdicts.gates import judge
from pytest_qreliab.metrics import registry, robustness
from pytest_qreliab.metrics.classification import Predictions, mixed
from pytest_qreliab.statistics.arrays import FloatArray

SEED = 0
REPLICATES = 200
CAUGHT = 0.8
# A false-failure rate is found too high where chance would give as many failures with this probability.
SURE = 0.01

# What measures the distance of the two models, which is not zero, however the outputs are dealt.
# Of the spectral metrics only this one is a mean over samples; the others would need all features dealt anew.
SPECTRAL = "spectral.high_band_energy"


@dataclass(frozen=True)
class GateCheck:
    """One gate: the share of replicates in which it did not let the baseline pass, and the least true harm that it
    would fail in four of five."""

    gate: Gate
    false_failures: float
    detectable: float


@dataclass(frozen=True)
class SelfCheck:
    """The gates of a case, tried on `replicates` pairs that do not differ: `failed` of them did not pass every gate.

    `allowed` is the share that the thresholds' confidence allows; `left_out` names the metrics that were not tried.
    """

    case: Case
    samples: int
    device: str
    replicates: int
    failed: int
    allowed: float
    gates: tuple[GateCheck, ...]
    left_out: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the false failures are no more than chance allows where the true rate is the one allowed."""
        return bool(binom.sf(self.failed - 1, self.replicates, self.allowed) > SURE)


def check(
    case: Case,
    baseline: Measurement,
    quantized: Measurement,
    gates: Sequence[Gate],
    alpha: float,
    policy: Policy,
    device: str,
    advance: Callable[[int], None],
) -> SelfCheck:
    """Gate the baseline against itself, with the noise that this quantizer makes.

    The same outputs on the same samples would differ in nothing. So in each replicate the samples are drawn anew,
    and for each the two outputs there are, full precision and quantized, are dealt to the two sides at random: they
    differ as much as they really do, sample by sample, and yet neither side is worse. Left out are gates without an
    interval, which are no tests, and those on the distance of the two models. Seeded.
    """
    tested = [gate for gate in gates if _tested(gate)]
    wanted = {registry.canonical(gate.metric) for gate in tested}
    rng = np.random.default_rng(SEED)
    lows: list[list[float]] = [[] for _ in tested]
    refused = np.zeros((REPLICATES, len(tested)), dtype=bool)
    for replicate in range(REPLICATES):
        sides = shuffle_pair(baseline, quantized, wanted, rng)
        changes = compare(*sides, wanted)
        for index, verdict in enumerate(judge(changes, tested, baseline.samples, alpha, policy)):
            refused[replicate, index] = not verdict.passed
            change = changes.get(registry.canonical(verdict.gate.metric))
            lows[index].append(_lowest(change, verdict.gate, alpha))
        advance(1)
    checks = [
        GateCheck(gate, float(of.mean()), gate.value - float(np.quantile(low, 1 - CAUGHT)))
        for gate, of, low in zip(tested, refused.T, lows, strict=True)
    ]
    left_out = tuple(dict.fromkeys(gate.metric for gate in gates if gate not in tested))
    failed = int(refused.any(axis=1).sum())
    allowed = 1 - policy.confidence
    return SelfCheck(case, baseline.samples, device, REPLICATES, failed, allowed, tuple(checks), left_out)


def shuffle_pair(
    baseline: Measurement, quantized: Measurement, wanted: Sequence[str] | set[str], rng: np.random.Generator
) -> tuple[Measurement, Measurement]:
    """Two measurements of the same resampled samples, to which the outputs of both models are dealt at random."""
    draw = _Deal(baseline.samples, rng)
    id_scores: dict[str, tuple[FloatArray, FloatArray]] = {}
    ood_scores: dict[str, dict[str, tuple[FloatArray, FloatArray]]] = {}
    sizes = {name: len(scores) for of_sets in baseline.ood_scores.values() for name, scores in of_sets.items()}
    of_set = {name: _Deal(size, rng) for name, size in sizes.items()}
    for score, sets in baseline.ood_scores.items():
        rescale = _to_scale_of(baseline.id_scores[score], quantized.id_scores[score])
        id_scores[score] = draw.values(baseline.id_scores[score], rescale(quantized.id_scores[score]))
        ood_scores[score] = {
            name: of_set[name].values(scores, rescale(quantized.ood_scores[score][name]))
            for name, scores in sets.items()
        }
    of_labelled = _labelled_deals(baseline, rng)
    sides = []
    for side in (0, 1):
        found = replace(
            baseline,
            values={},
            problems={},
            predictions=draw.predictions(baseline.predictions, quantized.predictions, side),
            rescaled=draw.predictions(baseline.rescaled, quantized.rescaled, side),
            high_band=None
            if baseline.high_band is None or quantized.high_band is None
            else draw.values(baseline.high_band, quantized.high_band)[side],
            id_scores={score: pair[side] for score, pair in id_scores.items()},
            ood_scores={score: {name: pair[side] for name, pair in sets.items()} for score, sets in ood_scores.items()},
            features={},
            labelled={
                name: deal.mixed(baseline.labelled[name], quantized.labelled[name], side)
                for name, deal in of_labelled.items()
                if name in quantized.labelled
            },
        )
        found.values.update(values(found, wanted))
        sides.append(found)
    return sides[0], sides[1]


def _labelled_deals(measured: Measurement, rng: np.random.Generator) -> dict[str, _Deal]:
    """The draws of the further labelled sets: one for all cells of a corruption grid, which hold the same images."""
    deals: dict[str, _Deal] = {}
    for name, predictions in measured.labelled.items():
        group = robustness.GRID if name.startswith(robustness.GRID) else name
        deals.setdefault(group, _Deal(len(predictions), rng))
        deals[name] = deals[group]
    deals.pop(robustness.GRID, None)
    return deals


class _Deal:
    """Which n samples are drawn, with replacement, and of which the outputs change sides."""

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        self._drawn: npt.NDArray[np.int64] = rng.integers(0, n, n)
        self._crossed = rng.random(n) < 0.5

    def values(self, baseline: FloatArray, quantized: FloatArray) -> tuple[FloatArray, FloatArray]:
        b, q = baseline[self._drawn], quantized[self._drawn]
        return np.where(self._crossed, q, b), np.where(self._crossed, b, q)

    def predictions(self, baseline: Predictions | None, quantized: Predictions | None, side: int) -> Predictions | None:
        return None if baseline is None or quantized is None else self.mixed(baseline, quantized, side)

    def mixed(self, baseline: Predictions, quantized: Predictions, side: int) -> Predictions:
        return mixed(baseline.take(self._drawn), quantized.take(self._drawn), self._crossed != bool(side))


def _to_scale_of(reference: FloatArray, other: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Shifts and stretches scores so that those of the in-distribution samples have the reference's mean and spread.

    No metric of one model changes by it, and dealt scores of two models can be ranked.
    """
    spread = other.std()
    factor = reference.std() / spread if spread > 0 else 1.0
    return lambda scores: reference.mean() + factor * (scores - other.mean())


def _tested(gate: Gate) -> bool:
    return (
        gate.limit not in ("min", "max")
        and not registry.is_distance(gate.metric)
        and (gate.metric == SPECTRAL or gate.aspect != "spectrum")
        and registry.lookup(gate.metric).spread is not None
    )


def _lowest(change: Change | None, gate: Gate, alpha: float) -> float:
    """The lower bound of the harm, with its sign where any change is harm; infinitely low where there is none."""
    if change is None or change.bounds is None:
        return -float("inf")
    low, high = change.bounds(alpha)
    lowest = -high if gate.limit == "max_drop" else low
    return lowest / abs(change.baseline) if gate.limit == "max_relative_change" else lowest
