"""The plan, the shard and the order of a run, and the command that repeats a part of it."""

import pytest

from pytest_qreliab.config.settings import resolve
from pytest_qreliab.errors import InputError
from pytest_qreliab.plugin.session import RepeatCommand


def repeat(self_check: bool = False, ini: str = "", **given: str) -> str:
    settings = resolve(lambda name: given.get(name.removeprefix("qreliab_")), lambda name: ini)
    return RepeatCommand(settings, self_check).command("t.py::test_it[a b]")


def test_a_command_repeats_the_options_of_the_plan():
    assert repeat(bits="w4", models="m") == "pytest 't.py::test_it[a b]' --qreliab-models=m --qreliab-bits=w4"


def test_a_command_repeats_variables_and_leaves_ini_settings_to_the_ini_file(monkeypatch):
    monkeypatch.setenv("QRELIAB_BITS", "w4")
    assert repeat(ini="minmax") == "pytest 't.py::test_it[a b]' --qreliab-bits=w4"


def test_a_command_leaves_out_what_is_of_one_run_on_one_machine():
    assert repeat(shard="1/2", update="new", json="it.json", html="it.html") == "pytest 't.py::test_it[a b]'"


def test_a_command_repeats_the_self_check():
    assert repeat(self_check=True, bits="w4") == "pytest 't.py::test_it[a b]' --qreliab-aa --qreliab-bits=w4"


def test_models_and_builds_stand_right_before_their_first_case(make_session):
    session = make_session("--qreliab-bits=w8,w4")
    first, second = session.plan.cases
    subjects = [second, second.build, first, first.build, first.build.model, "unknown"]
    in_order = [first.build.model, first.build, first, second.build, second, "unknown"]
    assert sorted(subjects, key=session.position) == in_order


def test_a_shard_runs_its_own_builds_and_the_models_that_begin_there(make_session):
    session = make_session("--qreliab-bits=w8,w4", "--qreliab-shard=2/2")
    first, second = session.plan.cases
    assert [session.in_shard(of) for of in (first, first.build, first.build.model)] == [False] * 3
    assert [session.in_shard(of) for of in (second, second.build)] == [True] * 2


def test_records_come_in_the_plans_order(make_session):
    session = make_session("--qreliab-bits=w8,w4,w2")
    first, _, third = (case.id for case in session.plan.cases)
    assert session.in_order({third: 3, first: 1, "unknown": 0}) == [1, 3]


def test_cases_of_an_aspect_that_does_not_exist(make_session):
    session = make_session("--qreliab-bits=w8")
    assert session.cases(None) == session.cases("accuracy") == list(session.plan.cases)
    assert session.cases("robustness") == []
    with pytest.raises(InputError, match="unknown aspect 'odd'; did you mean 'ood'"):
        session.cases("odd")


def test_a_result_is_recorded_once(make_session, small_result):
    session = make_session("--qreliab-bits=w8")
    record = session.new_record(small_result)
    assert record["case"] == "tiny-digits/minmax/w8/small"
    assert record["repeat"].startswith("pytest qreliab -k '[tiny-digits/minmax/w8/small]' --qreliab-bits=w8")
    assert session.new_record(small_result) is None


@pytest.mark.parametrize("option", ["json=it.json", "html=it.html"])
def test_the_self_check_has_no_results_to_write(make_session, option):
    with pytest.raises(InputError, match=r"is for results of the gates, which --qreliab-aa does not try"):
        make_session("--qreliab-aa", f"--qreliab-{option}")


def test_a_cache_folder_that_is_a_file(make_session, pytester):
    (pytester.path / "cache").touch()
    with pytest.raises(InputError, match="--qreliab-cache-dir: cache is a file; give a folder"):
        make_session("--qreliab-cache-dir=cache")


def test_files_are_written_only_where_tests_run(make_session, pytester):
    session = make_session("--qreliab-json=it.json")
    assert session.writes_files
    assert (session.json_file, session.html_file) == (pytester.path / "it.json", None)
    collecting = make_session("--qreliab-json=it.json", "--collect-only")
    assert not collecting.writes_files
    assert collecting.json_file is None
