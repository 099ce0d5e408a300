"""The results as one page that needs no network: tables are made here, what unfolds is drawn by `page/page.js`."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from html import escape
from itertools import groupby
from pathlib import Path
from string import Template

from pytest_qreliab.metrics import registry
from pytest_qreliab.report import tradeoff
from pytest_qreliab.report.failure_message import number
from pytest_qreliab.report.records import Curves, Entry, GateEntry, Points, drift, drifted, gated, passed
from pytest_qreliab.report.results_file import Results

PAGE = Path(__file__).parent
MOST_NAMED = 20  # failed cases above all others
BETTER = {"higher": "higher is better", "lower": "lower is better", "neither": "any change is harm"}


def render(results: Results) -> str:
    """The page. Whatever comes from the results is escaped in it, or is data that no browser reads as a page."""
    entries = results.cases
    candidates = tradeoff.candidates(entries)
    keys = list(dict.fromkeys(key for candidate in candidates for key in candidate.harms))
    fronts = _fronts(candidates, keys)
    sections = {
        "notes": ("Notes", _notes(results)),
        "verdicts": ("Verdicts", _verdicts(entries)),
        "sizes": ("Size against reliability", _sizes(candidates, keys, fronts)),
        "cases": ("Cases", [_details(index, entry) for index, entry in enumerate(entries)]),
        "metrics": ("Metrics", _glossary(entries)),
    }
    there = {name: (title, content) for name, (title, content) in sections.items() if content}
    style, script = ((PAGE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    page = Template((PAGE / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"{_verdict(results)} - pytest-qreliab"),
        verdict=_sign("pass" if _good(results) else "fail") + " " + escape(_verdict(results)),
        counts=_counts(results),
        made=_made(results),
        contents=" ".join(tag("a", title, href=f"#{name}") for name, (title, _) in there.items()),
        sections="\n".join(
            tag("section", tag("h2", title, id=name), *content, aria_labelledby=name)
            for name, (title, content) in there.items()
        ),
        data=_json({**_data(entries), "sizes": _sizes_data(candidates, keys, fronts)}),
        style=style,
        style_hash=_digest(style),
        script=script,
        script_hash=_digest(script),
    )
    return page.encode(errors="replace").decode()  # a path that is no UTF-8 holds what no page can


# Markup


VOID = ("input", "wbr")  # elements that have no end


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, *inside: str, **attributes: str | int | None) -> Markup:
    """An element. What is inside is escaped unless it is markup; attributes that are None are left out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    content = "".join(text if isinstance(text, Markup) else escape(text) for text in inside)
    return Markup(f"<{name}{given}>{content}" + f"</{name}>" * (name not in VOID))


