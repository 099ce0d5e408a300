"""Repositories of the Hugging Face hub: which commit a name stands for, and its files.

All is found out before a run, and by one process of it. What comes after reads files, and asks no network.
"""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pytest_qreliab.errors import InputError
from pytest_qreliab.models.hub_errors import Asked, HubProblem, explain

MAIN = "main"  # the branch that is meant if no revision is named
COMMIT = re.compile(r"[0-9a-f]{40}")
REVISION = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", re.ASCII)  # a path below refs/ as well
SHA256 = re.compile(r"[0-9a-f]{64}")

# From what is downloaded and its bytes, None if they are not known, to a context in which bytes that came are counted.
Show = Callable[[str, "int | None"], AbstractContextManager[Callable[[int], None]]]


def silent(what: str, size: int | None) -> AbstractContextManager[Callable[[int], None]]:
    """Return a context that shows nothing."""
    return nullcontext(lambda done: None)


class NotDownloadedError(InputError):
    """Something of a hub that is not on this machine yet, if nothing may be downloaded."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """The permission to ask a hub, and the answers that are known already."""

    network: bool = True
    show: Show = silent  # shows what is downloaded
    # The commit that each reference stands for, empty if it is not known, and a warning or an empty text. Whoever finds
    # one adds it: the processes that a run starts are given these, so that all measure the same commit.
    commits: dict[str, tuple[str, str]] = field(default_factory=dict)


_ACCESS: ContextVar[Access | None] = ContextVar("access to hubs", default=None)


@contextmanager
def access(allowed: Access) -> Iterator[Access]:
    """Let what follows ask hubs for no more than this."""
    before = _ACCESS.set(allowed)
    try:
        yield allowed
    finally:
        _ACCESS.reset(before)


@dataclass(frozen=True)
class Reference:
    """A repository, and what is meant of it: a branch, a tag or a commit."""

    name: str  # ORGANISATION/NAME
    revision: str = MAIN
    kind: Literal["model", "dataset"] = "model"

    def __str__(self) -> str:
        return f"{'data set' if self.kind == 'dataset' else self.kind} {self.name}@{self.revision}"

    @property
    def asked(self) -> Asked:
        """The reference as error messages need it."""
        from huggingface_hub import constants

        endpoint = constants.ENDPOINT
        page = f"{endpoint}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"
        return Asked(repository=self.name, page=page, revision=self.revision, endpoint=endpoint)

    def error(self, error: BaseException | str) -> InputError:
        """Return the message of an error that keeps the repository from being used."""
        return InputError(f"{self}: {explain(error, self.asked).text if isinstance(error, BaseException) else error}")


def find_commit(reference: Reference, *, renew: bool = True) -> str:
    """Return the commit that a reference stands for, 40 hexadecimal digits.

    A commit stands for itself, and nobody is asked. For a branch or tag the hub is asked once, by one process of a run.
    If it gives no answer, the commit that it had when it was asked last is taken, with a warning.

    Args:
        reference: A repository, and what is meant of it.
        renew: Whether the hub is asked although it was asked in an earlier run.

    Raises:
        NotDownloadedError: The commit is not known, and the hub may not be asked.
        InputError: The hub gives no commit.
    """
    if COMMIT.fullmatch(reference.revision):
        return reference.revision
    allowed = _ACCESS.get() or Access()
    key = str(reference)
    if not allowed.commits.get(key, ("", ""))[0]:
        known = "" if renew and allowed.network else _known_commit(reference)
        allowed.commits[key] = _ask(reference) if allowed.network and not known else (known, "")
    commit, _ = allowed.commits[key]
    if not commit:
        raise _not_downloaded(reference)
    return commit


def commit_warning(reference: Reference) -> str:
    """Return a warning if the commit that was found may not be the newest; empty if there is nothing to say."""
    allowed = _ACCESS.get()
    return "" if allowed is None else allowed.commits.get(str(reference), ("", ""))[1]


def fetch_file(reference: Reference, commit: str, file: str) -> Path | None:
    """Return the path of a file of a repository in the cache of this machine, after downloading it if need be.

    A file that was fetched before is not asked for again, nor is one that the commit was found not to have.

    Args:
        reference: The repository.
        commit: 40 hexadecimal digits.
        file: The path of the file in the repository.

    Returns:
        The path, None if the commit has no such file.

    Raises:
        NotDownloadedError: The file is not here, and the hub may not be asked.
        InputError: The file cannot be downloaded, or what came is not what the hub has.
    """
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(reference.name, file, revision=commit, repo_type=reference.kind)
    if found is not None:  # a path, or the sign that there is no such file
        return Path(found) if isinstance(found, str) else None
    allowed = require_network(reference)
    try:
        with quiet():
            downloaded = _download(reference, commit, file, allowed.show)
    except Exception as error:  # network, disk, server: whatever the libraries come across
        raise reference.error(error) from None
    if downloaded is None:
        return None
    path, told = downloaded
    _verify(reference, path, told)
    return path


def verify_files(reference: Reference, commit: str) -> None:
    """Raise InputError, and forget the file, if one in the cache has another content than the hub tells."""
    for path in (_folder(reference) / "snapshots" / commit).rglob("*"):
        if path.is_symlink():
            _verify(reference, path, path.readlink().name)


def require_network(reference: Reference) -> Access:
    """Return what may be asked of the hub, or raise NotDownloadedError if nothing may be."""
    allowed = _ACCESS.get() or Access()
    if not allowed.network:
        raise _not_downloaded(reference)
    return allowed


def list_files(reference: Reference, commit: str) -> list[str]:
    """Return the paths of all files of a commit; empty if the hub does not tell."""
    from huggingface_hub import HfApi

    try:
        with quiet():
            return sorted(HfApi().list_repo_files(reference.name, revision=commit, repo_type=reference.kind))
    except Exception:  # it only serves an error message
        return []


@contextmanager
def quiet(library: str = "huggingface_hub", switches: Any = None) -> Iterator[None]:
    """Keep a library of Hugging Face from drawing bars, and from writing of what an error will say.

    Args:
        library: The library.
        switches: Its module with the functions that turn its bars on and off, by default huggingface_hub's.
    """
    if switches is None:
        from huggingface_hub import utils as switches

    logger = logging.getLogger(library)
    level, bars = logger.level, not switches.are_progress_bars_disabled()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logger.setLevel(logging.CRITICAL)
            switches.disable_progress_bars()  # warns if the environment forbids it
            yield
    finally:
        logger.setLevel(level)
        if bars:
            switches.enable_progress_bars()


def _ask(reference: Reference) -> tuple[str, str]:
    """Ask the hub for the commit of a branch or tag, and remember it. Return it with a warning, or an empty text."""
    from huggingface_hub import HfApi, constants

    known = _known_commit(reference)
    try:
        with quiet():
            told = HfApi().repo_info(
                reference.name,
                revision=reference.revision,
                repo_type=reference.kind,
                timeout=constants.HF_HUB_ETAG_TIMEOUT,
            )
    except Exception as error:
        problem: HubProblem = explain(error, reference.asked)
        if not (problem.unreachable and known):
            raise reference.error(problem.text) from None
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else problem.text.partition(";")[0]
        return known, f"{reference}: whether {known[:12]} is still the newest commit is not known: {why}"
    commit = str(told.sha)
    if commit != known:
        path = _ref(reference)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit, encoding="utf-8")
    return commit, ""


def _known_commit(reference: Reference) -> str:
    """Return the commit that a branch or tag had when the hub was asked last; empty if it never was."""
    try:
        return _ref(reference).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _ref(reference: Reference) -> Path:
    """Return the file in which huggingface_hub, too, keeps the commit of a branch or tag."""
    return _folder(reference) / "refs" / reference.revision


def _folder(reference: Reference) -> Path:
    """Return the folder of a repository in the cache of huggingface_hub."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=reference.name, repo_type=reference.kind))


