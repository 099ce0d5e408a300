"""The table of self-checks."""

import pytest

from pytest_qreliab.report import self_check
from pytest_qreliab.report.terminal import Output


@pytest.fixture
def record():
    return {
        "case": "a/b/w4/c",
        "samples": 120,
        "device": "cpu",
        "replicates": 200,
        "failed": 9,
        "allowed": 0.05,
        "passed": True,
        "gates": [("accuracy", "max_drop", 0.02, 0.01, 0.0625), ("nll", "max_rise", 0.5, 0.035, 0.75)],
        "left_out": ["kl", "cka"],
    }


def rows(*records, color: bool = False) -> list[list[str]]:
    return [line.split() for line in self_check.render(records, Output(100, color=color, unicode=True)).splitlines()]


def test_each_gate_has_a_row_and_all_of_them_one(record):
    found = rows(record)
    assert ["accuracy", "max_drop", "0.02", "1.0%", "0.0625"] in found
    assert ["nll", "max_rise", "0.5", "3.5%", "0.7500"] in found
    assert ["any", "of", "them", "at", "most", "5.0%", "4.5%"] in found
    assert ["not", "tried:", "kl,", "cka"] in found
    assert " ".join(found[0]) == "a/b/w4/c (120 samples, 200 pairs that do not differ)"


def test_the_legend_is_below_the_tables_of_all_cases(record):
    found = [" ".join(row) for row in rows(record, {**record, "case": "other", "left_out": []})]
    assert sum(row.startswith("caught in 4 of 5:") for row in found) == 1
    assert found[-1].startswith("caught in 4 of 5:")
    assert sum(row.startswith("not tried") for row in found) == 1


@pytest.mark.parametrize(("passed", "code"), [(True, "\x1b[32m"), (False, "\x1b[1;31m")])
def test_a_rate_beyond_what_chance_allows_is_red(record, passed, code):
    text = self_check.render([{**record, "passed": passed}], Output(100, color=True, unicode=True))
    assert code in next(line for line in text.splitlines() if "any of them" in line)
