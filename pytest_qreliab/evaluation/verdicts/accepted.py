"""The accepted values of a case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pytest_qreliab.config.cases import Case


@dataclass(frozen=True)
class AcceptedValues:
    """The quantized values of a case that a snapshot holds, by metric; `where` names it.

    `renewing` says that values which are not there are about to be accepted, `comparable` that those which are were
    measured on the same data.
    """

    values: Mapping[str, float]
    where: str
    renewing: bool = False
    comparable: bool = True


class AcceptedResults(Protocol):
    """What the evaluator asks of the results of an accepted release."""

    def accepted(self, case: Case, data: Mapping[str, str]) -> AcceptedValues:
        """Return the values that a case is held against if it is measured on that data."""
        ...

    def differences(self, case: Case, data: Mapping[str, str], environment: Mapping[str, str]) -> list[str]:
        """Say what a case was accepted with and is not measured with now."""
        ...
