"""The results as one page that needs no network: tables are made here, what unfolds is drawn by `page/page.js`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template

from pytest_qreliab.metrics import registry
from pytest_qreliab.report import tradeoff
from pytest_qreliab.report.html.markup import (
    Markup,
    as_json,
    content_digest,
    counted,
    sign,
    tag,
)
from pytest_qreliab.report.html.matrix import BETTER, metrics_of, name_parts, verdict_tables
from pytest_qreliab.report.html.payload import page_data
from pytest_qreliab.report.html.sizes import find_fronts, size_data, size_section
from pytest_qreliab.report.records import CaseRecord, passed
from pytest_qreliab.report.results_file import Results

PAGE = Path(__file__).parent
MOST_NAMED = 20  # failed cases above all others


def render(results: Results) -> str:
    """The page. Whatever comes from the results is escaped in it, or is data that no browser reads as a page."""
    entries = results.cases
    candidates = tradeoff.candidates(entries)
    keys = list(dict.fromkeys(key for candidate in candidates for key in candidate.harms))
    fronts = find_fronts(candidates, keys)
    sections = {
        "notes": ("Notes", _notes(results)),
        "verdicts": ("Verdicts", verdict_tables(entries)),
        "sizes": ("Size against reliability", size_section(candidates, keys, fronts)),
        "cases": ("Cases", [_details(index, entry) for index, entry in enumerate(entries)]),
        "metrics": ("Metrics", _glossary(entries)),
    }
    there = {name: (title, content) for name, (title, content) in sections.items() if content}
    style, script = ((PAGE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    page = Template((PAGE / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"{verdict_line(results)} - pytest-qreliab"),
        verdict=sign("pass" if all_good(results) else "fail") + " " + escape(verdict_line(results)),
        counts=_counts(results),
        made=_made(results),
        contents=" ".join(tag("a", title, href=f"#{name}") for name, (title, _) in there.items()),
        sections="\n".join(
            tag("section", tag("h2", title, id=name), *content, aria_labelledby=name)
            for name, (title, content) in there.items()
        ),
        data=as_json({**page_data(entries), "sizes": size_data(candidates, keys, fronts)}),
        style=style,
        style_hash=content_digest(style),
        script=script,
        script_hash=content_digest(script),
    )
    return page.encode(errors="replace").decode()  # a path that is no UTF-8 holds what no page can


# Markup


# The head


def all_good(results: Results) -> bool:
    return not results.failed() and not results.unmeasured() and not results.exitstatus


def verdict_line(results: Results) -> str:
    count, failed, without = len(results.plan.cases), len(results.failed()), len(results.unmeasured())
    if without == count:
        return f"No result of {counted(count, 'case')}"
    if failed or without:
        said = f"{failed or 'None'} of {counted(count, 'case')} failed"
        return said + (f", {without} without result" if without else "")
    if results.exitstatus:
        return f"{counted(count, 'case')} passed, but the run failed"
    return f"All {count} cases passed" if count > 1 else f"{counted(count, 'case')} passed"


def _counts(results: Results) -> Markup:
    entries, failed = results.cases, len(results.failed())
    gates = [gate for entry in entries for gate in entry["gates"]]
    passing = sum(gate["passed"] for gate in gates)
    found = {
        "cases passed": len(entries) - failed,
        "cases failed": failed,
        "without result": len(results.unmeasured()),
        "gates passed": passing,
        "gates failed": len(gates) - passing,
        "inconclusive among them": sum(gate["outcome"] == "inconclusive" for gate in gates),
    }
    shown = {name: count for name, count in found.items() if count or name.startswith("cases")}
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", f"{count:,}")) for name, count in shown.items()),
        class_="counts",
    )


def _made(results: Results) -> Markup:
    try:
        when = datetime.fromisoformat(results.created).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        when = results.created
    shard = "" if results.shard is None else f", shard {results.shard[0]} of {results.shard[1]}"
    status = f", exit status {results.exitstatus}" if results.exitstatus else ""
    version = escape(f", pytest-qreliab {results.qreliab}{shard}{status}")
    return Markup(tag("time", when, datetime=results.created) + version)


def _notes(results: Results) -> list[Markup]:
    without = [tag("li", tag("code", case), f" has no result: {why}") for case, why in results.unmeasured().items()]
    warned = dict.fromkeys(text for entry in results.cases for text in entry["warnings"])
    warnings = [tag("li", text) for text in warned]
    smallest = [tag("li", line) for line in tradeoff.smallest_passing(results.cases)]
    failed = [
        tag("li", tag("a", *name_parts(entry["case"]), href=f"#case-{index}"), f": {', '.join(_failed(entry))}")
        for index, entry in enumerate(results.cases)
        if not passed(entry)
    ]
    if len(failed) > MOST_NAMED:
        failed[MOST_NAMED:] = [tag("li", f"and {len(failed) - MOST_NAMED:,} more")]
    lists = {"Failed": failed, "Without result": without, "Warnings": warnings, "Smallest that pass": smallest}
    return [
        part for name, items in lists.items() if items for part in (tag("h3", name), tag("ul", *items, class_="notes"))
    ]


def _failed(entry: CaseRecord) -> Iterator[str]:
    """The metrics whose gates fail, once each."""
    return iter(dict.fromkeys(gate["metric"] for gate in entry["gates"] if not gate["passed"]))


# The matrix


# Size against reliability


# Cases


def _details(index: int, entry: CaseRecord) -> Markup:
    """The head of a case; the script fills in the rest when it is opened."""
    failed = sum(not gate["passed"] for gate in entry["gates"])
    gates = counted(len(entry["gates"]), "gate")
    said = f"{failed} of {gates} failed" if failed else f"{gates} passed"
    if unsure := sum(gate["outcome"] == "inconclusive" for gate in entry["gates"]):
        said += f", {unsure} inconclusive"
    heading = tag("h3", sign("pass" if passed(entry) else "fail"), " ", *name_parts(entry["case"]))
    return tag(
        "details", tag("summary", heading, " ", tag("span", said)), tag("div"), id=f"case-{index}", data_case=index
    )


def _glossary(entries: Sequence[CaseRecord]) -> list[Markup]:
    known = [registry.lookup(metric) for metric in metrics_of(entries)]
    rows = [
        tag("div", tag("dt", *name_parts(of.name)), tag("dd", f"{of.header}: {of.help}; {BETTER[of.better]}"))
        for of in known
    ]
    return [tag("dl", *rows, class_="about")] if rows else []


# What the script draws
