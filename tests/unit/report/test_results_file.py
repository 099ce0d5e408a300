"""What is written for other tools to read: Markdown, annotations, tables, JUnit; and `qreliab` on results."""

import csv
import io
import itertools
import json
import math
import os
from copy import deepcopy
from pathlib import Path

import pytest

from pytest_qreliab import cli
from pytest_qreliab.config.document import PACKAGE
from pytest_qreliab.report import export, github, markdown, results_file, tradeoff
from pytest_qreliab.report.figures.curves import POINTS

pytestmark = pytest.mark.usefixtures("everything_imported")


@pytest.fixture
def run(pytester, small_benchmark, monkeypatch):
    """Runs pytest in this process on the small benchmark."""
    for name in [name for name in os.environ if name.startswith(("QRELIAB_", "GITHUB_"))]:
        monkeypatch.delenv(name)

    def run(*args: str):
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", f"--qreliab-benchmarks={small_benchmark}", *args)

    return run


@pytest.fixture(scope="session")
def found(tmp_path_factory, make_plan, small_benchmark):
    """The results of a case that fails and one that passes, from a file."""
    from pytest_qreliab.evaluation.evaluator import Evaluator
    from pytest_qreliab.report import to_record
    from pytest_qreliab.report.figures import curves

    path = tmp_path_factory.mktemp("results") / "r.json"
    plan = make_plan(benchmarks=str(small_benchmark), bits="w2a8,w8a8", json=str(path), controls="weights")
    evaluator = Evaluator(plan, curves=curves.build_curves)
    cases = [
        to_record.to_record(evaluator.result(case), "granularity=channel", f"pytest -k '{case.id}'")
        for case in plan.cases
    ]
    results_file.write(
        path,
        results_file.Results(
            qreliab="0.1.0",
            created="2026-01-01T00:00:00+00:00",
            shard=None,
            plan=results_file.planned(plan),
            cases=cases,
            errors={},
            exitstatus=1,
        ),
    )
    return path


@pytest.fixture
def read(found):
    """The same, to be changed."""
    return deepcopy(results_file.read(found))


@pytest.fixture
def command(capsys, monkeypatch):
    """Runs `qreliab`; gives its exit status and the lines of both streams."""
    monkeypatch.setenv("COLUMNS", "100")

    def command(*args: object) -> tuple[int, list[str]]:
        capsys.readouterr()
        code = cli.main([*map(str, args)])
        captured = capsys.readouterr()
        return code, (captured.out + captured.err).splitlines()

    return command


# The file


def test_the_file_is_what_its_schema_says_and_a_table_in_pandas(found):
    jsonschema = pytest.importorskip("jsonschema")
    pandas = pytest.importorskip("pandas")
    data = json.loads(found.read_text())
    jsonschema.validate(data, json.loads((PACKAGE / "schemas" / "results.json").read_text()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**data, "more": 1}, json.loads((PACKAGE / "schemas" / "results.json").read_text()))
    of = pandas.json_normalize(
        json.loads(found.read_text())["cases"],
        "metrics",
        ["case", "model", "quantizer", "bits", "scope", "benchmark"],
    )
    assert len(of) == sum(len(case["metrics"]) for case in data["cases"])
    assert (of.dtypes[["baseline", "quantized", "change", "low", "high"]] == "float64").all()
    accuracy = of[of.metric == "accuracy"].set_index("bits")
    assert accuracy.change["w2a8"] < -0.05 < accuracy.change["w8a8"]
    assert (accuracy.low <= accuracy.change).all()


def test_the_file_says_what_it_was_measured_on_and_with(read):
    failed, passed = read.cases
    assert failed["data"] == passed["data"]
    assert failed["data"].keys() == {
        *("classes", "templates", "preprocessing", "in_distribution", "calibration"),
        *("ood.near.letters", "ood.far.photos"),
    }
    assert failed["data"]["in_distribution"].startswith("120 images ")
    assert {"python", "torch", "pytest-qreliab", "device"} <= failed["environment"].keys()
    assert failed["size"]["quantized"] < passed["size"]["quantized"] < passed["size"]["full"]


