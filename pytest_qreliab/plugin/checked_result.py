"""The result as a test gets it: it can fail the test, and write itself down for JUnit."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.result import Result
from pytest_qreliab.evaluation.verdicts.self_check import SelfCheck
from pytest_qreliab.metrics import registry
from pytest_qreliab.report.failure_message import explain
from pytest_qreliab.report.self_check import SelfCheckRecord


@dataclass(frozen=True)
class CheckedResult(Result):
    """A result that knows the command that repeats the test it is given to."""

    repeat: str

    def check(self, aspect: str) -> None:
        """Fail the running test, with an explanation, if a gate of that aspect does not let the case pass.

        Raises InputError where the thresholds hold no gate of that aspect: a check of nothing is no pass.
        """
        verdicts = self.verdicts_for(aspect)
        if not verdicts:
            raise InputError(f"{self.case.id}: the thresholds hold no {aspect} gate")
        violated = [verdict for verdict in verdicts if not verdict.passed]
        if violated:
            text = explain(self.case.id, violated, len(verdicts), self.samples, self.alpha, self.repeat)
            pytest.fail(text, pytrace=False)

    def properties(self, aspect: str | None) -> list[tuple[str, object]]:
        """Flat name-value pairs for JUnit XML, of one aspect's gates or of all."""
        pairs: list[tuple[str, object]] = [("qreliab.case", self.case.id)]
        for verdict in self.verdicts_for(aspect):
            name = f"{verdict.gate.metric}.{verdict.gate.limit}"
            pairs += [
                (f"{name}.baseline", verdict.baseline),
                (f"{name}.quantized", verdict.quantized),
                (f"{name}.harm", verdict.harm),
                (f"{name}.limit", verdict.gate.value),
                (f"{name}.verdict", verdict.outcome),
            ]
            if verdict.accepted is not None:
                pairs.append((f"{name}.accepted", verdict.accepted))
        gated = {registry.canonical(verdict.gate.metric) for verdict in self.verdicts_for(aspect)}
        for found in () if self.controls is None else self.controls.explanations:
            if found.metric in gated:
                pairs.append((f"{found.metric}.controls", found.conclusion))
        return pairs


@dataclass(frozen=True)
class CheckedSelfCheck(SelfCheck):
    """A self-check that knows the command that repeats the test it is given to."""

    repeat: str

    def check(self) -> None:
        """Fail the running test, with an explanation, if the gates fail too often where there is nothing to find."""
        if self.passed:
            return
        worst = sorted(self.gates, key=lambda of: -of.false_failures)
        lines = [
            f"self-check: {self.failed} of {self.replicates} pairs that do not differ fail a gate, where "
            f"{self.allowed:.1%} may",
            f"  case: {self.case.id}, {self.samples} samples",
            "",
            *(
                f"  {of.gate.metric}: {of.false_failures:.1%}; {of.gate.limit} {of.gate.value:g}, {of.gate.where}"
                for of in worst
                if of.false_failures
            ),
            "",
            "  Their limits are too tight for so few samples: give more samples, or widen the limits.",
            f"  repeat: {self.repeat}",
        ]
        pytest.fail("\n".join(lines), pytrace=False)

    def entry(self) -> SelfCheckRecord:
        """The part that the table shows."""
        return SelfCheckRecord(
            case=self.case.id,
            samples=self.samples,
            device=self.device,
            replicates=self.replicates,
            failed=self.failed,
            allowed=self.allowed,
            passed=self.passed,
            gates=[
                (of.gate.metric, of.gate.limit, of.gate.value, of.false_failures, of.detectable) for of in self.gates
            ],
            left_out=list(self.left_out),
        )
