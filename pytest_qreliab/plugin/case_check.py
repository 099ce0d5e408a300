"""Results as tests get them: they can fail the test, and describe themselves for JUnit XML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from pytest_qreliab.config.cases import Case
from pytest_qreliab.config.text_forms import printable
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.measurement.comparison import Change
from pytest_qreliab.evaluation.result import Result
from pytest_qreliab.evaluation.verdicts.gates import Verdict
from pytest_qreliab.evaluation.verdicts.self_check import SelfCheck
from pytest_qreliab.metrics import registry
from pytest_qreliab.quantizers.inspection.coverage import Coverage
from pytest_qreliab.report.failure_message import explain
from pytest_qreliab.report.self_check import SelfCheckRecord


@dataclass
class CaseCheck:
    """The value of the fixture `qreliab_result`: a case, measured and judged."""

    result: Result
    repeat: str  # the command that repeats the test
    judged: bool = field(default=False, init=False)  # whether the test asked for anything to judge by

    @property
    def case(self) -> Case:
        """The case that was measured."""
        return self.result.case

    @property
    def changes(self) -> Mapping[str, Change]:
        """The change of every metric, by its name."""
        self.judged = True
        return self.result.changes

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdict of every gate."""
        self.judged = True
        return self.result.verdicts

    @property
    def coverage(self) -> Coverage | None:
        """The share of the model that is quantized; None for recorded outputs."""
        self.judged = True
        return self.result.coverage

    @property
    def samples(self) -> int:
        """The number of in-distribution samples."""
        return self.result.samples

    def check(self, aspect: str) -> None:
        """Fail the running test, with an explanation, if a gate of an aspect does not pass.

        The test is skipped if the thresholds let all gates of the aspect be skipped, and it fails if the thresholds let
        all gates of the case be skipped: a check of nothing is no pass.

        Raises:
            InputError: The thresholds hold no gate of that aspect.
        """
        verdicts, skipped = self.result.verdicts_for(aspect), self.result.skipped_for(aspect)
        if not verdicts and not skipped:
            raise InputError(f"{self.case.id}: the thresholds hold no {aspect} gate")
        if not self.verdicts:
            pytest.fail(f"nothing was judged of {self.case.id}: {_reasons(self.result.skipped)}", pytrace=False)
        if not verdicts:
            pytest.skip(f"not judged: {_reasons(skipped)}")
        violated = [verdict for verdict in verdicts if not verdict.passed]
        if violated:
            text = explain(
                self.case.id,
                violated,
                gates=len(verdicts),
                samples=self.samples,
                alpha=self.result.error_probability,
                repeat=self.repeat,
            )
            pytest.fail(text, pytrace=False)

    def properties(self, aspect: str | None) -> list[tuple[str, object]]:
        """Return flat pairs of name and value for JUnit XML.

        Args:
            aspect: The aspect whose gates are described; None for all gates.
        """
        pairs: list[tuple[str, object]] = [("qreliab.case", self.case.id)]
        verdicts = self.result.verdicts_for(aspect)
        for verdict in verdicts:
            name = printable(f"{verdict.gate.metric}.{verdict.gate.limit}")  # pytest escapes values alone
            pairs += [
                (f"{name}.baseline", verdict.baseline),
                (f"{name}.quantized", verdict.quantized),
                (f"{name}.harm", verdict.harm),
                (f"{name}.limit", verdict.gate.value),
                (f"{name}.verdict", verdict.outcome),
            ]
            if verdict.accepted is not None:
                pairs.append((f"{name}.accepted", verdict.accepted))
            if verdict.kernel_spread is not None:
                pairs.append((f"{name}.kernel_spread", verdict.kernel_spread))
        pairs += [
            (printable(f"{metric}.skipped"), reason) for metric, reason in self.result.skipped_for(aspect).items()
        ]
        if self.result.controls is not None:
            gated = {registry.canonical(verdict.gate.metric) for verdict in verdicts}
            pairs += [
                (printable(f"{explanation.metric}.controls"), explanation.conclusion)
                for explanation in self.result.controls.explanations
                if explanation.metric in gated
            ]
        return pairs


def _reasons(skipped: Mapping[str, str]) -> str:
    """Return why gates were not judged in one line."""
    return "; ".join(f"{metric}: {reason}" for metric, reason in skipped.items())


@dataclass
class CaseSelfCheck:
    """The value of the fixture `qreliab_self_check`: the gates of a case, tried where there is nothing to find."""

    findings: SelfCheck
    repeat: str  # the command that repeats the test
    judged: bool = field(default=False, init=False)  # whether the test asked for anything to judge by

    @property
    def replicates(self) -> int:
        """The number of pairs without a difference that the gates were tried on."""
        self.judged = True
        return self.findings.replicates

    def check(self) -> None:
        """Fail the running test, with an explanation, if the gates fail too often."""
        self.judged = True
        findings = self.findings
        if not findings.gates:
            left_out = ", ".join(findings.left_out) or "there are none but on the drift"
            pytest.fail(f"none of the gates of {findings.case.id} can be tried: {left_out}", pytrace=False)
        if findings.passed:
            return
        worst = sorted(findings.gates, key=lambda check: -check.false_failures)
        lines = [
            f"self-check: {findings.failed} of {findings.replicates} pairs that do not differ fail a gate, where "
            f"{findings.allowed:.1%} may",
            f"  case: {findings.case.id}, {findings.samples} samples",
            "",
            *(
                f"  {check.gate.metric}: {check.false_failures:.1%}; "
                f"{check.gate.limit} {check.gate.value:g}, {check.gate.where}"
                for check in worst
                if check.false_failures
            ),
            "",
            "  Their limits are too tight for so few samples: give more samples, or widen the limits.",
            f"  repeat: {self.repeat}",
        ]
        pytest.fail("\n".join(lines), pytrace=False)

    def record(self) -> SelfCheckRecord:
        """Return the findings as plain scalars, which can travel between processes."""
        findings = self.findings
        return SelfCheckRecord(
            case=findings.case.id,
            samples=findings.samples,
            device=findings.device,
            replicates=findings.replicates,
            failed=findings.failed,
            allowed=findings.allowed,
            passed=findings.passed,
            gates=[
                (check.gate.metric, check.gate.limit, check.gate.value, check.false_failures, check.detectable)
                for check in findings.gates
            ],
            left_out=list(findings.left_out),
        )
