"""The accepted values of a case, as a snapshot holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pytest_qreliab.config.cases import Case


@dataclass(frozen=True, kw_only=True)
class AcceptedValues:
    """The quantized values of a case that a snapshot holds."""

    values: Mapping[str, float]  # by canonical name of the metric
    where: str  # the name of the snapshot, for messages
    renewing: bool = False  # whether values that are not there are about to be accepted
    comparable: bool = True  # whether the accepted values were measured on the same data


class AcceptedResults(Protocol):
    """The results of an accepted release, which the evaluator asks for what it needs."""

    def accepted(self, case: Case, data: Mapping[str, str]) -> AcceptedValues:
        """Return the accepted values of a case.

        Args:
            case: The case that is measured.
            data: The data that it is measured on now, in words.
        """
        ...

    def differences(self, case: Case, data: Mapping[str, str], environment: Mapping[str, str]) -> list[str]:
        """Say what was different when a case was accepted.

        Args:
            case: The case that is measured.
            data: The data that it is measured on now, in words.
            environment: The versions and the hardware that it is measured with now, in words.
        """
        ...
