"""Names that mean something to a terminal, to a page or to a file, through everything that writes them."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_qreliab.config.text_forms import printable
from pytest_qreliab.report import export, files, github, markdown, results_file, self_check, terminal
from pytest_qreliab.report.html import page

NAMES = {
    "end tag": "[/]",
    "style": "[red]",
    "braces": "{} {0} ${verdict}",
    "tag": "<b>x</b>",
    "script": "</script><script>alert(1)</script>",
    "entity": "&amp; &",
    "percent": "%s %(x)d 100%",
    "quotes": '"it\'s"',
    "pipe": "a|b`c``d*e_f~",
    "newline": "one\ntwo\r\nthree",
    "long": "x" * 300,
    "emoji": "👩\u200d👧 ok",
    "right to left": "עברית \u202eabc",
    "control": "\x1b[31mred\x07\x00",
    "separator": "a\u2028b\u2029c",
    "no utf-8": "a\udcffb",
    "dollar": "$x_1$ and $",
    "formula": "=1+1",
    "spaces": "  two  spaces ",
}


@pytest.fixture(params=NAMES.values(), ids=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture
def record(build, name):
    """The record of a case in which every free name is that one."""
    metric = f"recall.{name}"
    made = build.case(model=name, benchmark=name, warnings=[f"warning of {name}"], skipped={metric: f"no {name}"})
    gate = {**made["gates"][0], "metric": metric, "passed": False, "outcome": "fail", "where": f"{name}.yaml:3"}
    changes = {metric: [(0.1, 0.0, 0.2)]}
    made["controls"] = {
        "matched": "weights",
        "problem": "",
        "residuals": {name: 0.1},
        "changes": changes,
        "conclusions": {metric: f"as {name}"},
    }
    metrics = [{**made["metrics"][0], "metric": metric}, *made["metrics"][1:3]]
    repeat = "pytest"  # which holds options as they were given
    return {
        **made,
        "repeat": repeat,
        "quantization": f"{name} w4",
        "gates": [gate, *made["gates"][1:2]],
        "metrics": metrics,
    }


@pytest.fixture
def results(record):
    return results_file.Results(
        qreliab="0.1.0",
        created="2026-01-01T00:00:00+00:00",
        shard=None,
        plan=results_file.Planned(digest="d", cases=[record["case"], "other"]),
        cases=[record],
        errors={"other": record["model"]},
        exitstatus=1,
    )


def assert_plain(text: str) -> None:
    """Check that nothing in the lines steers a terminal."""
    assert all(line == printable(line) for line in text.split("\n"))


def test_the_tables_of_a_terminal(record, name):
    text = terminal.render([record], terminal.Output(80, color=False, unicode=True))
    assert_plain(text)
    assert f"{printable(name)} on {printable(name)}" in text
    assert "0.9000" in text
    assert "\n".join(terminal.notes([record])).count(printable(f"warning of {name}")) == 1
    assert_plain("\n".join(terminal.notes([record])))


def test_the_table_of_a_self_check(name):
    gates = [(f"recall.{name}", "max_drop", 0.02, 0.01, 0.0625)]
    counts = {"samples": 120, "replicates": 200, "failed": 9, "allowed": 0.05, "passed": True}
    made = {"case": name, "device": "cpu", "gates": gates, "left_out": [name], **counts}
    text = self_check.render([made], terminal.Output(400, color=False, unicode=True))
    assert_plain(text)
    assert f"recall.{printable(name)}" in text
    assert text.startswith(printable(name))


def test_json(results, name, tmp_path):
    results_file.write(tmp_path / "it.json", results)
    assert results_file.read(tmp_path / "it.json").cases[0]["model"] == name


class Page(HTMLParser):
    """A page as a browser reads it: its elements, and the text of those that are not data."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.elements.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html(results, build, name):
    read = Page()
    read.feed(page.render(results))
    assert read.elements.count("script") == 2
    shown = name.encode(errors="replace").decode().replace("\r", "")
    assert shown in "".join(read.text).replace("\r", "")


def test_markdown(results, name):
    text = markdown.render(results)
    lines = text.splitlines()
    assert lines == text.split("\n")[:-1]
    assert "<script" not in re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", text)  # but in code, where it is text
    assert_plain(text)
    (head,) = [line for line in lines if line.startswith("### ")]
    plain = re.sub(r"\\([\\`*_\[\]|#~])", r"\1", head).replace("&lt;", "<").replace("&gt;", ">")
    words = printable(" ".join(name.split()))
    assert plain == f"### {words} on {words}"
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(cells) == 1


