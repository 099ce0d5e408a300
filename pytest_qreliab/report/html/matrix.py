"""The table of cases and metrics."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from pytest_qreliab.metrics import registry
from pytest_qreliab.report.html.markup import (
    Markup,
    gate_state,
    number_cell,
    option_tags,
    scroller,
    sign,
    tag,
)
from pytest_qreliab.report.records import CaseRecord, GateRecord, drift_failures, drift_of, passed, worst_gates

BETTER = {"higher": "higher is better", "lower": "lower is better", "neither": "any change is harm"}
SHARED: dict[str, Callable[[CaseRecord], str]] = {
    "model": lambda entry: entry["model"],
    "benchmark": lambda entry: entry["benchmark"],
    "bits": lambda entry: entry["bits"],
    "scope": lambda entry: entry["scope"],
    "coverage": lambda entry: "recorded" if entry["coverage"] is None else f"{entry['coverage']:.1%}",
    "samples": lambda entry: f"{entry['samples']:,}",
}
OF_BASELINE = ("model", "benchmark", "samples")  # what full precision has as well
WORDS = ("model", "benchmark", "bits", "scope")
LONG = 28  # letters: what is longer may break


def words(column: str, text: str) -> Markup:
    """A cell of a column that may hold words."""
    if len(text) > LONG:
        return tag("td", *name_parts(text), class_="text long")
    return tag("td", text, class_=text_class(column))


def metrics_of(entries: Iterable[CaseRecord]) -> list[str]:
    """The gated metrics, aspect by aspect."""
    found = dict.fromkeys(metric for entry in entries for metric in worst_gates(entry))
    return sorted(found, key=lambda metric: registry.ASPECTS.index(registry.lookup(metric).aspect))


def verdict_tables(entries: Sequence[CaseRecord]) -> list[Markup]:
    """A row per case below its baseline, a column per gated metric. What all cases share is said above them."""
    if not entries:
        return []
    metrics = metrics_of(entries)
    values = {name: {of(entry) for entry in entries} for name, of in SHARED.items()}
    columns = [name for name, found in values.items() if len(found) > 1]
    shared = ", ".join(f"{name} {next(iter(found))}" for name, found in values.items() if len(found) == 1)
    sized = any(entry["size"] is not None for entry in entries)
    heads = [*columns, *["size"] * sized, "gates"]
    caption = tag(
        "caption",
        "Each value with its change from full precision below it. ",
        "Size is the share of full precision. " * sized,
        f"All cases: {shared}." if shared else "",
    )
    groups: dict[tuple[str, str, bool], list[tuple[int, CaseRecord]]] = {}
    for index, entry in enumerate(entries):
        groups.setdefault((entry["model"], entry["benchmark"], entry["rescaled"]), []).append((index, entry))
    rows = []
    for group, members in enumerate(groups.values()):
        rows.append(baseline_row([entry for _, entry in members], columns, metrics, sized, group))
        rows += [row(index, entry, columns, metrics, sized, group) for index, entry in members]
    table = tag("table", caption, head(heads, metrics), tag("tbody", *rows), id="matrix")
    return [filters(metrics), scroller(table, "Table of verdicts")]


def head(heads: Sequence[str], metrics: Sequence[str]) -> Markup:
    aspects = [
        tag("th", aspect.upper() if aspect == "ood" else aspect, scope="colgroup", colspan=len(list(found)))
        for aspect, found in groupby(registry.lookup(metric).aspect for metric in metrics)
    ]
    names = [
        tag("th", "case", scope="col"),
        *(tag("th", head, scope="col", class_=text_class(head)) for head in heads),
    ]
    for metric in metrics:
        known = registry.lookup(metric)
        names.append(tag("th", known.header, scope="col", title=known.help, data_aspect=known.aspect))
    return tag("thead", tag("tr", tag("td", colspan=len(heads) + 1), *aspects), tag("tr", *names))


def baseline_row(
    members: Sequence[CaseRecord], columns: Sequence[str], metrics: Sequence[str], sized: bool, group: int
) -> Markup:
    """What the cases below are compared with. Its size is the whole."""
    baseline = {metric: gate["baseline"] for entry in members for metric, gate in worst_gates(entry).items()}
    cells = [words(name, SHARED[name](members[0])) if name in OF_BASELINE else tag("td") for name in columns]
    cells += [tag("td", "1.00" if any(entry["size"] is not None for entry in members) else "")] * sized
    cells += [tag("td"), *(tag("td", number_cell(baseline[of]) if of in baseline else "") for of in metrics)]
    label = "full precision" + "+rescale" * members[0]["rescaled"]
    return tag("tr", tag("th", label, scope="row"), *cells, class_="full", data_group=group)


def row(
    index: int, entry: CaseRecord, columns: Sequence[str], metrics: Sequence[str], sized: bool, group: int
) -> Markup:
    size, gates = entry["size"], worst_gates(entry)
    link = tag("a", *name_parts(entry["quantization"]), href=f"#case-{index}")
    head = tag("th", sign("pass" if passed(entry) else "fail"), " ", link, scope="row")
    cells = [words(name, SHARED[name](entry)) for name in columns]
    if sized:
        cells.append(tag("td", "" if size is None else f"{size['quantized'] / size['full']:.2f}"))
    count = sum(gate["passed"] for gate in entry["gates"])
    cells.append(tag("td", f"{count} of {len(entry['gates'])}"))
    drifts = drift_failures(entry)
    cells += [_cell(gates[metric], drifts.get(metric)) if metric in gates else tag("td") for metric in metrics]
    return tag("tr", head, *cells, data_case=index, data_group=group)


def _cell(gate: GateRecord, drifting: GateRecord | None) -> Markup:
    state = gate_state(gate)
    inside = [sign(state), " ", number_cell(gate["quantized"])]
    inside.append(tag("small", number_cell(gate["quantized"] - gate["baseline"], "+")))
    if drifting is not None:
        state = "fail"
        inside.append(tag("small", sign(state), f" {number_cell(drift_of(drifting), '+')} from accepted"))
    return tag("td", *inside, class_=state)


def filters(metrics: Sequence[str]) -> Markup:
    """What narrows the matrix and the cases. Hidden until the script that makes it work has run."""
    aspects = {"": "all"} | {(aspect := registry.lookup(metric).aspect): aspect for metric in metrics}
    verdicts = {"": "all", "fail": "failed", "pass": "passed", "inconclusive": "with inconclusive gates"}
    return tag(
        "form",
        tag("label", "Case ", tag("input", id="text", type="search", placeholder="part of a name")),
        tag("label", "Verdict ", tag("select", *option_tags(verdicts), id="verdict")),
        tag("label", "Aspect ", tag("select", *option_tags(aspects), id="aspect")),
        tag("label", "Sort by ", tag("select", *option_tags({"value": "value", "change": "change"}), id="by")),
        tag("p", id="shown", role="status"),
        id="filters",
        hidden="",
    )


def name_parts(name: str) -> Iterator[str]:
    """A name or a path, which may break where its parts meet."""
    for index, part in enumerate(re.split(r"(?<=[._/])", name)):
        if index:
            yield tag("wbr")
        yield part


def text_class(column: str) -> str | None:
    return "text" if column in WORDS else None
