"""Parts of a plan."""

from hypothesis import given
from hypothesis import strategies as st

from pytest_qreliab.evaluation.planning.shards import contiguous_part


@given(st.integers(1, 60), st.data())
def test_the_parts_hold_everything_once_and_are_of_nearly_equal_size(length, data):
    count = data.draw(st.integers(1, length))
    parts = [contiguous_part(range(length), number, count) for number in range(1, count + 1)]
    assert [item for part in parts for item in part] == list(range(length))
    assert {len(part) for part in parts} <= {length // count, -(-length // count)}
