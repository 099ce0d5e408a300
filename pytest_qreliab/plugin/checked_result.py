"""The result as a test gets it: it can fail the test, and write itself down for JUnit."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.evaluator import Result
from pytest_qreliab.metrics import registry
from pytest_qreliab.report.failure_message import explain


@dataclass(frozen=True)
class CheckedResult(Result):
    """A result that knows the command that repeats the test it is given to."""

    repeat: str

    def check(self, aspect: str) -> None:
        """Fail the running test, with an explanation, if a gate of that aspect does not let the case pass.

        Raises InputError where the thresholds hold no gate of that aspect: a check of nothing is no pass.
        """
        verdicts = self.of(aspect)
        if not verdicts:
            raise InputError(f"{self.case.id}: the thresholds hold no {aspect} gate")
        violated = [verdict for verdict in verdicts if not verdict.passed]
        if violated:
            text = explain(self.case.id, violated, len(verdicts), self.samples, self.alpha, self.repeat)
            pytest.fail(text, pytrace=False)

    def properties(self, aspect: str | None) -> list[tuple[str, object]]:
        """Flat name-value pairs for JUnit XML, of one aspect's gates or of all."""
        pairs: list[tuple[str, object]] = [("qreliab.case", self.case.id)]
        for verdict in self.of(aspect):
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
        gated = {registry.canonical(verdict.gate.metric) for verdict in self.of(aspect)}
        for found in () if self.controls is None else self.controls.explanations:
            if found.metric in gated:
                pairs.append((f"{found.metric}.controls", found.conclusion))
        return pairs
