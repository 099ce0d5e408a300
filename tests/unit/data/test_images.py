from dataclasses import replace

import numpy as np
import pytest

from pytest_qreliab.data.sources import builtin


def test_a_limit_draws_of_every_class_its_share_and_keeps_labels_with_their_images():
    digits = builtin.digits("test")
    few = digits.sampled(100, seed=3)
    assert len(few) == len(few.labels) == len(set(few.ids)) == 100
    places = [int(known) for known in few.ids]
    assert places == sorted(places)
    np.testing.assert_array_equal(few.labels, digits.labels[places])
    np.testing.assert_array_equal(np.asarray(few.load(7)), np.asarray(digits.load(places[7])))
    shares = 100 * np.bincount(digits.labels) / len(digits)
    assert np.abs(np.bincount(few.labels) - shares).max() < 1
    assert few.ids == digits.sampled(100, seed=3).ids != digits.sampled(100, seed=4).ids
    assert digits.sampled(None, 0) is digits
    assert digits.sampled(5000, 0) is digits


def test_captions_stay_with_their_images():
    digits = builtin.digits("test")
    captioned = replace(digits, captions=[f"the digit {label}" for label in digits.labels])
    few = captioned.sampled(50, seed=1).first_evenly(20)
    assert few.known_captions == [f"the digit {label}" for label in few.labels]
    with pytest.raises(ValueError, match="has no captions"):
        digits.first_evenly(20).known_captions  # noqa: B018
