"""What the controller of pytest-xdist learns from its workers."""

from types import SimpleNamespace

import pytest

from pytest_qreliab.config.cases import Build, Case
from pytest_qreliab.config.formats import Format
from pytest_qreliab.plugin import controller
from pytest_qreliab.plugin.state import ELSEWHERE, REFUSED, SESSION, SHIPPED

BUILD = Build(model="a", quantizer="b", bits=Format.integers(4), scope="both", calibration=None)
OURS, THEIRS = "t.py::test_it[a/b/w4/c]", "t.py::test_it[http://a/b]"


class Run:
    """The session of a run of one case."""

    def __init__(self) -> None:
        self.plan = SimpleNamespace(cases=(Case(BUILD, "c"),))
        self.begun = False

    def begin(self) -> None:
        self.begun = True


@pytest.fixture
def config():
    """Makes a config with a scheduler and no terminal."""

    def config(stash: dict):
        learned = []
        plugins = {"qreliab-scheduler": SimpleNamespace(learn=learned.append)}
        return SimpleNamespace(
            stash={SHIPPED: [], **stash}, pluginmanager=SimpleNamespace(get_plugin=plugins.get), learned=learned
        )

    return config


def test_the_run_begins_once_with_the_first_worker_that_has_collected_our_tests(config):
    run = Run()
    made = config({SESSION: run})
    controller.begin(made, [THEIRS])
    assert (run.begun, made.learned) == (False, [])
    controller.begin(made, [THEIRS, OURS])
    controller.begin(made, [OURS])
    assert (run.begun, made.learned) == (True, [run.plan])


def test_without_tests_of_ours_no_session_is_made(config):
    made = config({})
    controller.begin(made, [THEIRS])
    assert SESSION not in made.stash


def test_settings_that_cannot_be_used_are_left_to_the_workers_to_say(config):
    made = config({REFUSED: "99 bits"})
    controller.begin(made, [OURS])
    assert made.learned == []


def test_what_a_worker_refused_ends_the_run():
    with pytest.raises(pytest.UsageError, match="99 bits"):
        controller.take_over(SimpleNamespace(workeroutput={"qreliab_refused": "99 bits"}))


def test_a_worker_that_died_says_nothing():
    controller.take_over(SimpleNamespace())
    controller.take_over(SimpleNamespace(workeroutput={}))


def test_a_run_begins_at_last_if_the_ids_of_its_tests_did_not_tell(config):
    run = Run()
    controller.take_over(SimpleNamespace(workeroutput={"qreliab_begun": True}, config=config({SESSION: run})))
    assert run.begun


def test_a_shard_whose_tests_are_elsewhere_begins_all_the_same(config):
    run = Run()
    made = config({SESSION: run})
    controller.take_over(SimpleNamespace(workeroutput={"qreliab_elsewhere": True, "qreliab_begun": True}, config=made))
    assert made.stash[ELSEWHERE]
    assert run.begun
