"""Which reliability tests run, and in which order."""

from types import SimpleNamespace

import pytest

from pytest_qreliab.errors import InputError
from pytest_qreliab.plugin.collection import arrange, marked_aspect
from pytest_qreliab.plugin.state import BUILD, CASE, MODEL, SESSION


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
        session = SimpleNamespace(position=order.index, in_shard=shard.__contains__)
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
    arrange(made, items)
    assert items == [here, theirs]
    assert made.deselected == [elsewhere]


def test_a_run_without_reliability_tests_makes_no_session():
    items = [Item(), Item(x=1)]
    arrange(SimpleNamespace(stash={}), items)
    assert [item.markers for item in items] == [[], []]