def test_csv_and_parquet(results, name, tmp_path):
    files.write(tmp_path / "it.csv", export.to_csv(results))
    with (tmp_path / "it.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["metric"] == f"recall.{name}".encode(errors="backslashreplace").decode()
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(io.BytesIO(export.to_parquet(results))).to_pylist()
    assert [row["model"] for row in table] == [row["model"] for row in rows]


def test_annotations(record, name):
    lines = list(github.commands([record]))
    assert len(lines) == 1
    assert_plain(lines[0])
    properties, _, message = lines[0].removeprefix("::error ").partition("::")
    assert message.startswith(printable(name).replace("%", "%25").split("\\n")[0].split("\\r")[0])
    assert [part.partition("=")[0] for part in properties.split(",")] == ["file", "line", "title"]


def test_names_of_files_and_folders(name, tmp_path):
    (tmp_path / files.safe_name(name)).mkdir()
    assert len(list(tmp_path.iterdir())) == 1


@given(st.text())
def test_printable_text_stays_so_and_tells_the_same(text):
    shown = printable(text)
    assert "\n" not in shown
    assert printable(shown) == shown
    shown.encode("utf-8")
    if text.isprintable():
        assert shown == text


# Through a run


@pytest.mark.usefixtures("everything_imported")
def test_class_names_through_a_whole_run(pytester, small_benchmark, monkeypatch, kept):
    """The names of classes reach the terminal, JUnit, JSON, HTML, figures and the summary of a GitHub step."""
    chosen = ("end tag", "style", "braces", "script", "percent", "quotes", "pipe", "long", "emoji", "dollar")
    classes = [NAMES[kind].strip() for kind in chosen]
    text = re.sub(
        r"classes: .*", lambda found: f"classes: {json.dumps(classes, ensure_ascii=False)}", small_benchmark.read_text()
    )
    pytester.path.joinpath("b.yaml").write_text(text)
    gates = {f"recall.{name}": {"max_drop": 0.001} for name in classes}
    pytester.path.joinpath("t.yaml").write_text(json.dumps({"version": 1, "gates": gates}, ensure_ascii=False))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "summary.md"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    result = pytester.runpytest_inprocess(
        "--qreliab-benchmarks=b.yaml", "--qreliab-thresholds=t.yaml", "--qreliab-bits=w2", "--qreliab-json=r.json",
        "--qreliab-html=r.html", "--qreliab-figures=figures", "--junit-xml=r.xml",
        f"--qreliab-cache-dir={kept}", "-p", "no:cacheprovider",
    )  # fmt: skip
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (record,) = results_file.read(pytester.path / "r.json").cases
    assert {gate["metric"] for gate in record["gates"]} == set(gates)
    (case,) = ElementTree.parse(pytester.path / "r.xml").iter("testcase")
    properties = {each.get("name") for each in case.iter("property")}
    assert {f"recall.{name}.max_drop.verdict" for name in classes} <= properties
    assert "alert(1)" in (pytester.path / "r.html").read_text()
    assert (pytester.path / "summary.md").read_text().startswith("## ❌")
    assert "[red]" in result.stdout.str()
    assert len(list((pytester.path / "figures").rglob("*.png"))) > 3


# What fails is told at the end, and costs nothing else


@pytest.mark.usefixtures("everything_imported")
@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ("terminal.render", "the table cannot be made: MarkupError: nothing to close"),
        ("html.page.render", "*r.html cannot be made: MarkupError: nothing to close"),
        ("markdown.render", "*summary.md cannot be made: MarkupError: nothing to close"),
    ],
)
def test_a_report_that_fails_costs_no_other_and_is_said(pytester, small_benchmark, monkeypatch, kept, broken, what):
    class MarkupError(Exception):
        pass

    def fail(*given):
        raise MarkupError("nothing to close")

    monkeypatch.setattr(f"pytest_qreliab.report.{broken}", fail)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "summary.md"))
    result = pytester.runpytest_inprocess(
        f"--qreliab-benchmarks={small_benchmark}", f"--qreliab-cache-dir={kept}",
        "--qreliab-bits=w8", "--qreliab-json=r.json", "--qreliab-html=r.html",
    )  # fmt: skip
    result.assert_outcomes(passed=4)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert len(results_file.read(pytester.path / "r.json").cases) == 1
    made = {path.name for path in pytester.path.iterdir()} & {"r.html", "summary.md"}
    assert made == {"r.html", "summary.md"} - {re.sub(r".*?([\w.]*) cannot.*", r"\1", what)}
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    result.stderr.fnmatch_lines([f"*qreliab: {what}*"])