def test_what_is_drawn_agrees_with_the_metrics(read):
    for entry in read.cases:
        metrics = {of["metric"]: of for of in entry["metrics"]}
        curves = entry["curves"]
        for which, bins in zip(("baseline", "quantized"), curves["reliability"], strict=True):
            ece = sum(of["share"] * abs(of["confidence"] - of["accuracy"]) for of in bins)
            assert ece == pytest.approx(metrics["ece"][which], abs=1e-3)
            assert sum(of["share"] for of in bins) == pytest.approx(1, abs=1e-3)
        assert curves["roc"].keys() == {"letters", "photos"}
        for name, both in curves["roc"].items():
            for which, points in zip(("baseline", "quantized"), both, strict=True):
                assert points[0] == (0, 0)
                assert points[-1] == (1, 1)
                assert len(points) <= POINTS
                area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))
                assert area == pytest.approx(metrics[f"ood.auroc.mcm.{name}"][which], abs=0.01)
        assert len(curves["spectra"]) == 4
        assert all(len(both) == 2 for both in curves["spectra"].values())
        assert 30 < len(curves["sqnr"]) <= len(curves["singular_values"][0]) <= POINTS


def test_nothing_is_written_that_nobody_asked_for(pytester, run, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    run("--qreliab-bits=w8")
    assert list(pytester.path.iterdir()) == []


# Size


def test_the_smallest_that_passes_is_named(read):
    assert tradeoff.smallest_passing(read.cases) == ["smallest passing: minmax w8a8, 0.33 of full size"]
    assert tradeoff.smallest_passing(read.cases[:1]) == []
    for gate in read.cases[1]["gates"]:
        gate["passed"] = False
    assert tradeoff.smallest_passing(read.cases) == ["smallest passing: none of 2"]
    read.cases[1]["size"] = None
    assert tradeoff.smallest_passing(read.cases) == []


def test_the_front_holds_what_nothing_smaller_beats(read):
    small, large = tradeoff.candidates(read.cases)
    assert (small.quantization, small.passed, large.passed) == ("minmax w2a8", False, True)
    key = "small", "accuracy"
    assert tradeoff.front([large, small], key) == [small, large]
    assert tradeoff.front([large], ("small", "nothing")) == []
    small.harms[key] = large.harms[key]
    assert tradeoff.front([large, small], key) == [small]
    small.harms[key] = math.nan
    assert tradeoff.front([large, small], key) == [large]


# Markdown and GitHub


def test_the_summary_says_what_failed_first(read):
    text = markdown.render(read)
    lines = text.splitlines()
    assert lines[0] == "## ❌ Reliability of 2 quantized cases: 1 passed, 1 failed"
    assert "#### ❌ minmax w2a8: tiny-digits on small" in lines
    assert text.index("#### ❌") < text.index("### tiny-digits on small")
    assert any(line.startswith("| ❌ ood.auroc | 0.91") for line in lines)
    assert text.count("```sh\npytest -k 'tiny-digits/minmax/w2a8/small'\n```") == 1
    tables = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in tables}) == 2  # those of the failure and of all


def test_markup_in_names_is_text(read):
    for entry in read.cases:
        entry["model"] = "a|b*<script>_`"
        entry["warnings"] = ["data [x](y): one\nwas accepted"]
    read.errors["other"] = "<b>"
    read.plan.cases.append("other")
    text = markdown.render(read)
    assert "<script>" not in text
    assert "<b>" not in text
    assert "a\\|b\\*&lt;script&gt;\\_\\`" in text
    assert "- ⚠️ data \\[x\\](y): one was accepted" in text
    assert "`other` has no result: &lt;b&gt;" in text


