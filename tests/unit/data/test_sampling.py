import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pytest_qreliab.data.sampling import stratified_sample


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_any_draw_is_without_repeats_and_proportional(labels, size, seed):
    labels, size = np.array(labels), min(size, len(labels))
    for given_labels in (labels, None):
        drawn = stratified_sample(len(labels), given_labels, size, seed)
        assert len(set(drawn.tolist())) == size
        assert (np.diff(drawn) > 0).all()
    counts = np.bincount(labels[stratified_sample(len(labels), labels, size, seed)], minlength=5)
    assert np.abs(counts - size * np.bincount(labels, minlength=5) / len(labels)).max() < 1
