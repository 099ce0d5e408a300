"""What a run leaves behind."""

import json

import pytest

from pytest_qreliab.errors import InputError
from pytest_qreliab.plugin.outputs import collect_results, explain_failure, renew_snapshot, write_outputs


@pytest.fixture
def session(make_session):
    """A session of two cases that writes JSON and HTML."""
    return make_session("--qreliab-bits=w8,w4", "--qreliab-json=it.json", "--qreliab-html=it.html")


@pytest.fixture
def records(session, small_result):
    """The record of the first of the two cases."""
    record = session.new_record(small_result)
    return {record["case"]: record}


def test_the_files_that_the_settings_name_are_written(session, records, pytester):
    write_outputs(session, records, {}, 0)
    assert [entry["case"] for entry in json.loads((pytester.path / "it.json").read_text())["cases"]] == list(records)
    assert "tiny-digits" in (pytester.path / "it.html").read_text()


def test_nothing_is_written_unless_a_setting_names_a_file(make_session, records, pytester):
    write_outputs(make_session("--qreliab-bits=w8"), records, {}, 0)
    assert not (pytester.path / "it.json").exists()


def test_the_summary_of_a_github_step_gets_the_table_below_what_is_there(make_session, records, pytester, monkeypatch):
    summary = pytester.path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    session = make_session("--qreliab-bits=w8,w4")
    write_outputs(session, {}, {}, 0)
    assert summary.read_text() == "before\n"
    write_outputs(session, records, {}, 0)
    assert summary.read_text().startswith("before\n")
    assert "minmax w8" in summary.read_text()


def test_a_file_that_cannot_be_written_costs_no_other_and_is_named(session, records, pytester):
    session.html_file.mkdir()
    (problem,) = write_outputs(session, records, {}, 0)
    assert problem == f"{session.html_file} cannot be written: Is a directory"
    assert (pytester.path / "it.json").exists()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InputError("x.json: is damaged"), "x.json: is damaged"),
        (PermissionError(13, "Permission denied", "a/b"), "a/b cannot be written: Permission denied"),
        (OSError(28, "No space left"), "it cannot be written: No space left"),
        (KeyError("a"), "it cannot be made: KeyError: 'a'"),
    ],
)
def test_a_failure_is_explained_in_a_line(error, text):
    assert explain_failure("it", error) == text


def test_an_error_of_a_case_counts_only_if_it_has_no_result(session, records):
    first, second = (case.id for case in session.plan.cases)
    results = collect_results(session, records, {first: "again", second: "it broke", "unknown": "x"}, 1)
    assert results.errors == {second: "it broke"}
    assert (results.exitstatus, results.shard) == (1, None)


def test_results_of_a_shard_say_so(make_session):
    session = make_session("--qreliab-bits=w8,w4", "--qreliab-shard=2/2")
    assert collect_results(session, {}, {}, 0).shard == (2, 2)


@pytest.fixture
def accepting(make_session, write_thresholds):
    """Makes a session of one case that accepts results into the snapshot `accepted`."""
    limits = write_thresholds("accuracy: {max_drift: 0.1}")

    def accepting(*args: str, update: str = "new,ci"):
        given = ("--qreliab-snapshot=accepted", f"--qreliab-update={update}", f"--qreliab-thresholds={limits}")
        return make_session(*given, *args)

    return accepting


def test_results_are_accepted_once(accepting, records):
    lines = renew_snapshot(accepting("--qreliab-bits=w8"), records)
    assert lines == ["accepted into accepted: 1 new"]
    assert renew_snapshot(accepting("--qreliab-bits=w8"), records) == ["accepted into accepted: 1 as before"]
    assert renew_snapshot(accepting("--qreliab-bits=w8", update="none"), records) == []


def test_accepted_cases_that_a_whole_run_did_not_measure_are_named(accepting, records, small_result):
    renew_snapshot(accepting("--qreliab-bits=w8"), records)
    (record,) = records.values()
    other = accepting("--qreliab-bits=w4", update="none")
    (case,) = other.plan.cases
    lines = renew_snapshot(other, {case.id: {**record, "case": case.id}})
    assert lines == ["in accepted and not of this run: tiny-digits/minmax/w8/small"]
    assert renew_snapshot(accepting("--qreliab-bits=w4,w2", update="none"), {case.id: record}) == []


def test_nothing_is_accepted_while_tests_are_only_collected(accepting, records, pytester):
    assert renew_snapshot(accepting("--qreliab-bits=w8", "--collect-only"), records) == []
    assert not (pytester.path / "accepted").exists()