def _json(value: object) -> str:
    """JSON that a script element holds: without `<` nothing in it ends the element or opens a comment."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).replace("<", r"\u003c")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


SIGNS = {
    "pass": ("✓", "pass"),
    "fail": ("✗", "fail"),
    "inconclusive": ("?", "inconclusive"),
    "unsettled": ("✗?", "inconclusive, which fails"),
}


def _state(gate: GateEntry) -> str:
    """The outcome, with one of its own where the thresholds let an inconclusive gate fail."""
    return "unsettled" if gate["outcome"] == "inconclusive" and not gate["passed"] else gate["outcome"]


def _sign(state: str) -> Markup:
    sign, words = SIGNS[state]
    return tag("b", sign, class_=state, role="img", aria_label=words)


def _number(value: float, sign: str = "") -> str:
    """With a real minus, which is as wide as the plus and read aloud, and none before zero."""
    return number(round(value, 4) + 0.0 if abs(value) < 100 else value, sign).replace("-", "−")


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _scroller(table: Markup, label: str) -> Markup:
    """What is wider than a phone, in a frame of its own that the keyboard can move."""
    return tag("div", table, class_="scroll", role="region", tabindex=0, aria_label=label)


# The head


def _good(results: Results) -> bool:
    return not results.failed() and not results.unmeasured() and not results.exitstatus


def _verdict(results: Results) -> str:
    count, failed, without = len(results.plan.cases), len(results.failed()), len(results.unmeasured())
    if without == count:
        return f"No result of {_count(count, 'case')}"
    if failed or without:
        said = f"{failed or 'None'} of {_count(count, 'case')} failed"
        return said + (f", {without} without result" if without else "")
    if results.exitstatus:
        return f"{_count(count, 'case')} passed, but the run failed"
    return f"All {count} cases passed" if count > 1 else f"{_count(count, 'case')} passed"


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
        tag("li", tag("a", *_parts(entry["case"]), href=f"#case-{index}"), f": {', '.join(_failed(entry))}")
        for index, entry in enumerate(results.cases)
        if not passed(entry)
    ]
    if len(failed) > MOST_NAMED:
        failed[MOST_NAMED:] = [tag("li", f"and {len(failed) - MOST_NAMED:,} more")]
    lists = {"Failed": failed, "Without result": without, "Warnings": warnings, "Smallest that pass": smallest}
    return [
        part for name, items in lists.items() if items for part in (tag("h3", name), tag("ul", *items, class_="notes"))
    ]


def _failed(entry: Entry) -> Iterator[str]:
    """The metrics whose gates fail, once each."""
    return iter(dict.fromkeys(gate["metric"] for gate in entry["gates"] if not gate["passed"]))


# The matrix

SHARED: dict[str, Callable[[Entry], str]] = {
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


def _words(column: str, text: str) -> Markup:
    """A cell of a column that may hold words."""
    if len(text) > LONG:
        return tag("td", *_parts(text), class_="text long")
    return tag("td", text, class_=_text_class(column))


def _text_class(column: str) -> str | None:
    return "text" if column in WORDS else None


def _metrics(entries: Iterable[Entry]) -> list[str]:
    """The gated metrics, aspect by aspect."""
    found = dict.fromkeys(metric for entry in entries for metric in gated(entry))
    return sorted(found, key=lambda metric: registry.ASPECTS.index(registry.lookup(metric).aspect))


def _verdicts(entries: Sequence[Entry]) -> list[Markup]:
    """A row per case below its baseline, a column per gated metric. What all cases share is said above them."""
    if not entries:
        return []
    metrics = _metrics(entries)
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
    groups: dict[tuple[str, str, bool], list[tuple[int, Entry]]] = {}
    for index, entry in enumerate(entries):
        groups.setdefault((entry["model"], entry["benchmark"], entry["rescaled"]), []).append((index, entry))
    rows = []
    for group, members in enumerate(groups.values()):
        rows.append(_baseline_row([entry for _, entry in members], columns, metrics, sized, group))
        rows += [_row(index, entry, columns, metrics, sized, group) for index, entry in members]
    table = tag("table", caption, _head(heads, metrics), tag("tbody", *rows), id="matrix")
    return [_filters(metrics), _scroller(table, "Table of verdicts")]


def _head(heads: Sequence[str], metrics: Sequence[str]) -> Markup:
    aspects = [
        tag("th", aspect.upper() if aspect == "ood" else aspect, scope="colgroup", colspan=len(list(found)))
        for aspect, found in groupby(registry.lookup(metric).aspect for metric in metrics)
    ]
    names = [
        tag("th", "case", scope="col"),
        *(tag("th", head, scope="col", class_=_text_class(head)) for head in heads),
    ]
    for metric in metrics:
        known = registry.lookup(metric)
        names.append(tag("th", known.header, scope="col", title=known.help, data_aspect=known.aspect))
    return tag("thead", tag("tr", tag("td", colspan=len(heads) + 1), *aspects), tag("tr", *names))


def _baseline_row(
    members: Sequence[Entry], columns: Sequence[str], metrics: Sequence[str], sized: bool, group: int
) -> Markup:
    """What the cases below are compared with. Its size is the whole."""
    baseline = {metric: gate["baseline"] for entry in members for metric, gate in gated(entry).items()}
    cells = [_words(name, SHARED[name](members[0])) if name in OF_BASELINE else tag("td") for name in columns]
    cells += [tag("td", "1.00" if any(entry["size"] is not None for entry in members) else "")] * sized
    cells += [tag("td"), *(tag("td", _number(baseline[of]) if of in baseline else "") for of in metrics)]
    label = "full precision" + "+rescale" * members[0]["rescaled"]
    return tag("tr", tag("th", label, scope="row"), *cells, class_="full", data_group=group)


def _row(index: int, entry: Entry, columns: Sequence[str], metrics: Sequence[str], sized: bool, group: int) -> Markup:
    size, gates = entry["size"], gated(entry)
    link = tag("a", *_parts(entry["quantization"]), href=f"#case-{index}")
    head = tag("th", _sign("pass" if passed(entry) else "fail"), " ", link, scope="row")
    cells = [_words(name, SHARED[name](entry)) for name in columns]
    if sized:
        cells.append(tag("td", "" if size is None else f"{size['quantized'] / size['full']:.2f}"))
    count = sum(gate["passed"] for gate in entry["gates"])
    cells.append(tag("td", f"{count} of {len(entry['gates'])}"))
    drifts = drifted(entry)
    cells += [_cell(gates[metric], drifts.get(metric)) if metric in gates else tag("td") for metric in metrics]
    return tag("tr", head, *cells, data_case=index, data_group=group)


def _cell(gate: GateEntry, drifting: GateEntry | None) -> Markup:
    state = _state(gate)
    inside = [_sign(state), " ", _number(gate["quantized"])]
    inside.append(tag("small", _number(gate["quantized"] - gate["baseline"], "+")))
    if drifting is not None:
        state = "fail"
        inside.append(tag("small", _sign(state), f" {_number(drift(drifting), '+')} from accepted"))
    return tag("td", *inside, class_=state)


def _filters(metrics: Sequence[str]) -> Markup:
    """What narrows the matrix and the cases. Hidden until the script that makes it work has run."""
    aspects = {"": "all"} | {(aspect := registry.lookup(metric).aspect): aspect for metric in metrics}
    verdicts = {"": "all", "fail": "failed", "pass": "passed", "inconclusive": "with inconclusive gates"}
    return tag(
        "form",
        tag("label", "Case ", tag("input", id="text", type="search", placeholder="part of a name")),
        tag("label", "Verdict ", tag("select", *_options(verdicts), id="verdict")),
        tag("label", "Aspect ", tag("select", *_options(aspects), id="aspect")),
        tag("label", "Sort by ", tag("select", *_options({"value": "value", "change": "change"}), id="by")),
        tag("p", id="shown", role="status"),
        id="filters",
        hidden="",
    )


def _options(found: dict[str, str]) -> Iterator[Markup]:
    return (tag("option", text, value=value) for value, text in found.items())


# Size against reliability

Key = tuple[str, str]  # benchmark, metric
Fronts = list[list[int]]  # for each key, the places of the candidates that are on the front of their model


def _fronts(candidates: Sequence[tradeoff.Candidate], keys: Sequence[Key]) -> Fronts:
    """Each model's own front: a harm is a change from that model in full precision."""
    models = dict.fromkeys(candidate.model for candidate in candidates)
    return [
        [
            candidates.index(candidate)
            for model in models
            for candidate in tradeoff.front([of for of in candidates if of.model == model], key)
        ]
        for key in keys
    ]


