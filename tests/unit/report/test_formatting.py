"""Numbers and sizes as people read them."""

import math

import pytest

from pytest_qreliab.report import formatting


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.1235"),
        (-99.99, "-99.9900"),
        (1234.5, "1234"),
        (1e7, "1e+07"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers_have_four_decimals_or_four_digits(value, text):
    assert formatting.number(value) == text


def test_a_plus_is_shown_if_wanted():
    assert formatting.number(0.5, "+") == "+0.5000"


@pytest.mark.parametrize(
    ("count", "model", "file"), [(900, "0.9 kB", "0.9 KiB"), (2e6, "2 MB", "1.9 MiB"), (3.5e9, "3.5 GB", "3.3 GiB")]
)
def test_models_have_decimal_units_and_files_binary_ones(count, model, file):
    assert (formatting.size_in_words(count), formatting.file_size(count)) == (model, file)


def test_memory_of_a_device_is_named_if_there_is_one():
    assert formatting.memory(2**30, 0) == "1.0 GiB"
    assert formatting.memory(2**29, 3 * 2**30) == "0.5 GiB, 3.0 GiB on the device"


@pytest.mark.parametrize(
    ("weights", "products", "text"),
    [(1.0, 1.0, "100.0/100.0%"), (1.0, 0.9999, "100.0/99.9%"), (0.98149, 0.5, "98.1/50.0%"), (None, None, "recorded")],
)
def test_coverage_says_100_for_all_alone(weights, products, text):
    assert formatting.coverage(weights, products) == text
