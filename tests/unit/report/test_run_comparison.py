"""The comparison of two runs."""

import math

from pytest_qreliab.report import results_file


def test_compare_tells_a_regression(results_path, results, command, tmp_path):
    later = tmp_path / "later.json"

    def compared() -> tuple[int, list[str]]:
        results_file.write(later, results)
        return command("compare", results_path, later)

    assert compared() == (0, ["2 cases: 0 regressions, 0 other changes"])
    passing = results.cases[1]
    accuracy = next(metric for metric in passing["metrics"] if metric["metric"] == "accuracy")
    accuracy["quantized"] -= 0.02
    code, lines = compared()
    assert code == 1
    assert lines[0] == passing["case"]
    assert lines[1].startswith("  regression: accuracy 0.9833 became 0.9633, beyond max_drift 0.01, ")
    accuracy["quantized"] += 0.04
    assert compared()[0] == 0  # better
    accuracy["quantized"] = math.nan
    assert compared()[0] == 1
    results.cases[1] = results_file.read(results_path).cases[1]
    results.cases[1]["gates"][0]["passed"] = False
    code, lines = compared()
    assert code == 1
    assert lines[1].startswith("  regression: accuracy passed and fails now: ")
    results.cases[1]["data"]["classes"] = "10 other"
    assert "  change: measured on other data, so that no drift is told: classes" in compared()[1]
    del results.cases[1]
    code, lines = compared()
    assert (code, lines[1]) == (1, "  regression: no result: not in the later run")
    assert command("compare", later, results_path)[1][1] == "  change: new"
