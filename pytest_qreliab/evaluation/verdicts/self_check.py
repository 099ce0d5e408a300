"""The A/A self-check: how often gates fail if nothing changed, and what they would find."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from pytest_qreliab.config.cases import Case
from pytest_qreliab.config.thresholds import Gate
from pytest_qreliab.evaluation.measurement.comparison import Change, compare
from pytest_qreliab.evaluation.measurement.measure import values
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.evaluation.verdicts.gates import JudgingRule, judge, not_shown
from pytest_qreliab.metrics import registry, robustness
from pytest_qreliab.metrics.classification import Predictions, mix
from pytest_qreliab.metrics.names import SetName
from pytest_qreliab.statistics.arrays import FloatArray

SEED = 0
REPLICATES = 200
CAUGHT = 0.8  # the share of replicates in which a harm of the detectable size fails
# A false-failure rate is too high if chance would give as many failures with a smaller probability.
SURE = 0.01

# The only spectral metric that is a mean over samples. The others would need all features shuffled anew.
SPECTRAL = "spectral.high_band_energy"


@dataclass(frozen=True)
class GateCheck:
    """The self-check of one gate."""

    gate: Gate
    false_failures: float  # the share of replicates in which it failed the baseline
    detectable: float  # the least true harm that it would fail in four cases of five


@dataclass(frozen=True, kw_only=True)
class SelfCheck:
    """The gates of a case, tried on pairs that do not differ."""

    case: Case
    samples: int
    device: str
    replicates: int  # the number of pairs
    failed: int  # the number of pairs that did not pass every gate
    allowed: float  # the share of them that the confidence of the policy allows
    gates: tuple[GateCheck, ...]
    left_out: tuple[str, ...]  # the metrics that were not tried

    @property
    def passed(self) -> bool:
        """True if chance allows so many false failures when their true rate is the allowed one."""
        return bool(binom.sf(self.failed - 1, self.replicates, self.allowed) > SURE)


def check(
    case: Case,
    baseline: Measurement,
    quantized: Measurement,
    gates: Sequence[Gate],
    rule: JudgingRule,
    *,
    device: str,
    advance: Callable[[int], None],
) -> SelfCheck:
    """Gate the baseline against itself, with the noise that this quantizer makes.

    Two equal outputs would differ in nothing. Each replicate therefore draws the samples anew, and gives the two
    outputs of each sample to the two sides at random. The sides differ as much as the models do, sample by sample,
    and yet neither is worse. Gates without an interval are no tests and are left out. So are gates on the distance of
    the two models, which is not zero however the outputs are shuffled, and gates on what the models do not show. The
    result is the same in every run.

    Args:
        case: The case that is checked.
        baseline: The measurement in full precision.
        quantized: The measurement of the quantized model, on the same samples.
        gates: The gates of the case on the change from full precision.
        rule: The rule that the gates of the case are judged by.
        device: The device that the models were measured on.
        advance: Called with 1 after each replicate.

    Returns:
        How often each gate failed, and what it could detect.
    """
    changes = compare(baseline, quantized, {registry.canonical(gate.metric) for gate in gates})
    missing = not_shown(changes, gates)
    tested = [gate for gate in gates if _is_tested(gate) and gate.metric not in missing]
    refused, lower_bounds = _try_gates(baseline, quantized, tested, rule, advance)
    return SelfCheck(
        case=case,
        samples=baseline.samples,
        device=device,
        replicates=REPLICATES,
        failed=int(refused.any(axis=1).sum()),
        allowed=1 - rule.policy.confidence,
        gates=tuple(
            GateCheck(gate, float(failures.mean()), gate.value - float(np.quantile(bounds, 1 - CAUGHT)))
            for gate, failures, bounds in zip(tested, refused.T, lower_bounds.T, strict=True)
        ),
        left_out=tuple(dict.fromkeys(gate.metric for gate in gates if gate not in tested)),
    )


def _try_gates(
    baseline: Measurement,
    quantized: Measurement,
    gates: Sequence[Gate],
    rule: JudgingRule,
    advance: Callable[[int], None],
) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Return whether each gate failed, and the lower bound of the harm, shape (replicates, gates) each."""
    wanted = {registry.canonical(gate.metric) for gate in gates}
    rng = np.random.default_rng(SEED)
    refused = np.zeros((REPLICATES, len(gates)), dtype=bool)
    lower_bounds = np.zeros((REPLICATES, len(gates)))
    for replicate in range(REPLICATES):
        changes = compare(*shuffle_pair(baseline, quantized, wanted, rng), wanted)
        for index, verdict in enumerate(judge(changes, gates, rule)):
            change = changes.get(registry.canonical(verdict.gate.metric))
            refused[replicate, index] = not verdict.passed
            lower_bounds[replicate, index] = _lower_bound(change, verdict.gate, rule.error_probability)
        advance(1)
    return refused, lower_bounds