def test_annotations_point_at_the_limit(read):
    read.cases[0]["gates"][0] |= {"metric": "a,b:c", "problem": "not\nmeasured 100%", "where": "limits.yaml:7"}
    lines = list(github.commands(read.cases))
    assert lines[0] == (
        "::error file=limits.yaml,line=7,title=a%2Cb%3Ac of minmax w2a8::tiny-digits/minmax/w2a8/small: "
        "not%0Ameasured 100%25"
    )
    assert len(lines) == sum(not gate["passed"] for gate in read.cases[0]["gates"])
    assert list(github.commands(read.cases[1:])) == []


def test_github_gets_a_summary_and_annotations(pytester, run, monkeypatch):
    summary = pytester.path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    result = run("--qreliab-bits=w2", "--qreliab-thresholds=default")
    text = summary.read_text()
    assert text.startswith("before\n## ❌ Reliability of 1 quantized case: 0 passed, 1 failed\n")
    assert [line for line in result.outlines if line.startswith("::error file=")]
    run("--co", "-q")
    assert summary.read_text() == text
    monkeypatch.delenv("GITHUB_ACTIONS")
    assert "::error" not in run("--qreliab-bits=w2").stdout.str()


def test_the_summary_tells_of_cases_without_result(pytester, run, monkeypatch, folder_benchmark):
    summary = pytester.path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    (folder_benchmark.parent / "images" / "dog" / "1.png").write_bytes(b"no image")
    run(f"--qreliab-benchmarks={folder_benchmark}", "--qreliab-bits=w8").assert_outcomes(errors=4)
    lines = summary.read_text().splitlines()
    assert lines[0] == "## ❌ Reliability of 1 quantized case: 0 passed, 0 failed, 1 without result"
    assert lines[2].startswith("- ❌ `tiny-digits/minmax/w8/folders` has no result: ")


def test_another_plugin_annotates(pytester, run, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    pytester.makeconftest(
        "def pytest_configure(config):\n"
        "    config.pluginmanager.register(object(), 'pytest_github_actions_annotate_failures')\n"
    )
    assert "::error" not in run("--qreliab-bits=w2").stdout.str()


def test_a_summary_that_cannot_be_written_is_said(pytester, run, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "no" / "summary.md"))
    result = run("--qreliab-bits=w8")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "no/summary.md cannot be written: No such file" in result.stderr.str() + result.stdout.str()


# JUnit


def test_junit_is_what_strict_parsers_take(pytester, run):
    run("--qreliab-bits=w2a8", "--qreliab-controls=weights", "--junit-xml=out.xml")
    junitparser = pytest.importorskip("junitparser")
    (suite,) = junitparser.JUnitXml.fromfile(str(pytester.path / "out.xml"))
    assert (suite.tests, suite.failures, suite.errors) == (4, 4, 0)
    for case in suite:
        properties = {found.get("name"): found.get("value") for found in case._elem.iter("property")}
        assert properties["qreliab.case"] == "tiny-digits/minmax/w2a8/small"
        assert "repeat: pytest" in case.result[0].text
        if case.name.startswith("test_ood"):
            assert properties["ood.auroc.mcm.controls"]
            assert properties["ood.auroc.max_drop.verdict"] == "fail"
        assert all(isinstance(value, str) and "\n" not in value for value in properties.values())


# Tables


def test_csv_and_parquet_are_the_same_long_table(read, tmp_path):
    rows = list(csv.DictReader(io.StringIO(export.to_csv(read))))
    assert tuple(rows[0]) == export.COLUMNS
    assert len(rows) == sum(len(entry["metrics"]) for entry in read.cases)
    gated = [row for row in rows if row["limit"]]
    assert {row["metric"] for row in gated if row["bits"] == "w2a8"} >= {"accuracy", "ood.auroc.mcm"}
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "r.parquet"
    path.write_bytes(export.to_parquet(read))
    of = parquet.read_table(path)
    assert tuple(of.column_names) == export.COLUMNS
    for row, other in zip(rows, of.to_pylist(), strict=True):
        assert row["metric"] == other["metric"]
        assert float(row["quantized"]) == other["quantized"]
        assert row["harm"] == ("" if other["harm"] is None else str(other["harm"]))


