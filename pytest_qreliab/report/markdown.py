"""The results in GitHub's Markdown: for the summary of a workflow's step, and for a comment on a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_qreliab.metrics import registry
from pytest_qreliab.report import formatting, tradeoff
from pytest_qreliab.report.formatting import number
from pytest_qreliab.report.records import (
    CaseRecord,
    GateRecord,
    drift_failures,
    drift_of,
    passed,
    shown_verdict,
    worst_gates,
)
from pytest_qreliab.report.results_file import Results

SIGNS = {"pass": "✅", "fail": "❌", "inconclusive": "❔"}
ESCAPED = str.maketrans({"<": "&lt;", ">": "&gt;", **{sign: f"\\{sign}" for sign in "\\`*_[]|#~"}})


def render(results: Results) -> str:
    """What failed first, then all of it in tables, one per model and benchmark."""
    entries, without = results.cases, results.unmeasured()
    failed = [entry for entry in entries if not passed(entry)]
    counts = [f"{len(entries) - len(failed)} passed", f"{len(failed)} failed"]
    counts += [f"{len(without)} without result"] if without else []
    sign = SIGNS["fail" if failed or without else "pass"]
    count = len(results.plan.cases)
    lines = [f"## {sign} Reliability of {count} quantized case{'s' * (count > 1)}: {', '.join(counts)}", ""]
    lines += [f"- ❌ `{case}` has no result: {_text(why)}" for case, why in without.items()]
    warnings = dict.fromkeys(text for entry in entries for text in entry["warnings"])
    lines += [f"- ⚠️ {_text(warning)}" for warning in warnings]
    lines += [f"- {_text(line)}" for line in tradeoff.smallest_passing(entries)]
    for entry in failed:
        lines += ["", *_failure(entry)]
    groups: dict[tuple[str, str], list[CaseRecord]] = {}
    for entry in entries:
        groups.setdefault((entry["model"], entry["benchmark"]), []).append(entry)
    for (model, benchmark), rows in groups.items():
        lines += ["", f"### {_text(model)} on {_text(benchmark)}", "", *_table(rows)]
    return "\n".join(lines) + "\n"


def _failure(entry: CaseRecord) -> list[str]:
    lines = [f"#### ❌ {_text(entry['quantization'])}: {_text(entry['model'])} on {_text(entry['benchmark'])}", ""]
    lines += _rows(
        ["metric", "full precision", "quantized", "harm", "limit", "where"],
        (
            [
                f"{SIGNS[shown_verdict(gate)]} {_text(gate['metric'])}",
                number(gate["baseline"]) if gate["accepted"] is None else f"{number(gate['accepted'])} (accepted)",
                number(gate["quantized"]),
                _harm(gate),
                f"{gate['limit']} {gate['value']:g}",
                f"`{gate['where']}`",
            ]
            for gate in entry["gates"]
            if not gate["passed"]
        ),
    )
    return [*lines, "", "```sh", entry["repeat"], "```"]


def _harm(gate: GateRecord) -> str:
    if gate["problem"]:
        return _text(gate["problem"])
    bounds = ""
    if gate["low"] is not None and gate["high"] is not None:
        bounds = f" ({number(gate['low'])} to {number(gate['high'])})"
    return number(gate["harm"]) + bounds


def _table(rows: Sequence[CaseRecord]) -> Iterator[str]:
    """The baseline and the cases by gated metrics: the value, and the change from full precision. What there is more
    of goes down the page."""
    metrics = list(dict.fromkeys(metric for row in rows for metric in worst_gates(row)))
    head = ["", "size", *(registry.lookup(metric).header for metric in metrics)]
    body: list[list[str]] = []
    for rescaled in dict.fromkeys(row["rescaled"] for row in rows):
        below = [row for row in rows if row["rescaled"] == rescaled]
        baseline = {metric: gate["baseline"] for row in below for metric, gate in worst_gates(row).items()}
        sizes = [row["size"]["full"] for row in below if row["size"] is not None]
        body.append(
            [
                "full precision" + "+rescale" * rescaled,
                formatting.size_in_words(sizes[0]) if sizes else "",
                *(number(baseline[metric]) if metric in baseline else "" for metric in metrics),
            ]
        )
        for row in below:
            size = row["size"]
            share = "" if size is None else f"{size['quantized'] / size['full']:.2f}"
            body.append([_text(row["quantization"]), share, *(_cell(row, metric) for metric in metrics)])
    table = [head, *body]
    if len(head) > len(table):
        table = [list(row) for row in zip(*table, strict=True)]
    yield from _rows(table[0], table[1:])


def _cell(row: CaseRecord, metric: str) -> str:
    gate, drifting = worst_gates(row).get(metric), drift_failures(row).get(metric)
    if gate is None:
        return ""
    change = number(gate["quantized"] - gate["baseline"], "+")
    lines = [number(gate["quantized"]), f"{change}&nbsp;{SIGNS[shown_verdict(gate)]}"]
    if drifting is not None:
        lines.append(f"{number(drift_of(drifting), '+')} from accepted&nbsp;{SIGNS[shown_verdict(drifting)]}")
    return "<br>".join(lines)


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]] | Iterator[Sequence[str]]) -> list[str]:
    table = [list(head), ["---", *("--:" for _ in head[1:])], *rows]
    return [f"| {' | '.join(cells)} |" for cells in table]


def _text(text: str) -> str:
    """Text in which nothing is markup."""
    return " ".join(text.translate(ESCAPED).split())
