"""The results in GitHub's Markdown.

It is for the summary of a workflow's step and for comments on pull requests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pytest_qreliab.config.text_forms import printable
from pytest_qreliab.metrics import registry
from pytest_qreliab.report import tradeoff
from pytest_qreliab.report.formatting import number, size_in_words
from pytest_qreliab.report.queries import (
    baseline_name,
    baseline_values,
    count_skipped,
    drift_failures,
    drift_of,
    gated_metrics,
    group_by_benchmark,
    passed,
    shown_verdict,
    skipped_lines,
    training_lines,
    worst_gates,
)
from pytest_qreliab.report.records import CaseRecord, GateRecord
from pytest_qreliab.report.results_file import Results

SIGNS = {"pass": "✅", "fail": "❌", "inconclusive": "❔"}
ESCAPED = str.maketrans({"<": "&lt;", ">": "&gt;", **{sign: f"\\{sign}" for sign in "\\`*_[]|#~"}})


def render(results: Results) -> str:
    """Return the results in Markdown.

    Failures come first, then a table for each model and benchmark.
    """
    records, unmeasured = results.cases, results.unmeasured()
    failed = [record for record in records if not passed(record)]
    counts = [f"{len(records) - len(failed)} passed", f"{len(failed)} failed"]
    counts += [f"{len(unmeasured)} without result"] if unmeasured else []
    counts += filter(None, [count_skipped(records)])
    sign = SIGNS["fail" if failed or unmeasured else "pass"]
    count = len(results.plan.cases)
    lines = [f"## {sign} Reliability of {count} quantized case{'s' * (count > 1)}: {', '.join(counts)}", ""]
    lines += [f"- ❌ {_code(case)} has no result: {_escape(why)}" for case, why in unmeasured.items()]
    warnings = dict.fromkeys(text for record in records for text in record["warnings"])
    lines += [f"- ⚠️ {_escape(warning)}" for warning in warnings]
    lines += [f"- {_escape(line)}" for line in training_lines(records)]
    lines += [f"- ⏭️ {_escape(line)}" for line in skipped_lines(records)]
    lines += [f"- {_escape(line)}" for line in tradeoff.smallest_passing(records)]
    for record in failed:
        lines += ["", *_failure(record)]
    for (model, benchmark), members in group_by_benchmark(records).items():
        lines += ["", f"### {_escape(model)} on {_escape(benchmark)}", "", *_table(members)]
    return "\n".join(lines) + "\n"


def _failure(record: CaseRecord) -> list[str]:
    """Return the failed gates of a case and its command."""
    lines = [
        f"#### ❌ {_escape(record['quantization'])}: {_escape(record['model'])} on {_escape(record['benchmark'])}",
        "",
    ]
    lines += _table_lines(
        ["metric", "full precision", "quantized", "harm", "limit", "where"],
        (
            [
                f"{SIGNS[shown_verdict(gate_record)]} {_escape(gate_record['metric'])}",
                number(gate_record["baseline"])
                if gate_record["accepted"] is None
                else f"{number(gate_record['accepted'])} (accepted)",
                number(gate_record["quantized"]),
                _harm(gate_record),
                f"{gate_record['limit']} {gate_record['value']:g}",
                _code(gate_record["where"]),
            ]
            for gate_record in record["gates"]
            if not gate_record["passed"]
        ),
    )
    fence = _fence(record["repeat"], 3)
    return [*lines, "", f"{fence}sh", record["repeat"], fence]


def _harm(gate_record: GateRecord) -> str:
    """Return the harm with its interval, or why there is none."""
    if gate_record["problem"]:
        return _escape(gate_record["problem"])
    bounds = ""
    if gate_record["low"] is not None and gate_record["high"] is not None:
        bounds = f" ({number(gate_record['low'])} to {number(gate_record['high'])})"
    spread = gate_record["kernel_spread"]
    kernels = "" if spread is None else f" (kernels: {number(spread)})"
    return number(gate_record["harm"]) + bounds + kernels


def _table(records: Sequence[CaseRecord]) -> list[str]:
    """Return the table of the cases below their baselines, by gated metric.

    A cell holds the value and its change from full precision. The table is turned if it is wider than high.
    """
    metrics = gated_metrics(records)
    table = [["", "size", *(_escape(registry.lookup(metric).header) for metric in metrics)]]
    for rescaled in dict.fromkeys(record["rescaled"] for record in records):
        members = [record for record in records if record["rescaled"] == rescaled]
        baseline = baseline_values(members)
        full_sizes = [record["size"]["full"] for record in members if record["size"] is not None]
        full_precision = [number(baseline[metric]) if metric in baseline else "" for metric in metrics]
        size = size_in_words(full_sizes[0]) if full_sizes else ""
        table.append([baseline_name(rescaled), size, *full_precision])
        table += [_row(record, metrics) for record in members]
    if len(table[0]) > len(table):
        table = [list(row) for row in zip(*table, strict=True)]
    return _table_lines(table[0], table[1:])


def _row(record: CaseRecord, metrics: Sequence[str]) -> list[str]:
    size = record["size"]
    share = "" if size is None else f"{size['quantized'] / size['full']:.2f}"
    return [_escape(record["quantization"]), share, *(_cell(record, metric) for metric in metrics)]


def _cell(record: CaseRecord, metric: str) -> str:
    """Return the value with its changes, each with a sign."""
    gate_record, drift_record = worst_gates(record).get(metric), drift_failures(record).get(metric)
    if gate_record is None:
        return ""
    change = number(gate_record["quantized"] - gate_record["baseline"], "+")
    lines = [number(gate_record["quantized"]), f"{change}&nbsp;{SIGNS[shown_verdict(gate_record)]}"]
    if drift_record is not None:
        lines.append(f"{number(drift_of(drift_record), '+')} from accepted&nbsp;{SIGNS[shown_verdict(drift_record)]}")
    return "<br>".join(lines)


def _table_lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    table = [head, ["---", *("--:" for _ in head[1:])], *rows]
    return [f"| {' | '.join(cells)} |" for cells in table]


def _escape(text: str) -> str:
    """Return text on one line in which nothing is markup."""
    return printable(" ".join(text.split())).translate(ESCAPED)


def _code(text: str) -> str:
    """Return text on one line as code, also in a cell of a table."""
    line = printable(" ".join(text.split())).replace("|", "\\|")
    fence = _fence(line, 1)
    gap = " " * (fence != "`")
    return f"{fence}{gap}{line}{gap}{fence}"


def _fence(text: str, least: int) -> str:
    """Return more backticks than stand side by side in the text."""
    return "`" * max(least, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