def _key_names(keys: Sequence[Key]) -> list[str]:
    several = len({benchmark for benchmark, _ in keys}) > 1
    return [registry.lookup(metric).header + f" on {benchmark}" * several for benchmark, metric in keys]


def _sizes(candidates: Sequence[tradeoff.Candidate], keys: Sequence[Key], fronts: Fronts) -> list[Markup]:
    if not candidates or not keys:
        return []
    models, names = list(dict.fromkeys(candidate.model for candidate in candidates)), _key_names(keys)
    caption = tag(
        "caption",
        "How much worse than full precision; negative is better. On the front of a metric are the models that none of "
        "the same size or smaller, of the same original, does less harm to it. The front shown is of ",
        tag("span", names[0], id="front-of"),
        ".",
    )
    several = len(models) > 1
    heads = [*["model"] * several, "bytes", "share", "verdict", "front", *names]
    rows = []
    for index, candidate in enumerate(candidates):
        cells = [
            *[_words("model", candidate.model)] * several,
            tag("td", tradeoff.size(candidate.size)),
            tag("td", f"{candidate.share:.3f}"),
            tag("td", _sign("pass" if candidate.passed else "fail")),
            tag("td", "yes" if index in fronts[0] else "", class_="front"),
            *(tag("td", _number(candidate.harms[key]) if key in candidate.harms else "") for key in keys),
        ]
        rows.append(tag("tr", tag("th", candidate.quantization, scope="row"), *cells))
    columns = [tag("th", name, scope="col", class_=_text_class(name)) for name in ("quantization", *heads)]
    table = tag("table", caption, tag("thead", tag("tr", *columns)), tag("tbody", *rows), id="pareto")
    chosen = {str(place): name for place, name in enumerate(names)}
    model = tag("label", "Model ", tag("select", *_options({name: name for name in models}), id="size-model"))
    form = tag(
        "form",
        tag("label", "Harm to ", tag("select", *_options(chosen), id="size-metric")),
        *[model] * several,
        id="size-choice",
        hidden="",
    )
    return [form, tag("div", id="scatter"), _scroller(table, "Table of sizes")]


