"""The outputs of a run: results in JSON and HTML, a summary on GitHub, and accepted results."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_qreliab.errors import InputError, describe_exception

if TYPE_CHECKING:
    from pytest_qreliab.plugin.session import Session
    from pytest_qreliab.report.records import CaseRecord
    from pytest_qreliab.report.results_file import Results


def write_outputs(
    session: Session, records: Mapping[str, CaseRecord], errors: Mapping[str, str], exitstatus: int
) -> list[str]:
    """Write the files of results that the settings name, and the summary of a GitHub step.

    A file that cannot be written does not keep the others from being written.

    Args:
        session: The run, with its plan and the files that it writes.
        records: The records of cases, by the ids of their cases.
        errors: Why a case has no result, by its id.
        exitstatus: pytest's exit status.

    Returns:
        What could not be written, and why.
    """
    summary = os.environ.get("GITHUB_STEP_SUMMARY") if session.writes_files and (records or errors) else None
    if session.json_file is None and session.html_file is None and not summary:
        return []
    from pytest_qreliab.report import files, markdown, results_file
    from pytest_qreliab.report.html import page

    results = collect_results(session, records, errors, exitstatus)

    def append_summary(path: Path) -> None:
        text = markdown.render(results)
        with path.open("a", encoding="utf-8", errors="replace") as file:  # other steps write there as well
            file.write(text)

    writers: list[tuple[Path | None, Callable[[Path], None]]] = [
        (session.json_file, lambda path: results_file.write(path, results)),
        (session.html_file, lambda path: files.write(path, page.render(results))),
        (Path(summary) if summary else None, append_summary),
    ]
    problems = []
    for path, write in writers:
        if path is None:
            continue
        try:
            write(path)
        except Exception as error:  # of any kind: one file must not cost the others
            problems.append(explain_failure(str(path), error))
    return problems


def explain_failure(what: str, error: Exception) -> str:
    """Say in a line what could not be made, and why.

    Args:
        what: A file, or a part of the report.
        error: What was raised.
    """
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or what} cannot be written: {error.strerror}"
    return f"{what} cannot be made: {describe_exception(error)}"


def collect_results(
    session: Session, records: Mapping[str, CaseRecord], errors: Mapping[str, str], exitstatus: int
) -> Results:
    """Return the content of a results file, with cases in the plan's order."""
    from pytest_qreliab._version import __version__
    from pytest_qreliab.report import results_file

    return results_file.Results(
        qreliab=__version__,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        shard=None if session.shard is None else (session.shard.number, session.shard.count),
        plan=results_file.identify_plan(session.plan),
        cases=session.in_order(records),
        errors={
            case.id: errors[case.id] for case in session.plan.cases if case.id in errors and case.id not in records
        },
        exitstatus=exitstatus,
    )


def renew_snapshot(session: Session, records: Mapping[str, CaseRecord]) -> list[str]:
    """Accept results into the snapshot, if the settings say so.

    Returns:
        Lines that say what became of each case, and which accepted cases the run did not measure.

    Raises:
        OSError: A file cannot be written.
        InputError: A file of the snapshot is damaged.
    """
    snapshot = session.snapshot
    if snapshot is None or not session.writes_files:
        return []
    from pytest_qreliab.config.document import display_path  # imports YAML

    folder = display_path(snapshot.folder.absolute())
    lines = []
    if snapshot.update != "none":
        lines += snapshot.renew(session.in_order(records)).lines(folder)
    # After -k or in a shard the cases that are missing may still be in use.
    planned = {case.id for case in session.plan.cases}
    if planned and planned <= set(records):
        lines += [f"in {folder} and not of this run: {case}" for case in snapshot.unused(planned)]
    return lines
