"""What a hub may do wrong, and what is asked of it: in this process, of a stand-in."""

import socket
import time
from types import SimpleNamespace

import pytest

from pytest_qreliab.errors import InputError
from pytest_qreliab.models import hub as hubs
from pytest_qreliab.models.hub import Access, NotDownloadedError, Reference

WEIGHTS = b"weights " * 400
REFERENCE = Reference("org/name")


@pytest.fixture
def repository(hub, monkeypatch):
    from huggingface_hub import file_download

    # Its own retries wait for seconds.
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda seconds: None))
    hub.repositories["models/org/name"] = {"config.json": b"{}", "weights.bin": WEIGHTS}
    return hub


def fetch(reference=REFERENCE, file="weights.bin", **allowed):
    with hubs.access(Access(**allowed)):
        return hubs.fetch_file(reference, hubs.find_commit(reference), file)


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def test_a_file_is_downloaded_once(repository):
    path = fetch()
    assert path.read_bytes() == WEIGHTS
    assert path.parent.name == repository.commit("models/org/name")
    repository.requests.clear()
    assert fetch() == path
    assert repository.requests == ["GET /api/models/org/name/revision/main"]


def test_a_pinned_commit_is_asked_for_once_and_what_it_lacks_is_remembered(repository):
    pinned = Reference("org/name", repository.commit("models/org/name"))
    assert fetch(pinned).read_bytes() == WEIGHTS
    assert fetch(pinned, "more.bin") is None
    assert not any("/api/" in request for request in repository.requests)
    repository.requests.clear()
    assert fetch(pinned) is not None
    assert fetch(pinned, "more.bin") is None
    assert repository.requests == []


def test_a_branch_that_moved_is_followed_to_its_new_commit(repository):
    before = fetch()
    repository.repositories["models/org/name"]["weights.bin"] = b"other"
    after = fetch()
    assert (before.read_bytes(), after.read_bytes()) == (WEIGHTS, b"other")
    assert fetch(network=False) == after


def test_a_commit_that_another_process_found_is_not_asked_for(repository):
    commit = hubs.find_commit(REFERENCE)
    repository.repositories["models/org/name"]["weights.bin"] = b"other"
    repository.requests.clear()
    with hubs.access(Access(commits={str(REFERENCE): (commit, "said before")})):
        assert hubs.find_commit(REFERENCE) == commit
        assert hubs.commit_warning(REFERENCE) == "said before"
    assert repository.requests == []


@pytest.mark.parametrize("known", [False, True], ids=["nothing known", "commit known"])
def test_nothing_is_asked_if_the_network_is_not_allowed(repository, known):
    if known:
        hubs.find_commit(REFERENCE)
    repository.requests.clear()
    with pytest.raises(NotDownloadedError, match=r"model org/name@main is not downloaded yet.*check --download"):
        fetch(network=False)
    assert repository.requests == []


FILE, INFO = "GET .*weights", "/api/models"
MISSING = {"status": 404, "code": "RevisionNotFound"}


@pytest.mark.parametrize(
    ("pattern", "fault", "message"),
    [
        (INFO, {"status": 401, "code": "RepoNotFound"}, "no repository org/name at http.*401.*spelling.*log in"),
        (INFO, {"status": 404, "code": "RepoNotFound"}, "no repository org/name at http.*404"),
        (INFO, MISSING, "the repository has no revision 'main'; give a branch, a tag or a commit"),
        (INFO, {"status": 403}, "does not let you in .HTTP 403.; log in with `hf auth login`, or set HF_TOKEN"),
        (INFO, {"status": 503}, "answered with HTTP 503; try again later"),
        (INFO, {"status": 429}, "answered with HTTP 429; try again later"),
        ("HEAD", {"status": 401, "code": "GatedRepo"}, "it is gated.*401.*terms at http.*/org/name, and log in"),
        ("HEAD", {"status": 403, "code": "GatedRepo"}, "it is gated.*403.*accept the terms"),
        ("HEAD", {"status": 500}, "answered with HTTP 500"),
        (FILE, {"status": 403}, "does not let you in"),
        (FILE, {"cut": 0}, "the download broke off; check the network, and run again"),
        (FILE, {"flip": True}, "what came as weights.bin has another SHA-256 than the hub tells, .*run again.*proxy"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_every_fault_is_one_message_with_its_cause_and_its_remedy(repository, pattern, fault, message):
    repository.faults[pattern] = fault
    with pytest.raises(InputError, match=f"^model org/name@main: .*{message}") as raised:
        fetch()
    assert "\n" not in str(raised.value)
    repository.faults.clear()
    assert fetch().read_bytes() == WEIGHTS, "what came damaged is not kept"


def test_a_hub_that_does_not_answer_is_not_waited_for(repository, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    repository.faults["HEAD"] = {"delay": 1}
    started = time.monotonic()
    with pytest.raises(InputError, match=r"did not answer in time; .*HF_HUB_ETAG_TIMEOUT"):
        fetch()
    assert time.monotonic() - started < 5


@pytest.fixture
def unreachable(hub, monkeypatch):
    from huggingface_hub import constants

    def leave(how):
        if how == "offline":
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
            return
        endpoint = f"http://127.0.0.1:{free_port()}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )

    return leave


WHY = {
    "offline": r"it is not in the cache of this machine, and HF_HUB_OFFLINE forbids to download it; unset",
    "refused": r"http://127.0.0.1:\d+ cannot be reached .*refused.*check the network, the proxy .*HF_ENDPOINT",
}


@pytest.mark.parametrize("how", WHY)
@pytest.mark.parametrize("revision", ["main", "0" * 40], ids=["branch", "commit"])
def test_without_a_hub_and_with_an_empty_cache_the_reason_is_told(unreachable, how, revision):
    unreachable(how)
    started = time.monotonic()
    with pytest.raises(InputError, match=f"^model org/name@{revision}: {WHY[how]}"):
        fetch(Reference("org/name", revision))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(("how", "why"), [("offline", "HF_HUB_OFFLINE is set"), ("refused", "cannot be reached")])
def test_without_a_hub_the_commit_of_before_is_taken_with_a_warning(repository, unreachable, how, why):
    path, commit = fetch(), repository.commit("models/org/name")
    unreachable(how)
    with hubs.access(Access()):
        assert hubs.fetch_file(REFERENCE, hubs.find_commit(REFERENCE), "weights.bin") == path
        assert f"whether {commit[:12]} is still the newest commit is not known" in hubs.commit_warning(REFERENCE)
        assert why in hubs.commit_warning(REFERENCE)


def test_the_bytes_that_come_are_counted_and_no_bar_is_drawn(repository, capfd):
    from contextlib import contextmanager

    seen = []

    @contextmanager
    def show(what, size):
        seen.append((what, size))
        yield seen.append

    fetch(show=show)
    assert seen[0] == ("org/name weights.bin", len(WEIGHTS))
    assert sum(seen[1:]) == len(WEIGHTS)
    assert capfd.readouterr() == ("", "")
