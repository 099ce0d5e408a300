import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pytest_qreliab.data.sampling import one_of_each_stretch, stratified_sample


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_any_draw_is_without_repeats_and_proportional(labels, size, seed):
    labels, size = np.array(labels), min(size, len(labels))
    for given_labels in (labels, None):
        drawn = stratified_sample(len(labels), given_labels, size, seed)
        assert len(set(drawn.tolist())) == size
        assert (np.diff(drawn) > 0).all()
    counts = np.bincount(labels[stratified_sample(len(labels), labels, size, seed)], minlength=5)
    assert np.abs(counts - size * np.bincount(labels, minlength=5) / len(labels)).max() < 1


@given(st.integers(0, 10_000), st.integers(0, 300), st.integers(0, 2**32 - 1))
def test_one_index_of_each_stretch_is_drawn(n, count, seed):
    drawn = one_of_each_stretch(n, count, np.random.default_rng(seed))
    count = min(count, n)
    assert drawn.dtype == np.int64
    stretches = [range(place * n // count, (place + 1) * n // count) for place in range(count)]
    assert len(drawn) == count
    assert all(index in stretch for index, stretch in zip(drawn.tolist(), stretches, strict=True))


def test_every_index_is_drawn_and_about_as_often_as_any_other():
    rng = np.random.default_rng(0)
    counts = sum(np.bincount(one_of_each_stretch(1000, 100, rng), minlength=1000) for _ in range(1000))
    assert np.abs(counts - 100).max() < 6 * np.sqrt(100 * 0.9)  # six standard deviations of a binomial
