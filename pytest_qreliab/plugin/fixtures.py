"""The fixtures: a case with its result, and the two models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pytest_qreliab.errors import InputError
from pytest_qreliab.plugin.state import CHECK, PROBLEM, PROBLEMS, SELF_CHECK, get_session

if TYPE_CHECKING:
    from pytest_qreliab.config.cases import Build, Case
    from pytest_qreliab.evaluation.model_pool import QuantizedClip
    from pytest_qreliab.models.clip import Clip
    from pytest_qreliab.plugin.case_check import CaseCheck, CaseSelfCheck


@pytest.fixture
def qreliab_case() -> Case:
    """Return the case under test: model, quantizer, bits, scope and benchmark.

    The test runs once for each case.
    """
    raise pytest.UsageError("qreliab_case is set by parametrization; it cannot be requested dynamically")


@pytest.fixture
def qreliab_result(request: pytest.FixtureRequest, qreliab_case: Case) -> CaseCheck:
    """Measure the case against its baseline, and judge it.

    `check(aspect)` of the result fails the test by its gates.
    """
    from pytest_qreliab.plugin.case_check import CaseCheck

    session = get_session(request.config)
    with _readable_errors(request):
        result = session.evaluator.result(qreliab_case)
    check = CaseCheck(result, session.repeat.command(request.node.nodeid))
    request.node.stash[CHECK] = check
    return check


@pytest.fixture
def qreliab_self_check(request: pytest.FixtureRequest, qreliab_case: Case) -> CaseSelfCheck:
    """Try the gates of the case on pairs that do not differ.

    `check()` of the result fails the test if the gates fail too often.
    """
    from pytest_qreliab.plugin.case_check import CaseSelfCheck

    session = get_session(request.config)
    with _readable_errors(request):
        findings = session.evaluator.self_check(qreliab_case)
    check = CaseSelfCheck(findings, session.repeat.command(request.node.nodeid))
    request.node.stash[SELF_CHECK] = check
    return check


@pytest.fixture
def quantized_clip(request: pytest.FixtureRequest, _qreliab_build: Build) -> QuantizedClip:
    """Return the quantized model, on the device.

    The test runs once for each model, quantizer, bits and scope.
    """
    with _readable_errors(request):
        return get_session(request.config).evaluator.quantized(_qreliab_build)


@pytest.fixture
def baseline_clip(request: pytest.FixtureRequest, _qreliab_model: str) -> Clip:
    """Return the full-precision model, on the device.

    The test runs once for each model.
    """
    with _readable_errors(request):
        return get_session(request.config).evaluator.baseline(_qreliab_model)


@contextmanager
def _readable_errors(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test with a message and without a traceback if the user's input cannot be used.

    The message is printed once. Other tests with the same problem name the test that has it.
    """
    try:
        yield
    except InputError as error:
        message = str(error)
        request.node.stash[PROBLEM] = message
        first = request.config.stash.setdefault(PROBLEMS, {}).setdefault(message, request.node.nodeid)
        if first != request.node.nodeid:
            message = f"no result, for the reason that {first} gives"
        # Without a context, which pytest would print as well.
        raise pytest.fail.Exception(message, pytrace=False) from None
