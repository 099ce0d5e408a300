"""Sizes and the harm that they cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pytest_qreliab.metrics import registry
from pytest_qreliab.report import formatting, tradeoff
from pytest_qreliab.report.html.markup import (
    Markup,
    finite_or_none,
    number_cell,
    option_tags,
    scroller,
    shorten,
    sign,
    tag,
)
from pytest_qreliab.report.html.matrix import text_class, words

Key = tuple[str, str]  # benchmark, metric
Fronts = list[list[int]]  # for each key, the places of the candidates that are on the front of their model


def find_fronts(candidates: Sequence[tradeoff.Candidate], keys: Sequence[Key]) -> Fronts:
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


def key_names(keys: Sequence[Key]) -> list[str]:
    several = len({benchmark for benchmark, _ in keys}) > 1
    return [registry.lookup(metric).header + f" on {benchmark}" * several for benchmark, metric in keys]


def size_section(candidates: Sequence[tradeoff.Candidate], keys: Sequence[Key], fronts: Fronts) -> list[Markup]:
    if not candidates or not keys:
        return []
    models, names = list(dict.fromkeys(candidate.model for candidate in candidates)), key_names(keys)
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
            *[words("model", candidate.model)] * several,
            tag("td", formatting.size_in_words(candidate.size)),
            tag("td", f"{candidate.share:.3f}"),
            tag("td", sign("pass" if candidate.passed else "fail")),
            tag("td", "yes" if index in fronts[0] else "", class_="front"),
            *(tag("td", number_cell(candidate.harms[key]) if key in candidate.harms else "") for key in keys),
        ]
        rows.append(tag("tr", tag("th", candidate.quantization, scope="row"), *cells))
    columns = [tag("th", name, scope="col", class_=text_class(name)) for name in ("quantization", *heads)]
    table = tag("table", caption, tag("thead", tag("tr", *columns)), tag("tbody", *rows), id="pareto")
    chosen = {str(place): name for place, name in enumerate(names)}
    model = tag("label", "Model ", tag("select", *option_tags({name: name for name in models}), id="size-model"))
    form = tag(
        "form",
        tag("label", "Harm to ", tag("select", *option_tags(chosen), id="size-metric")),
        *[model] * several,
        id="size-choice",
        hidden="",
    )
    return [form, tag("div", id="scatter"), scroller(table, "Table of sizes")]


def size_data(candidates: Sequence[tradeoff.Candidate], keys: Sequence[Key], fronts: Fronts) -> object:
    return {
        "names": key_names(keys),
        "fronts": fronts,
        "models": [
            {
                "model": candidate.model,
                "name": candidate.quantization,
                "share": shorten(candidate.share),
                "passed": candidate.passed,
                "harms": [finite_or_none(candidate.harms.get(key, math.nan)) for key in keys],
            }
            for candidate in candidates
        ],
    }