def _sizes_data(candidates: Sequence[tradeoff.Candidate], keys: Sequence[Key], fronts: Fronts) -> object:
    return {
        "names": _key_names(keys),
        "fronts": fronts,
        "models": [
            {
                "model": candidate.model,
                "name": candidate.quantization,
                "share": _short(candidate.share),
                "passed": candidate.passed,
                "harms": [_finite(candidate.harms.get(key, math.nan)) for key in keys],
            }
            for candidate in candidates
        ],
    }


# Cases


def _details(index: int, entry: Entry) -> Markup:
    """The head of a case; the script fills in the rest when it is opened."""
    failed = sum(not gate["passed"] for gate in entry["gates"])
    gates = _count(len(entry["gates"]), "gate")
    said = f"{failed} of {gates} failed" if failed else f"{gates} passed"
    if unsure := sum(gate["outcome"] == "inconclusive" for gate in entry["gates"]):
        said += f", {unsure} inconclusive"
    heading = tag("h3", _sign("pass" if passed(entry) else "fail"), " ", *_parts(entry["case"]))
    return tag(
        "details", tag("summary", heading, " ", tag("span", said)), tag("div"), id=f"case-{index}", data_case=index
    )


def _glossary(entries: Sequence[Entry]) -> list[Markup]:
    known = [registry.lookup(metric) for metric in _metrics(entries)]
    rows = [
        tag("div", tag("dt", *_parts(of.name)), tag("dd", f"{of.header}: {of.help}; {BETTER[of.better]}"))
        for of in known
    ]
    return [tag("dl", *rows, class_="about")] if rows else []


def _parts(name: str) -> Iterator[str]:
    """A name or a path, which may break where its parts meet."""
    for index, part in enumerate(re.split(r"(?<=[._/])", name)):
        if index:
            yield tag("wbr")
        yield part


# What the script draws


class _Pool:
    """Values that may come again, each kept once and named by its place."""

    def __init__(self) -> None:
        self.values: list[object] = []
        self._places: dict[str, int] = {}

    def put(self, value: object) -> int:
        place = self._places.setdefault(json.dumps(value), len(self.values))
        if place == len(self.values):
            self.values.append(value)
        return place


def _data(entries: Sequence[Entry]) -> dict[str, object]:
    pool = _Pool()
    cases = [_case(entry, pool) for entry in entries]
    return {"cases": cases, "pool": pool.values}


def _case(entry: Entry, pool: _Pool) -> dict[str, object]:
    """All of a case but what it is called, which is in its head already."""
    size = entry["size"]
    about = {
        "model": entry["model"],
        "benchmark": entry["benchmark"],
        "quantizer": entry["quantizer"],
        "parameters": entry["parameters"],
        "bits": entry["bits"],
        "scope": entry["scope"],
        "coverage": "recorded outputs" if entry["coverage"] is None else f"{entry['coverage']:.1%} of the weights",
        "size": ""
        if size is None
        else f"{tradeoff.size(size['quantized'])} of {tradeoff.size(size['full'])}, "
        f"{size['quantized'] / size['full']:.2f}",
        "samples": f"{entry['samples']:,}",
        "confidence": f"{entry['confidence']:.2%} for each bound of an interval",
        "device": entry["device"],
        "encoded": f"{entry['encoded']:,} images and prompts, {entry['known']:,} known from before",
        "peak memory": _memory(entry),
    }
    return {
        "about": [[name, pool.put(text)] for name, text in about.items() if text],
        "gates": _gates(entry["gates"], pool),
        "metrics": _others(entry, pool),
        "curves": None if entry["curves"] is None else _curves(entry["curves"], pool),
        "controls": _controls(entry, pool),
        "data": pool.put(entry["data"]),
        "environment": pool.put(entry["environment"]),
        "warnings": entry["warnings"],
        "repeat": entry["repeat"],
    }


