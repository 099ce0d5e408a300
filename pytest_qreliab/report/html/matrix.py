"""The matrix of verdicts by case and gated metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from pytest_qreliab.metrics import registry
from pytest_qreliab.metrics.definitions import ASPECTS
from pytest_qreliab.report import formatting
from pytest_qreliab.report.html.cells import column_class, gate_state, number_text, sign, verdict_sign, word_cell
from pytest_qreliab.report.html.markup import Markup, breakable, scroll_frame, select, tag
from pytest_qreliab.report.queries import (
    baseline_name,
    baseline_values,
    drift_failures,
    drift_of,
    gated_metrics,
    passed,
    worst_gates,
)
from pytest_qreliab.report.records import CaseRecord, GateRecord

# Columns that are left out if all cases agree.
COLUMNS: Mapping[str, Callable[[CaseRecord], str]] = {
    "model": lambda record: record["model"],
    "benchmark": lambda record: record["benchmark"],
    "bits": lambda record: record["bits"],
    "scope": lambda record: record["scope"],
    "coverage": lambda record: formatting.coverage(record["coverage"], record["product_coverage"]),
    "samples": lambda record: f"{record['samples']:,}",
}
BASELINE_COLUMNS = ("model", "benchmark", "samples")  # full precision has a value in them as well


@dataclass(frozen=True)
class MatrixLayout:
    """The columns of the matrix that depend on the records."""

    columns: Sequence[str]  # of `COLUMNS`
    sized: bool  # whether there is a column of sizes
    metrics: Sequence[str]


def render_matrix(records: Sequence[CaseRecord]) -> list[Markup]:
    """Return the matrix below its filters; nothing without records.

    The cases of a baseline follow it. The caption says in what all cases agree.
    """
    if not records:
        return []
    values = {name: {column(record) for record in records} for name, column in COLUMNS.items()}
    layout = MatrixLayout(
        columns=[name for name, different in values.items() if len(different) > 1],
        sized=any(record["size"] is not None for record in records),
        metrics=metrics_by_aspect(records),
    )
    shared = ", ".join(f"{name} {next(iter(same))}" for name, same in values.items() if len(same) == 1)
    caption = tag(
        "caption",
        "Each value with its change from full precision below it. ",
        "Size is the share of full precision. " * layout.sized,
        f"All cases: {shared}." if shared else "",
    )
    groups: dict[tuple[str, str, bool], list[tuple[int, CaseRecord]]] = {}
    for index, record in enumerate(records):
        groups.setdefault((record["model"], record["benchmark"], record["rescaled"]), []).append((index, record))
    rows = []
    for group, members in enumerate(groups.values()):
        rows.append(_baseline_row([record for _, record in members], layout, group))
        rows += [_case_row(index, record, layout, group) for index, record in members]
    table = tag("table", caption, _head(layout), tag("tbody", *rows), id="matrix")
    return [_filters(layout.metrics), scroll_frame(table, "Table of verdicts")]


def metrics_by_aspect(records: Iterable[CaseRecord]) -> list[str]:
    """Return the gated metrics, aspect by aspect."""
    return sorted(gated_metrics(records), key=lambda metric: ASPECTS.index(registry.lookup(metric).aspect))


def _head(layout: MatrixLayout) -> Markup:
    """Return the names of the columns below those of the aspects."""
    aspects = [
        tag("th", aspect.upper() if aspect == "ood" else aspect, scope="colgroup", colspan=len(list(metrics)))
        for aspect, metrics in groupby(registry.lookup(metric).aspect for metric in layout.metrics)
    ]
    columns = [*layout.columns, *["size"] * layout.sized, "gates"]
    names = [
        tag("th", "case", scope="col"),
        *(tag("th", column, scope="col", class_=column_class(column)) for column in columns),
    ]
    for name in layout.metrics:
        metric = registry.lookup(name)
        names.append(tag("th", metric.header, scope="col", title=metric.help, data_aspect=metric.aspect))
    return tag("thead", tag("tr", tag("td", colspan=len(columns) + 1), *aspects), tag("tr", *names))


def _baseline_row(members: Sequence[CaseRecord], layout: MatrixLayout, group: int) -> Markup:
    """Return the row of full precision. Its size is the whole."""
    values = baseline_values(members)
    cells = [
        word_cell(name, COLUMNS[name](members[0])) if name in BASELINE_COLUMNS else tag("td") for name in layout.columns
    ]
    cells += [tag("td", "1.00" if any(record["size"] is not None for record in members) else "")] * layout.sized
    cells.append(tag("td"))
    cells += [tag("td", number_text(values[metric]) if metric in values else "") for metric in layout.metrics]
    label = baseline_name(members[0]["rescaled"])
    return tag("tr", tag("th", label, scope="row"), *cells, class_="full", data_group=group)


def _case_row(index: int, record: CaseRecord, layout: MatrixLayout, group: int) -> Markup:
    size, gate_records, drift_records = record["size"], worst_gates(record), drift_failures(record)
    link = tag("a", *breakable(record["quantization"]), href=f"#case-{index}")
    head = tag("th", verdict_sign(passed(record)), " ", link, scope="row")
    cells = [word_cell(name, COLUMNS[name](record)) for name in layout.columns]
    if layout.sized:
        cells.append(tag("td", "" if size is None else f"{size['quantized'] / size['full']:.2f}"))
    count = sum(gate_record["passed"] for gate_record in record["gates"])
    cells.append(tag("td", f"{count} of {len(record['gates'])}"))
    cells += [
        _metric_cell(gate_records[metric], drift_records.get(metric)) if metric in gate_records else tag("td")
        for metric in layout.metrics
    ]
    return tag("tr", head, *cells, data_case=index, data_group=group)


def _metric_cell(gate_record: GateRecord, drift_record: GateRecord | None) -> Markup:
    """Return the value with its changes, each with a sign."""
    state = gate_state(gate_record)
    content = [sign(state), " ", number_text(gate_record["quantized"])]
    content.append(tag("small", number_text(gate_record["quantized"] - gate_record["baseline"], "+")))
    if drift_record is not None:
        state = "fail"
        content.append(tag("small", sign(state), f" {number_text(drift_of(drift_record), '+')} from accepted"))
    return tag("td", *content, class_=state)


def _filters(metrics: Sequence[str]) -> Markup:
    """Return the form that narrows the matrix and the cases.

    It is hidden until the script has run that makes it work.
    """
    aspects = {"": "all"} | {(aspect := registry.lookup(metric).aspect): aspect for metric in metrics}
    verdicts = {"": "all", "fail": "failed", "pass": "passed", "inconclusive": "with inconclusive gates"}
    return tag(
        "form",
        tag("label", "Case ", tag("input", id="text", type="search", placeholder="part of a name")),
        tag("label", "Verdict ", select("verdict", verdicts)),
        tag("label", "Aspect ", select("aspect", aspects)),
        tag("label", "Sort by ", select("by", {"value": "value", "change": "change"})),
        tag("p", id="shown", role="status"),
        id="filters",
        hidden="",
    )
