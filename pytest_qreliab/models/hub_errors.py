"""Explain in words why something cannot be had from the Hugging Face hub."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_qreliab.errors import describe_exception

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"

# Errors are known by the names of their classes: they come from huggingface_hub, which moved them between modules, from
# httpx or requests, whichever it is built on, and from Python.
_TIMEOUTS = {"TimeoutException", "Timeout", "TimeoutError"}
_TORN = {"RemoteProtocolError", "ReadError", "ProtocolError", "ChunkedEncodingError", "IncompleteRead"}
_UNREACHABLE = {"TransportError", "ConnectionError", "URLError"}


@dataclass(frozen=True)
class HubProblem:
    """The reason of a failure, and how to mend it."""

    text: str
    unreachable: bool = False  # whether the hub gave no answer, so that what was known before may still be true


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The request to a hub, as its error messages need it."""

    repository: str
    page: str  # the address that a browser opens
    revision: str
    endpoint: str


def explain(error: BaseException, asked: Asked) -> HubProblem:
    """Say what went wrong when a hub was asked for something, and what mends it.

    Args:
        error: Of any kind. The errors that caused it count as well.
        asked: What the hub was asked for.
    """
    for cause in _causes(error):
        problem = _of_status(cause, asked) or _of_connection(cause, asked)
        if problem is not None:
            return problem
    return HubProblem(describe_exception(error))


def _of_status(error: BaseException, asked: Asked) -> HubProblem | None:
    """Explain an answer that is an error; None if the hub gave no such answer."""
    names = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    if "GatedRepoError" in names:
        return HubProblem(
            f"it is gated: its owner decides who may download it (HTTP {status}); accept the terms at {asked.page}, "
            f"and {LOG_IN}"
        )
    if "RepositoryNotFoundError" in names:
        return HubProblem(
            f"there is no repository {asked.repository} at {asked.endpoint}, or it is private (HTTP {status}); check "
            f"the spelling, and if it is private {LOG_IN}"
        )
    if "RevisionNotFoundError" in names:
        return HubProblem(
            f"the repository has no revision {asked.revision!r}; give a branch, a tag or a commit of 40 hexadecimal "
            f"digits of {asked.page}"
        )
    if status in (401, 403):
        return HubProblem(f"{asked.endpoint} does not let you in (HTTP {status}); {LOG_IN}")
    if isinstance(status, int) and status >= 400:
        unreachable = status == 429 or status >= 500
        mend = "try again later" if unreachable else "check HF_ENDPOINT, if it is set"
        return HubProblem(f"{asked.endpoint} answered with HTTP {status}; {mend}", unreachable)
    return None


def _of_connection(error: BaseException, asked: Asked) -> HubProblem | None:
    """Explain why there was no whole answer; None if the reason is another one."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if "OfflineModeIsEnabled" in names:
        return HubProblem(
            "it is not in the cache of this machine, and HF_HUB_OFFLINE forbids to download it; unset HF_HUB_OFFLINE, "
            "or bring a filled HF_HOME",
            unreachable=True,
        )
    if names & _TIMEOUTS:
        return HubProblem(
            f"{asked.endpoint} did not answer in time; check the network, or allow more seconds by HF_HUB_ETAG_TIMEOUT "
            "and HF_HUB_DOWNLOAD_TIMEOUT",
            unreachable=True,
        )
    if names & _TORN or "Consistency check failed" in str(error):
        return HubProblem("the download broke off; check the network, and run again")
    if names & _UNREACHABLE or isinstance(error, socket.gaierror):
        *_, innermost = _causes(error)
        reason = " ".join(str(innermost).split())[:120]
        return HubProblem(
            f"{asked.endpoint} cannot be reached ({reason}); check the network, the proxy (HTTPS_PROXY) and "
            "HF_ENDPOINT, or bring a filled HF_HOME",
            unreachable=True,
        )
    if isinstance(error, OSError) and error.errno is not None:
        return HubProblem(f"it cannot be stored: {error.strerror}{f': {error.filename}' if error.filename else ''}")
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it came from, the outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
