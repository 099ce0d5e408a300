"""The section on sizes and the harm that they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pytest_qreliab.metrics import registry
from pytest_qreliab.report.formatting import size_in_words
from pytest_qreliab.report.html.cells import column_class, number_text, verdict_sign, word_cell
from pytest_qreliab.report.html.markup import Markup, scroll_frame, select, tag
from pytest_qreliab.report.records import CaseRecord
from pytest_qreliab.report.tradeoff import Candidate, find_candidates, pareto_front

CAPTION = (
    "How much worse than full precision; negative is better. On the front of a metric are the models that none of "
    "the same size or smaller, of the same original, does less harm to it. The front shown is of "
)


@dataclass(frozen=True)
class SizeComparison:
    """The quantized models of known size, with their harms."""

    candidates: Sequence[Candidate]  # the smallest first

    @cached_property
    def keys(self) -> list[tuple[str, str]]:
        """The benchmark and the metric of each harm."""
        return list(dict.fromkeys(key for candidate in self.candidates for key in candidate.harms))

    @cached_property
    def names(self) -> list[str]:
        """The name of each harm, with the benchmark if there are several."""
        several = len({benchmark for benchmark, _ in self.keys}) > 1
        return [registry.lookup(metric).header + f" on {benchmark}" * several for benchmark, metric in self.keys]

    @cached_property
    def models(self) -> list[str]:
        """The original models."""
        return list(dict.fromkeys(candidate.model for candidate in self.candidates))

    @cached_property
    def fronts(self) -> list[list[int]]:
        """The places of the candidates on the front of each harm.

        Each model has its own front, because a harm is a change from that model in full precision.
        """
        by_model = [[candidate for candidate in self.candidates if candidate.model == model] for model in self.models]
        return [
            [self.candidates.index(candidate) for of_model in by_model for candidate in pareto_front(of_model, key)]
            for key in self.keys
        ]


def compare_sizes(records: Sequence[CaseRecord]) -> SizeComparison:
    """Return the comparison of the quantized models of all records."""
    return SizeComparison(find_candidates(records))


def render_sizes(comparison: SizeComparison) -> list[Markup]:
    """Return form, chart and table; nothing without sizes."""
    if not comparison.keys:
        return []
    return [_form(comparison), tag("div", id="scatter"), scroll_frame(_table(comparison), "Table of sizes")]


def _form(comparison: SizeComparison) -> Markup:
    """Return the form that chooses a harm and a model.

    It is hidden until the script has run that makes it work.
    """
    harms = {str(place): name for place, name in enumerate(comparison.names)}
    fields = [tag("label", "Harm to ", select("size-metric", harms))]
    if len(comparison.models) > 1:
        fields.append(tag("label", "Model ", select("size-model", {model: model for model in comparison.models})))
    return tag("form", *fields, id="size-choice", hidden="")


def _table(comparison: SizeComparison) -> Markup:
    caption = tag("caption", CAPTION, tag("span", comparison.names[0], id="front-of"), ".")
    columns = ["quantization", "bytes", "share", "verdict", "front", *comparison.names]
    if len(comparison.models) > 1:
        columns.insert(1, "model")
    head = tag("tr", *(tag("th", column, scope="col", class_=column_class(column)) for column in columns))
    rows = [_row(comparison, index) for index in range(len(comparison.candidates))]
    return tag("table", caption, tag("thead", head), tag("tbody", *rows), id="pareto")


def _row(comparison: SizeComparison, index: int) -> Markup:
    candidate = comparison.candidates[index]
    harms = (candidate.harms.get(key) for key in comparison.keys)
    cells = [
        tag("td", size_in_words(candidate.size)),
        tag("td", f"{candidate.share:.3f}"),
        tag("td", verdict_sign(candidate.passed)),
        tag("td", "yes" if index in comparison.fronts[0] else "", class_="front"),
        *(tag("td", "" if harm is None else number_text(harm)) for harm in harms),
    ]
    if len(comparison.models) > 1:
        cells.insert(0, word_cell("model", candidate.model))
    return tag("tr", tag("th", candidate.quantization, scope="row"), *cells)