def _verify(reference: Reference, path: Path, told: str) -> None:
    """Raise InputError, and forget the file, if its SHA-256 is not the one that the hub tells.

    The hub tells that of large files, and huggingface_hub calls them by it, but looks at the number of bytes alone.
    """
    from pytest_qreliab.hashing import file_digest  # imports NumPy, which `qreliab list` does without

    if not SHA256.fullmatch(told) or file_digest(path, sha256=True) == told:
        return
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    raise reference.error(
        f"what came as {path.name} has another SHA-256 than the hub tells, {told[:12]}...; run again, and if it stays "
        "so, look for what changes files on the way, such as a proxy or a mirror"
    )


def _download(reference: Reference, commit: str, file: str, show: Show) -> tuple[Path, str] | None:
    """Download a file, and return its path and its digest on the hub, or None if there is no such file.

    Raises whatever the libraries raise.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    options: dict[str, Any] = {"revision": commit, "repo_type": reference.kind}
    url = hf_hub_url(reference.name, file, **options)
    try:
        # Asked first, because hf_hub_download tries for a minute if nobody answers, and then tells less.
        told = get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except EntryNotFoundError:
        with suppress(EntryNotFoundError):  # which remembers that there is none
            hf_hub_download(reference.name, file, **options)
        return None
    with show(f"{reference.name} {file}", told.size) as advance:
        counts = "tqdm_class" in inspect.signature(hf_hub_download).parameters  # not in huggingface_hub 1.0
        if counts:
            options["tqdm_class"] = _counting(advance)
        path = Path(hf_hub_download(reference.name, file, **options))
        advance(0 if counts else told.size or 0)
        return path, told.etag or ""


def _counting(advance: Callable[[int], None]) -> type:
    """Return a class of progress bars that draw nothing and count bytes."""
    from tqdm import tqdm

    class Counting(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            advance(int(n or 0))

    return Counting


def _not_downloaded(reference: Reference) -> NotDownloadedError:
    return NotDownloadedError(
        f"{reference} is not downloaded yet, and nothing is asked of the network here; a run does it, and so does "
        "`qreliab check --download`"
    )
