"""The rows of a data set of the Hugging Face hub at one commit, from this machine if they are there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_qreliab.data.images import HubOrigin
from pytest_qreliab.errors import InputError
from pytest_qreliab.models import hub
from pytest_qreliab.models.hub import Reference


@dataclass(frozen=True)
class HubRows:
    """The rows of a data set, and where they come from."""

    rows: Any  # a Dataset of the package `datasets`, or one for each split
    origin: HubOrigin | None = None  # None for rows of this machine


def load_rows(reference: Reference, config: str | None, split: str | None) -> HubRows:
    """Load the rows of a data set of the hub.

    The package `datasets` falls back to whatever commit it has if anything goes wrong. Here the commit is found first,
    and no other is taken. What was loaded before is read without a request.

    Raises:
        NotDownloadedError: It is not on this machine, and the hub may not be asked.
        InputError: It cannot be downloaded.
    """
    commit = hub.find_commit(reference)
    rows = _cached(reference, commit, config, split)
    if rows is None:
        rows = _download(reference, commit, config, split)
    return HubRows(rows, HubOrigin(reference.name, commit, hub.commit_warning(reference)))


def _download(reference: Reference, commit: str, config: str | None, split: str | None) -> Any:
    import datasets

    allowed = hub.require_network(reference)
    try:
        with hub.quiet(), hub.quiet("datasets", datasets), allowed.show(str(reference), None) as advance:
            rows = datasets.load_dataset(reference.name, config, split=split, revision=commit)
            first = rows if split is not None else next(iter(rows.values()))
            advance(int(first.download_size or 0))
    except Exception as error:  # network, disk, names, formats: the library raises whatever it comes across
        raise reference.error(error) from None
    if not all(commit in Path(file["filename"]).parts for file in first.cache_files):
        raise reference.error(
            f"commit {commit[:12]} cannot be loaded; `datasets` fell back to another, which was not asked for"
        )
    try:
        hub.verify_files(reference, commit)
    except InputError:
        for file in first.cache_files:
            shutil.rmtree(Path(file["filename"]).parent, ignore_errors=True)
        raise
    return rows


def _cached(reference: Reference, commit: str, config: str | None, split: str | None) -> Any:
    """Return the rows that were loaded before; None if there are none, or it is not clear which are meant."""
    import datasets

    folders = [
        folder
        for folder in Path(datasets.config.HF_DATASETS_CACHE).expanduser().glob(f"*/*/*/{commit}")
        if config is None or folder.parts[-3] == config
    ]
    if len(folders) != 1:
        return None
    name, version = folders[0].parts[-3:-1]
    try:
        from datasets.packaged_modules.cache.cache import Cache

        with hub.quiet("datasets", datasets):
            last = reference.name.rpartition("/")[2]
            cache = Cache(repo_id=reference.name, dataset_name=last, config_name=name, version=version, hash=commit)
            return cache.as_dataset(split=split)
    except Exception:  # another version of the library: it is loaded once more
        return None


def reference_of(name: str, revision: str | None) -> Reference:
    """Return the data set that a name and a revision mean.

    Raises:
        InputError: The revision cannot be one.
    """
    if revision is not None and not hub.REVISION.fullmatch(revision):
        raise InputError(f"data set {name}: {revision!r} is no revision; write a branch, a tag or a commit")
    return Reference(name, revision or hub.MAIN, "dataset")
