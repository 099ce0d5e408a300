"""Sessions, as pytest would make them, and a result."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch):
    for name in [name for name in os.environ if name.startswith("QRELIAB_") or name == "GITHUB_STEP_SUMMARY"]:
        monkeypatch.delenv(name)


@pytest.fixture
def make_session(pytester, small_benchmark):
    """Makes the session of a run on the small benchmark with these arguments, without running it."""
    from pytest_qreliab.plugin.options import read_settings
    from pytest_qreliab.plugin.session import Session

    def make(*args: str):
        config = pytester.parseconfig(f"--qreliab-benchmarks={small_benchmark}", *args)
        return Session(config, read_settings(config))

    return make


@pytest.fixture(scope="session")
def small_result(make_plan, small_benchmark):
    """The embedded model at w8 on the small benchmark."""
    from pytest_qreliab.evaluation.evaluator import Evaluator

    plan = make_plan(bits="w8", benchmarks=str(small_benchmark))
    return Evaluator(plan).result(plan.cases[0])