# The command


def test_report_writes_every_format_or_shows_the_table(found, command, tmp_path):
    code, lines = command("report", found)
    assert code == 0
    assert "tiny-digits on small (120 samples, cpu)" in lines
    assert lines[-2:] == [
        "smallest passing: minmax w8a8, 0.33 of full size",
        "2 cases: 1 passed, 1 failed, 0 without result",
    ]
    names = [tmp_path / f"r.{suffix}" for suffix in ("md", "html", "csv", "parquet")]
    code, lines = command("report", found, *(f"--output={name}" for name in names))
    assert (code, len(lines)) == (0, 1)
    assert all(name.stat().st_size > 1000 for name in names)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["report", "R", "--output=r.txt"], "--output: r.txt ends in none of .html, .md, .csv, .parquet"),
        (["report", "R", "--output=no/r.md"], "--output: no/r.md cannot be written: No such file or directory"),
        (["report", "none.json"], "none.json: cannot be read: No such file or directory"),
        (["compare", "R", "none.json"], "none.json: cannot be read: No such file or directory"),
        (["compare", "R", "R", "--thresholds=defalt"], "unknown thresholds file 'defalt'; did you mean 'default'?*"),
        (["accept", "R", "--snapshot=R"], "--snapshot: * is a file; give a folder, which need not exist yet"),
    ],
)
def test_arguments_that_cannot_be_used(found, command, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    code, lines = command(*(arg.replace("R", str(found)) if arg.endswith("R") else arg for arg in args))
    assert code == 2
    head, _, tail = f"qreliab: error: {message}".partition("*")
    assert lines[0].startswith(head)
    assert lines[0].endswith(tail) or message.endswith("*")


def test_compare_tells_a_regression(found, read, command, tmp_path):
    later = tmp_path / "later.json"

    def compared() -> tuple[int, list[str]]:
        results_file.write(later, read)
        return command("compare", found, later)

    assert compared() == (0, ["2 cases: 0 regressions, 0 other changes"])
    passing = read.cases[1]
    (accuracy,) = (of for of in passing["metrics"] if of["metric"] == "accuracy")
    accuracy["quantized"] -= 0.02
    code, lines = compared()
    assert code == 1
    assert lines[0] == passing["case"]
    assert lines[1].startswith("  regression: accuracy 0.9833 became 0.9633, beyond max_drift 0.01, ")
    accuracy["quantized"] += 0.04
    assert compared()[0] == 0  # better
    accuracy["quantized"] = math.nan
    assert compared()[0] == 1
    read.cases[1] = deepcopy(results_file.read(found).cases[1])
    read.cases[1]["gates"][0]["passed"] = False
    code, lines = compared()
    assert code == 1
    assert lines[1].startswith("  regression: accuracy passed and fails now: ")
    read.cases[1]["data"]["classes"] = "10 other"
    assert "  change: measured on other data, so that no drift is told: classes" in compared()[1]
    del read.cases[1]
    code, lines = compared()
    assert (code, lines[1]) == (1, "  regression: no result: not in the later run")
    assert command("compare", later, found)[1][1] == "  change: new"


def test_accept_takes_what_passed(found, command, tmp_path):
    folder = tmp_path / "accepted"
    code, lines = command("accept", found, f"--snapshot={folder}")
    assert code == 1
    assert lines == [
        f"accepted into {folder}: 1 new",
        "not accepted, as a gate fails: tiny-digits/minmax/w2a8/small",
    ]
    assert [path.name for path in folder.iterdir()] == ["tiny-digits.json"]
    assert Path(folder / "tiny-digits.json").read_text().count("minmax") == 1
