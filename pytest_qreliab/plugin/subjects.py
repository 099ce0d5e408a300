"""The case, the build or the model of a test, found in the test's id."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_qreliab.evaluation.planning.plan import Plan

# Bits between slashes, as in a parametrized test's id.
_CASE_LIKE = re.compile(r"\[.*/(?:w\d|[a-z]*fp\d|bf\d)[^/]*(?:/|\])")


def may_be_of_cases(nodeids: Iterable[str]) -> bool:
    """Return whether any id looks like that of a reliability test, whatever the plan is."""
    return any(_CASE_LIKE.search(nodeid) for nodeid in nodeids)


class Subjects:
    """The cases, builds and models that the tests of a plan are about.

    Args:
        plan: The plan; None if there is none, so that no test is about anything.
    """

    def __init__(self, plan: Plan | None) -> None:
        self.scopes: dict[str, str] = {}  # the build of each case, or the model, by the id in a test's id
        self.models: dict[str, str] = {}  # the model of each of these
        for case in () if plan is None else plan.cases:
            build = case.build
            self.scopes |= {case.id: build.id, build.id: build.id, build.model: build.model}
            self.models |= {build.id: build.model, build.model: build.model}
        # Ids of a further parametrization may stand before and after, with a hyphen between.
        ids = "|".join(re.escape(name) for name in sorted(self.scopes, key=len, reverse=True))
        self._ids = re.compile(rf"(?<=[\[-])(?:{ids})(?=[\]-])")

    def find(self, nodeid: str) -> str | None:
        """Return the id of the case, build or model of a test; None for a test that is not the plugin's."""
        ids: list[str] = self._ids.findall(nodeid, max(nodeid.find("::"), 0)) if self.scopes else []
        return max(ids, key=len, default=None)
