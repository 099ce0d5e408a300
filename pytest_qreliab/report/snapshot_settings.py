"""The settings of the snapshot: its folder and its update."""

from __future__ import annotations

import os

from pytest_qreliab.config.settings import Setting
from pytest_qreliab.errors import InputError, unknown
from pytest_qreliab.report.snapshot import UPDATE, Snapshot, Update, load

IN_CI = "ci"  # after an update, allows it where the variable CI is set
UPDATES: tuple[Update, ...] = ("none", "new", "all")


def select_snapshot(folder: Setting, update: Setting) -> Snapshot | None:
    """Return the snapshot of the settings; None without one.

    Raises:
        InputError: The folder cannot be read, or the update is refused.
    """
    (value,) = folder.values(many=False)
    wanted = _parse_update(update)
    if value.text == "none":
        if wanted != "none":
            raise InputError(f"{update.origin}: there is no snapshot to update; name one with --qreliab-snapshot=DIR")
        return None
    path = value.path()
    if path.exists() and not path.is_dir():
        raise InputError(f"{value.origin}: {path} is a file; give a folder, which need not exist yet")
    if wanted == "none" and not path.exists():
        raise InputError(f"{value.origin}: {path} does not exist; accept this run's results with {UPDATE}=new")
    return load(path, wanted)


def _parse_update(setting: Setting) -> Update:
    """Return the update that is wanted, if it is allowed here."""
    texts = [value.text for value in setting.values(many=True)]
    wanted = [text for text in texts if text != IN_CI]
    update = next((update for update in UPDATES if [update] == wanted), None)
    if update is None:
        error = unknown("update", setting.text, UPDATES)
        raise InputError(f"{setting.origin}: {error}; with ,{IN_CI} behind it also where the variable CI is set")
    in_ci = os.environ.get("CI", "").strip().lower() not in ("", "0", "false", "no")
    if update != "none" and in_ci and IN_CI not in texts:
        raise InputError(
            f"{setting.origin}: nothing is accepted in CI (the variable CI is set) by mistake: accept where you can "
            f"look at the changes and commit them, or write {UPDATE}={update},{IN_CI}"
        )
    return update
