"""The data that the script of the page draws from."""

import math

import pytest

from pytest_qreliab.report.html import page, payload


def test_curves_are_kept_to_three_digits(build, read_page):
    record = build.case()
    data = read_page(build.results(record)).data()
    curves = data["cases"][0]["curves"]
    [name, (_, quantized)] = curves["roc"][0]
    kept = [[rate / 1000 for rate in data["pool"][place]] for place in quantized]
    assert kept == [pytest.approx(axis, abs=0.00051) for axis in zip(*record["curves"]["roc"][name][1], strict=True)]
    kept = [data["pool"][place] for place in curves["sqnr"]]
    assert kept == [pytest.approx(axis, rel=0.0051) for axis in zip(*record["curves"]["sqnr"], strict=True)]


def test_values_that_are_no_numbers(build, read_page):
    record = build.case()
    for at, value in enumerate((math.nan, math.inf, -math.inf)):
        record["gates"][at].update(quantized=value, harm=value, low=None, high=None, problem="not a finite number")
        record["metrics"][at].update(quantized=value, change=value, problem="not a finite number")
    record["curves"]["sqnr"] = [(1.0, math.inf), (2.0, 3.0)]
    page = read_page(build.results(record))
    data = page.data()
    pool, gates = data["pool"], data["cases"][0]["gates"]
    assert pool[gates["quantized"]][:3] == ["nan", "inf", "-inf"]
    assert [pool[place] for place in data["cases"][0]["curves"]["sqnr"]] == [[2], [3]]
    assert "nan" in page.all("tbody")[0]["text"]


def test_the_spread_of_kernels_is_beside_the_drift(build, read_page):
    record = build.case()
    record["gates"][0].update(limit="max_drift", accepted=0.9, kernel_spread=0.00123)
    data = read_page(build.results(record)).data()
    assert data["pool"][data["cases"][0]["gates"]["kernels"]] == [12, *[None] * (len(record["gates"]) - 1)]


def test_numbers_are_packed_as_ten_thousandths():
    values = (0.12345, -0.5, 99.5, 1234.5, None, math.nan)
    assert [payload._packed(value) for value in values] == [1235, -5000, 995000, "1234", None, "nan"]


def test_what_repeats_is_kept_once(build):
    one, two = (page.render(build.results(*records)) for records in ([build.case(0)], [build.case(0), build.case(1)]))
    assert one.count("627d0247") == two.count("627d0247") == 1
    assert one.count("2.6.0") == two.count("2.6.0") == 1