def _memory(entry: Entry) -> str:
    device = entry["peak_device_memory"]
    text = f"{entry['peak_memory'] / 2**30:.1f} GiB" if entry["peak_memory"] else ""
    return text + (f", {device / 2**30:.1f} GiB on the device" if device else "")


def _gates(gates: Sequence[GateEntry], pool: _Pool) -> dict[str, object]:
    """Column by column: those that many cases share are kept once."""
    columns: dict[str, list[object]] = {
        "of": [[gate["metric"], gate["limit"], gate["value"], f"{gate['value']:g}", gate["where"]] for gate in gates],
        "state": [_state(gate) for gate in gates],
        "baseline": [_packed(gate["baseline"]) for gate in gates],
        "accepted": [_packed(gate["accepted"]) for gate in gates],
        "quantized": [_packed(gate["quantized"]) for gate in gates],
        "harm": [_packed(gate["harm"]) for gate in gates],
        "low": [_packed(gate["low"]) for gate in gates],
        "high": [_packed(gate["high"]) for gate in gates],
        "method": [pool.put(gate["method"]) for gate in gates],
        "settling": [gate["settling_n"] for gate in gates],
        "problem": [gate["problem"] for gate in gates],
    }
    return {name: pool.put(column) for name, column in columns.items()}


def _others(entry: Entry, pool: _Pool) -> dict[str, object]:
    """The metrics that no gate is on."""
    known = {registry.canonical(gate["metric"]) for gate in entry["gates"]}
    others = [found for found in entry["metrics"] if registry.canonical(found["metric"]) not in known]
    columns: dict[str, list[object]] = {
        "of": [[found["metric"], found["better"]] for found in others],
        "baseline": [_packed(found["baseline"]) for found in others],
        "quantized": [_packed(found["quantized"]) for found in others],
        "change": [_packed(found["change"]) for found in others],
        "problem": [found["problem"] for found in others],
    }
    return {name: pool.put(column) for name, column in columns.items()}


def _curves(curves: Curves, pool: _Pool) -> dict[str, object]:
    def line(points: Points) -> list[int]:
        there = [point for point in points if all(map(math.isfinite, point))]
        return [pool.put([_short(point[axis]) for point in there]) for axis in (0, 1)]

    def rates(points: Points) -> list[int]:
        """In thousandths, which take half the room: there are more of these points than of all others."""
        return line([(round(1000 * x), round(1000 * y)) for x, y in points if math.isfinite(x + y)])

    return {
        "reliability": [
            pool.put([[of["confidence"], of["accuracy"], of["share"]] for of in bins]) for bins in curves["reliability"]
        ],
        "roc": [[name, [rates(points) for points in both]] for name, both in curves["roc"].items()],
        "corruptions": pool.put(curves["corruptions"]),
        "spectra": [[name, [line(points) for points in both]] for name, both in curves["spectra"].items()],
        "singular_values": [line(points) for points in curves["singular_values"]],
        "sqnr": line(curves["sqnr"]),
    }


def _controls(entry: Entry, pool: _Pool) -> object:
    controls = entry["controls"]
    if controls is None:
        return None
    return {
        "matched": controls["matched"],
        "problem": controls["problem"],
        "residuals": [[name, f"{ratio:.3g}"] for name, ratio in controls["residuals"].items()],
        "of": pool.put(list(controls["changes"])),
        "conclusions": pool.put([controls["conclusions"].get(metric, "") for metric in controls["changes"]]),
        "changes": [[list(map(_packed, moved)) for moved in changes] for changes in controls["changes"].values()],
    }


def _packed(value: float | None) -> int | str | None:
    """A number as `number` writes it: four decimals as ten-thousandths, anything else as text."""
    if value is None:
        return None
    return int(number(value).replace(".", "")) if abs(value) < 100 else number(value)


def _short(value: float) -> float:
    """Three digits, more than a chart can show."""
    short = float(f"{value:.3g}")
    return int(short) if short.is_integer() else short


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
