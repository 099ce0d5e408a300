"""The page with the results: its head and its sections.

It needs no network. Tables are made here; what unfolds is drawn by `page.js`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template

from pytest_qreliab.data.wording import counted
from pytest_qreliab.metrics import registry
from pytest_qreliab.report import tradeoff
from pytest_qreliab.report.html.cells import verdict_sign
from pytest_qreliab.report.html.markup import Markup, breakable, content_digest, script_json, tag
from pytest_qreliab.report.html.matrix import metrics_by_aspect, render_matrix
from pytest_qreliab.report.html.payload import page_data
from pytest_qreliab.report.html.sizes import compare_sizes, render_sizes
from pytest_qreliab.report.queries import passed, skipped_lines, training_lines
from pytest_qreliab.report.records import CaseRecord
from pytest_qreliab.report.results_file import Results

FOLDER = Path(__file__).parent
MOST_NAMED = 20  # failed cases above all others
BETTER = {"higher": "higher is better", "lower": "lower is better", "neither": "any change is harm"}


def render(results: Results) -> str:
    """Return the page.

    Text of the results is escaped in it, or is data that no browser reads as a page.
    """
    records = results.cases
    comparison = compare_sizes(records)
    contents = {
        "notes": ("Notes", _notes(results)),
        "verdicts": ("Verdicts", render_matrix(records)),
        "sizes": ("Size against reliability", render_sizes(comparison)),
        "cases": ("Cases", [_details(index, record) for index, record in enumerate(records)]),
        "metrics": ("Metrics", _glossary(records)),
    }
    sections = {name: (title, content) for name, (title, content) in contents.items() if content}
    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    page = Template((FOLDER / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"{_verdict(results)} - pytest-qreliab"),
        verdict=verdict_sign(_all_good(results)) + " " + escape(_verdict(results)),
        counts=_counts(results),
        made=_origin(results),
        contents=" ".join(tag("a", title, href=f"#{name}") for name, (title, _) in sections.items()),
        sections="\n".join(
            tag("section", tag("h2", title, id=name), *content, aria_labelledby=name)
            for name, (title, content) in sections.items()
        ),
        data=script_json(page_data(records, comparison)),
        style=style,
        style_hash=content_digest(style),
        script=script,
        script_hash=content_digest(script),
    )
    return page.encode(errors="replace").decode()  # a path that is no UTF-8 holds what no page can


def _all_good(results: Results) -> bool:
    return not results.failed() and not results.unmeasured() and not results.exitstatus


def _verdict(results: Results) -> str:
    """Return the verdict on the run in words."""
    count, failed, unmeasured = len(results.plan.cases), len(results.failed()), len(results.unmeasured())
    cases = counted(count, "case")
    if unmeasured == count:
        return f"No result of {cases}"
    if failed or unmeasured:
        return f"{failed or 'None'} of {cases} failed" + (f", {unmeasured} without result" if unmeasured else "")
    if results.exitstatus:
        return f"{cases} passed, but the run failed"
    return f"All {count} cases passed" if count > 1 else f"{cases} passed"


def _counts(results: Results) -> Markup:
    """Return the numbers of cases and gates by what became of them."""
    records, failed = results.cases, len(results.failed())
    gate_records = [gate_record for record in records for gate_record in record["gates"]]
    passing = sum(gate_record["passed"] for gate_record in gate_records)
    counts = {
        "cases passed": len(records) - failed,
        "cases failed": failed,
        "without result": len(results.unmeasured()),
        "gates passed": passing,
        "gates failed": len(gate_records) - passing,
        "gated metrics not judged": sum(len(record["skipped"]) for record in records),
        "inconclusive among them": sum(gate_record["outcome"] == "inconclusive" for gate_record in gate_records),
    }
    shown = {name: count for name, count in counts.items() if count or name.startswith("cases")}
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", f"{count:,}")) for name, count in shown.items()),
        class_="counts",
    )


def _origin(results: Results) -> Markup:
    """Return when and with what the results were measured."""
    try:
        when = datetime.fromisoformat(results.created).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        when = results.created
    shard = "" if results.shard is None else f", shard {results.shard[0]} of {results.shard[1]}"
    status = f", exit status {results.exitstatus}" if results.exitstatus else ""
    version = escape(f", pytest-qreliab {results.qreliab}{shard}{status}")
    return Markup(tag("time", when, datetime=results.created) + version)


def _notes(results: Results) -> list[Markup]:
    """Return lists of what a reader should see first."""
    failed = [
        tag(
            "li", tag("a", *breakable(record["case"]), href=f"#case-{index}"), f": {', '.join(_failed_metrics(record))}"
        )
        for index, record in enumerate(results.cases)
        if not passed(record)
    ]
    if len(failed) > MOST_NAMED:
        failed[MOST_NAMED:] = [tag("li", f"and {len(failed) - MOST_NAMED:,} more")]
    unmeasured = results.unmeasured().items()
    warnings = dict.fromkeys(text for record in results.cases for text in record["warnings"])
    lists = {
        "Failed": failed,
        "Without result": [tag("li", tag("code", case), f" has no result: {why}") for case, why in unmeasured],
        "Warnings": [tag("li", text) for text in warnings],
        "Training data": [tag("li", line) for line in training_lines(results.cases)],
        "Not judged": [tag("li", line.removeprefix("not judged: ")) for line in skipped_lines(results.cases)],
        "Smallest that pass": [tag("li", line) for line in tradeoff.smallest_passing(results.cases)],
    }
    return [
        part for name, items in lists.items() if items for part in (tag("h3", name), tag("ul", *items, class_="notes"))
    ]


def _failed_metrics(record: CaseRecord) -> Iterator[str]:
    """Return the metrics whose gates fail, each once."""
    return iter(dict.fromkeys(gate_record["metric"] for gate_record in record["gates"] if not gate_record["passed"]))


def _details(index: int, record: CaseRecord) -> Markup:
    """Return the head of a case.

    The script fills in the rest when it is opened.
    """
    failed = sum(not gate_record["passed"] for gate_record in record["gates"])
    inconclusive = sum(gate_record["outcome"] == "inconclusive" for gate_record in record["gates"])
    gates = counted(len(record["gates"]), "gate")
    text = f"{failed} of {gates} failed" if failed else f"{gates} passed"
    if inconclusive:
        text += f", {inconclusive} inconclusive"
    heading = tag("h3", verdict_sign(passed(record)), " ", *breakable(record["case"]))
    return tag(
        "details", tag("summary", heading, " ", tag("span", text)), tag("div"), id=f"case-{index}", data_case=index
    )


def _glossary(records: Sequence[CaseRecord]) -> list[Markup]:
    """Return what each gated metric means; nothing without one."""
    metrics = map(registry.lookup, metrics_by_aspect(records))
    rows = [
        tag(
            "div",
            tag("dt", *breakable(metric.name)),
            tag("dd", f"{metric.header}: {metric.help}; {BETTER[metric.better]}"),
        )
        for metric in metrics
    ]
    return [tag("dl", *rows, class_="about")] if rows else []
