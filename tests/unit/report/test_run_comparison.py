"""The comparison of two runs."""

import math

from pytest_qreliab.config.thresholds import Thresholds
from pytest_qreliab.report import results_file, run_comparison


def test_compare_tells_a_regression(results_path, results, command, tmp_path):
    later = tmp_path / "later.json"

    def compared() -> tuple[int, list[str]]:
        results_file.write(later, results)
        code, lines = command("compare", results_path, later)
        return code, [line for line in lines if not line.startswith("not judged: ")]

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


def test_a_drift_gate_on_what_the_results_do_not_hold_is_refused_or_skipped(results_path, command, write_thresholds):
    def compared(gates: str) -> tuple[int, list[str]]:
        return command("compare", results_path, results_path, f"--thresholds={write_thresholds(gates)}")

    gates = "accuracy: {max_drift: 0.1}\nrecall.nin: {max_drift: 0.1%s}\nshift.nll: {max_rise: 0.1, max_drift: 1%s}"
    code, lines = compared(gates % ("", ""))
    assert (code, len(lines)) == (2, 2)
    assert "limits.yaml:4: recall.nin cannot be judged: the later run does not hold it; " in lines[0]
    assert "did you mean 'recall.nine'?; valid: recall.eight, " in lines[0]
    assert "limits.yaml:5: shift.nll cannot be judged: the later run does not hold it; or write " in lines[1]
    code, lines = compared(gates % ((", where_missing: skip",) * 2))
    assert code == 0
    assert lines[0].startswith("not judged: recall.nin: the later run does not hold it; ")
    assert lines[-1] == "2 cases: 0 regressions, 0 other changes"
    # A gate that does not limit the drift is none of two runs.
    assert compared("accuracy: {max_drift: 0.1}\nrecall.nin: {max_drop: 0.1}") == (0, [lines[-1]])


def test_a_gate_that_is_not_judged_any_more_is_a_regression(results_path, results, command, tmp_path):
    record = results.cases[1]
    (gate,) = [gate for gate in record["gates"] if gate["metric"] == "ood.auroc"]
    record["gates"].remove(gate)
    record["skipped"]["ood.auroc"] = "benchmark 'small' has no ood images"
    results_file.write(tmp_path / "later.json", results)
    code, lines = command("compare", results_path, tmp_path / "later.json")
    assert code == 1
    assert "  regression: ood.auroc is not judged any more: benchmark 'small' has no ood images" in lines
    assert (
        f"not judged: ood.auroc of {record['case']}: not in the later run: benchmark 'small' has no ood images" in lines
    )


def test_compare_names_what_else_was_measured(build):
    def run(commit, **more):
        environment = {"data set org/photos": commit, "numpy": commit}
        return build.results(build.case(baseline={"commit": commit, **more}, environment=environment))

    def texts(before, after):
        found = run_comparison.compare(before, after, Thresholds.load("default"))
        assert not any(difference.regression for difference in found)
        return [difference.text for difference in found]

    assert texts(run("a"), run("a")) == []
    assert texts(run("a"), run("b", activation="GELU")) == [
        "full precision: commit: a became b",
        "data set org/photos: a became b",
        "full precision: activation: none became GELU",
    ]
