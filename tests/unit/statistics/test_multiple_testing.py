import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from pytest_qreliab.statistics.multiple_testing import benjamini_hochberg, holm

BOTH = pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
probabilities = st.floats(0, 1)
families = st.lists(probabilities | st.sampled_from([0.0, 0.01, 0.5, 1.0]), min_size=1, max_size=30)


def test_published_values():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])


@pytest.fixture(scope="module", autouse=True)
def no_collection():
    """statsmodels collects garbage at each call, which takes a third of a second where many modules are loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", lambda *generation: 0)
        yield


@pytest.mark.parametrize(("adjust", "method"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh")])
@given(p=families)
def test_agrees_with_statsmodels(adjust, method, p):
    np.testing.assert_allclose(adjust(p), multipletests(p, method=method)[1], rtol=1e-12, atol=1e-300)


@BOTH
@given(p=families, data=st.data())
def test_order_is_kept(adjust, p, data):
    order = data.draw(st.permutations(range(len(p))))
    np.testing.assert_array_equal(adjust(np.array(p)[order]), adjust(p)[order])
    ascending = np.argsort(p)
    assert (np.diff(adjust(p)[ascending]) >= 0).all()


@BOTH
@given(p=families)
def test_between_unadjusted_and_bonferroni_and_ties_stay_ties(adjust, p):
    adjusted, p = adjust(p), np.array(p)
    assert (p <= adjusted).all()
    assert (adjusted <= np.minimum(1, p * len(p))).all()
    assert all(len(set(adjusted[p == value])) == 1 for value in p)


@given(p=families)
def test_the_false_discovery_rate_is_the_milder(p):
    assert (benjamini_hochberg(p) <= holm(p) * (1 + 1e-12)).all()


@BOTH
@given(p=families, data=st.data())
def test_a_smaller_p_lowers_all(adjust, p, data):
    i, share = data.draw(st.integers(0, len(p) - 1)), data.draw(probabilities)
    lower = [value * share if k == i else value for k, value in enumerate(p)]
    assert (adjust(lower) <= adjust(p)).all()


@BOTH
def test_no_hypotheses_and_one(adjust):
    assert adjust([]).shape == (0,)
    assert adjust([0.2]) == [0.2]


@BOTH
@pytest.mark.parametrize("p", [[0.1, np.nan], [-0.01], [1.01], [[0.1]], 0.1, [np.inf]])
def test_input_that_cannot_be_used(adjust, p):
    with pytest.raises(ValueError, match=r"^p-values: "):
        adjust(p)