def shuffle_pair(
    baseline: Measurement, quantized: Measurement, wanted: Collection[str], rng: np.random.Generator
) -> tuple[Measurement, Measurement]:
    """Draw samples anew and give the outputs of both models to two sides at random.

    Args:
        baseline: The measurement in full precision.
        quantized: The measurement of the quantized model, on the same samples.
        wanted: The metrics, by canonical name, that the two sides need.
        rng: The source of randomness.

    Returns:
        The measurements of the two sides.
    """
    shuffle = _PairShuffle(baseline, quantized, rng)
    sides = shuffle.side(0), shuffle.side(1)
    for side in sides:
        side.values.update(values(side, wanted))
    return sides


class _PairShuffle:
    """A draw of the samples of every image set, and of the sides that their outputs go to."""

    def __init__(self, baseline: Measurement, quantized: Measurement, rng: np.random.Generator) -> None:
        self._baseline, self._quantized = baseline, quantized
        self._shuffle = _Shuffle(baseline.samples, rng)
        sizes = {name: len(scores) for sets in baseline.ood_scores.values() for name, scores in sets.items()}
        self._ood = {name: _Shuffle(size, rng) for name, size in sizes.items()}
        self._labelled = _labelled_shuffles(baseline, rng)
        self._rescalings = {
            score: _rescaling(quantized.id_scores[score], baseline.id_scores[score]) for score in baseline.ood_scores
        }

    def side(self, number: int) -> Measurement:
        """Return one side, 0 or 1, without values."""
        baseline, quantized, shuffle = self._baseline, self._quantized, self._shuffle
        return replace(
            baseline,
            values={},
            problems={},
            predictions=shuffle.predictions(baseline.predictions, quantized.predictions, number),
            rescaled=shuffle.predictions(baseline.rescaled, quantized.rescaled, number),
            high_band=None
            if baseline.high_band is None or quantized.high_band is None
            else shuffle.values(baseline.high_band, quantized.high_band, number),
            id_scores={
                score: shuffle.values(baseline.id_scores[score], rescale(quantized.id_scores[score]), number)
                for score, rescale in self._rescalings.items()
            },
            ood_scores={
                score: {
                    name: self._ood[name].values(scores, rescale(quantized.ood_scores[score][name]), number)
                    for name, scores in baseline.ood_scores[score].items()
                }
                for score, rescale in self._rescalings.items()
            },
            features={},
            labelled={
                name: self._labelled[name].mix(predictions, quantized.labelled[name], number)
                for name, predictions in baseline.labelled.items()
                if name in quantized.labelled
            },
        )


class _Shuffle:
    """The samples that are drawn, with replacement, and those whose outputs change sides."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self._drawn: npt.NDArray[np.int64] = rng.integers(0, size, size)
        self._crossed = rng.random(size) < 0.5

    def values(self, baseline: FloatArray, quantized: FloatArray, side: int) -> FloatArray:
        own, other = (quantized, baseline) if side else (baseline, quantized)
        return np.where(self._crossed, other[self._drawn], own[self._drawn])

    def predictions(self, baseline: Predictions | None, quantized: Predictions | None, side: int) -> Predictions | None:
        return None if baseline is None or quantized is None else self.mix(baseline, quantized, side)

    def mix(self, baseline: Predictions, quantized: Predictions, side: int) -> Predictions:
        return mix(baseline.take(self._drawn), quantized.take(self._drawn), self._crossed != bool(side))


def _labelled_shuffles(measurement: Measurement, rng: np.random.Generator) -> dict[str | bytes, _Shuffle]:
    """Return a shuffle of each labelled set: one for all sets of the same images, such as the cells of a grid."""
    shuffles: dict[str | bytes, _Shuffle] = {}
    for name, predictions in measurement.labelled.items():
        units = measurement.units.get(name)
        same: str | bytes = name if units is None else units.tobytes()
        group = robustness.GRID if SetName.parse(name).category == robustness.GRID else same
        shuffles.setdefault(group, _Shuffle(len(predictions), rng))
        shuffles[name] = shuffles[group]
    return shuffles


def _rescaling(scores: FloatArray, reference: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Return a function that shifts and stretches `scores` to the mean and spread of the reference.

    It changes no metric of one model, and shuffled scores of two models can then be ranked.
    """
    spread = scores.std()
    factor = reference.std() / spread if spread > 0 else 1.0
    return lambda values: reference.mean() + factor * (values - scores.mean())


def _is_tested(gate: Gate) -> bool:
    return (
        gate.limit not in ("min", "max")
        and not registry.is_distance(gate.metric)
        and (gate.metric == SPECTRAL or gate.aspect != "spectrum")
        and registry.lookup(gate.metric).spread is not None
    )


def _lower_bound(change: Change | None, gate: Gate, alpha: float) -> float:
    """Return the lower bound of the harm, signed even if any change is harm; -inf if there is none."""
    if change is None or change.bounds is None:
        return -float("inf")
    low, high = change.bounds(alpha)
    bound = -high if gate.limit == "max_drop" else low
    return bound / abs(change.baseline) if gate.limit == "max_relative_change" else bound
