"""The summary in the terminal."""

import pytest

from pytest_qreliab.evaluation.evaluator import Evaluator
from pytest_qreliab.report import terminal, to_record


def test_the_table_has_a_baseline_for_each_kind_of_row(make_plan, small_benchmark):
    plan = make_plan(quantizers="minmax,minmax+rescale", bits="w4", benchmarks=str(small_benchmark))
    evaluator = Evaluator(plan)
    entries = [to_record.to_record(evaluator.result(case), "", "") for case in plan.cases]
    text = terminal.render(entries, terminal.Output(200, color=False, unicode=True))
    rows = [line.split("  ")[0].strip() for line in text.splitlines()]
    assert [row for row in rows if row.startswith(("full", "minmax"))] == [
        "full precision",
        "minmax w4",
        "full precision+rescale",
        "minmax+rescale w4",
    ]


def output(width: int = 80, *, unicode: bool = True) -> terminal.Output:
    return terminal.Output(width, color=False, unicode=unicode)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_tables_fit_the_terminal_and_lose_no_metric(build, width):
    records = build.four_cases().cases
    lines = terminal.render(records, output(width)).splitlines()
    tables = [line for line in lines if not line.startswith(("beside controls", "error over", "second line"))]
    assert max(map(len, tables)) <= width
    assert not [line for line in lines if "…" in line]
    words = " ".join(lines).split()
    for column in ("accuracy", "ECE", "AUROC", "coverage"):
        assert column in words


def test_a_terminal_without_unicode_gets_ascii(build):
    text = terminal.render(build.four_cases().cases, output(unicode=False))
    assert "x fail" in text
    assert not {"✓", "✗"} & set(text)
    assert "✗ fail" in terminal.render(build.four_cases().cases, output())


def test_a_value_stands_above_its_change_from_the_baseline(build):
    record = build.case(0)
    record["gates"] = [record["gates"][0] | {"baseline": 0.9, "quantized": 0.875}]
    lines = terminal.render([record], output()).splitlines()
    (row,) = [index for index, line in enumerate(lines) if line.startswith("quantizer-0 w4a8")]
    assert "0.8750" in lines[row]
    assert "-0.0250 ✓" in lines[row + 1]
    assert any(line.startswith("full precision") and "0.9000" in line for line in lines)


def test_a_warning_of_several_cases_is_noted_once(build):
    lines = terminal.notes(build.four_cases().cases)
    assert lines[0] == "warning: few samples"
    assert sum("few samples" in line for line in lines) == 1
    assert lines[1].startswith("smallest passing: ")


def test_costs_are_summed_and_peaks_are_not(build):
    records = [build.case(0, encoded=1000, known=4), build.case(1, encoded=1, known=5, peak_memory=2**31)]
    assert terminal.cost(records) == "1,001 images and prompts encoded, 9 known from before; peak memory 2.0 GiB"


def test_the_drift_has_a_third_line_only_where_it_fails(build):
    record = build.case(0)
    accuracy = record["gates"][0] | {"baseline": 0.9, "quantized": 0.875}
    drift = accuracy | {"limit": "max_drift", "accepted": 0.885, "outcome": "fail", "passed": False}
    record["gates"] = [accuracy, drift]
    text = terminal.render([record], output())
    assert "-0.0100 ✗" in text
    assert "third: from what was accepted" in text
    record["gates"][1] = drift | {"outcome": "pass", "passed": True}
    assert "third" not in terminal.render([record], output())


def test_the_notes_say_what_was_trained_on(build):
    records = [build.case(quantizer="lsq", trained_on="pairs in a.csv", warnings=["few"]), build.case(1)]
    assert terminal.notes(records)[:2] == ["warning: few", "lsq: trained on pairs in a.csv"]
