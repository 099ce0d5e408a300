"""Which reliability tests run, and in which order."""

from types import SimpleNamespace

import pytest

from pytest_qreliab.errors import InputError
from pytest_qreliab.plugin.collection import arrange, begin, marked_aspect, select
from pytest_qreliab.plugin.state import BUILD, CASE, ELSEWHERE, MODEL, REFUSED, SESSION


@pytest.mark.parametrize(
    ("mark", "aspect"), [(None, None), (pytest.mark.qreliab, None), (pytest.mark.qreliab(aspect="ood"), "ood")]
)
def test_the_aspect_of_a_marker(mark, aspect):
    assert marked_aspect(None if mark is None else mark.mark) == aspect


@pytest.mark.parametrize("mark", [pytest.mark.qreliab("ood"), pytest.mark.qreliab(aspects="ood")])
def test_a_marker_takes_one_keyword(mark):
    with pytest.raises(InputError, match=r"takes one keyword: @pytest.mark.qreliab\(aspect=...\)"):
        marked_aspect(mark.mark)


class Item:
    """A test as the plugin sees it while it collects."""

    def __init__(self, **params: object) -> None:
        if params:
            self.callspec = SimpleNamespace(params=params)
        self.markers: list[str] = []

    def add_marker(self, name: str) -> None:
        self.markers.append(name)


@pytest.fixture
def config():
    """Makes a config whose session holds a plan of subjects in order, of which some are in the shard."""

    def config(order: list[str], shard: set[str]):
        deselected: list[Item] = []
        session = SimpleNamespace(position=order.index, in_shard=shard.__contains__, begun=0)
        session.begin = lambda: setattr(session, "begun", session.begun + 1)
        hook = SimpleNamespace(pytest_deselected=lambda items: deselected.extend(items))
        return SimpleNamespace(stash={SESSION: session}, hook=hook, deselected=deselected)

    return config


def test_reliability_tests_are_sorted_in_the_places_that_they_hold(config):
    theirs, third, first, second = Item(), Item(**{CASE: "c"}), Item(**{MODEL: "a"}), Item(**{BUILD: "b"})
    items = [third, theirs, first, second]
    arrange(config(["a", "b", "c"], {"a", "b", "c"}), items)
    assert items == [first, theirs, second, third]
    assert [item.markers for item in items] == [["qreliab"], [], ["qreliab"], ["qreliab"]]


def test_tests_of_other_shards_are_deselected_and_other_peoples_stay(config):
    theirs, here, elsewhere = Item(), Item(**{CASE: "a"}), Item(**{CASE: "b"})
    items = [elsewhere, theirs, here]
    made = config(["a", "b"], {"a"})
    select(made, items)
    assert items == [theirs, here]
    assert made.deselected == [elsewhere]
    assert ELSEWHERE not in made.stash


def test_a_shard_that_has_none_of_the_selected_tests_begins_and_says_so(config):
    items = [Item(), Item(**{CASE: "b"})]
    made = config(["a", "b"], {"a"})
    select(made, items)
    begin(made, items)
    assert made.stash[ELSEWHERE]
    assert made.stash[SESSION].begun == 1


def test_a_run_begins_if_a_reliability_test_is_selected(config):
    made = config(["a"], {"a"})
    begin(made, [Item()])
    assert made.stash[SESSION].begun == 0
    begin(made, [Item(), Item(**{CASE: "a"})])
    assert made.stash[SESSION].begun == 1
    begin(SimpleNamespace(stash={}), [Item()])


def test_settings_that_were_refused_end_the_run_once_all_is_collected():
    config = SimpleNamespace(stash={REFUSED: "ini qreliab_bits: 99 bits"})
    with pytest.raises(pytest.UsageError, match="ini qreliab_bits: 99 bits"):
        arrange(config, [Item()])


def test_a_worker_leaves_refused_settings_to_the_controller():
    config = SimpleNamespace(stash={REFUSED: "99 bits"}, workerinput={}, workeroutput={})
    items = [Item()]
    arrange(config, items)
    assert (items, config.workeroutput) == ([], {"qreliab_refused": "99 bits"})


def test_a_run_without_reliability_tests_makes_no_session():
    items = [Item(), Item(x=1)]
    arrange(SimpleNamespace(stash={}), items)
    assert [item.markers for item in items] == [[], []]
