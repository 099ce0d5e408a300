"""How far a quantized model moves if another kernel computes its attention, to hold a drift against."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from pytest_qreliab.config.cases import Case
from pytest_qreliab.embedding.kernels import Attention, attention
from pytest_qreliab.embedding.model_handle import ModelHandle
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.case_measurer import CaseMeasurer
from pytest_qreliab.evaluation.measurement.comparison import compare
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.evaluation.model_cache import ModelCache
from pytest_qreliab.evaluation.verdicts.gates import Verdict
from pytest_qreliab.hashing import digest
from pytest_qreliab.metrics import registry
from pytest_qreliab.models.clip import Clip


@dataclass(frozen=True, kw_only=True)
class KernelSpread:
    """The spread of metrics between two attention kernels, measured if there is a drift to explain.

    If activations are rounded, a last bit matters: it tips a value over to the next level of its grid, and the layers
    after it carry that on. The ranges are observed with the other kernel too, but nothing is trained again.
    """

    models: ModelCache
    measurer: CaseMeasurer

    def explain(
        self, case: Case, verdicts: Sequence[Verdict], baseline: Measurement, quantized: Measurement
    ) -> list[Verdict]:
        """Return verdicts on the drift with the spread between kernels beside each drift that fails.

        Args:
            case: The case.
            verdicts: The verdicts of its gates on the drift.
            baseline: The measurement in full precision.
            quantized: The measurement of the quantized model.

        Returns:
            The verdicts in their order. They are unchanged if the build rounds no activations, or if its features do
            not depend on the kernel.
        """
        plan, build = self.models.plan, case.build
        drifted = {registry.canonical(verdict.gate.metric) for verdict in verdicts if _drifted(verdict)}
        is_recorded = not plan.recordings.keys().isdisjoint((build.model, build.quantizer))
        if not drifted or is_recorded or build.bits.activations is None:
            return list(verdicts)
        try:
            other = self._measure(case, drifted)
        except InputError:  # the models are gone since their features were kept; the drift stands all the same
            return list(verdicts)
        both = quantized.features.keys() & other.features.keys()
        if all(np.array_equal(quantized.features[part], other.features[part]) for part in both):
            return list(verdicts)
        changes = compare(baseline, other, drifted)

        def beside(verdict: Verdict) -> Verdict:
            change = changes.get(registry.canonical(verdict.gate.metric))
            if not _drifted(verdict) or change is None or change.problem:
                return verdict
            return replace(verdict, kernel_spread=abs(change.quantized - verdict.quantized))

        return [beside(verdict) for verdict in verdicts]

    def _measure(self, case: Case, metrics: Collection[str]) -> Measurement:
        """Quantize with the other kernel, and measure what the metrics need of a case."""
        plan, handle = self.models.plan, self.models.get(case.build)
        own, other = _kernels(plan.deterministic)

        @cache
        def make() -> Clip:
            if plan.recipes[case.build.quantizer].steps == 0:
                return self.models.pool.rebuilt(case.build)
            with attention(own):  # to train again would take too long
                return handle.make()

        moved = ModelHandle(
            name=f"{handle.name} with other attention",
            key=digest("attention", other, handle.key),
            store=handle.store,
            make=make,
            full=handle.full,
        )
        needs = frozenset().union(*(registry.lookup(metric).needs for metric in metrics))
        with attention(other):
            return self.measurer.measure_model(moved, case, f"{case.quantization} with other attention", needs)


def _drifted(verdict: Verdict) -> bool:
    return verdict.outcome == "fail" and not verdict.problem


def _kernels(deterministic: bool) -> tuple[Attention, Attention]:
    """Return the kernel that a run computes with, and the other one."""
    return ("math", "chosen") if deterministic else ("chosen", "math")
