"""The page of a run: what it says, that nothing in it breaks out, and that it works in a browser."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from pytest_qreliab.metrics import registry
from pytest_qreliab.report import results_file
from pytest_qreliab.report.html import markup, payload
from pytest_qreliab.report.html import page as html_page
from pytest_qreliab.report.records import worst_gates
from pytest_qreliab.report.results_file import Planned, Results

GATED = {
    "accuracy": ("max_drop", 0.02),
    "balanced_accuracy": ("max_drop", 0.02),
    "nll": ("max_rise", 0.05),
    "ece": ("max_rise", 0.02),
    "confidence_gap": ("max_change", 0.02),
    "shift.accuracy": ("max_drop", 0.02),
    "corruption.accuracy": ("max_drop", 0.02),
    "corruption.ece": ("max_rise", 0.02),
    "spurious.gap": ("max_rise", 0.05),
    "spurious.accuracy.counter": ("max_drop", 0.02),
    "ood.auroc": ("max_drop", 0.02),
    "ood.fpr95": ("max_rise", 0.05),
    "spectral.high_band_energy": ("max_relative_change", 0.05),
    "spectral.effective_rank": ("max_relative_change", 0.05),
}
OTHERS = [
    f"ood.{statistic}.{score}{part}"
    for statistic in registry.OOD_STATISTICS
    for score in ("msp", "maxlogit", "energy", "knn", "mahalanobis")
    for part in ("", ".near", ".far", ".letters", ".photos", ".textures")
] + [f"recall.class-{index}" for index in range(10)]
OOD_SETS = ("letters", "photos", "textures")
CORRUPTIONS = ("gaussian_noise", "motion_blur", "fog", "contrast", "jpeg")
POINTS = 64


def gate(metric, outcome="pass", *, rng, **given):
    limit, value = GATED[metric]
    quantized = 0.9 + 0.02 * rng.standard_normal()
    harm = {"pass": 0.1, "fail": 3, "inconclusive": 0.9}[outcome] * value
    return {
        "metric": metric,
        "aspect": registry.lookup(metric).aspect,
        "limit": limit,
        "value": value,
        "where": f"limits/strict.yaml:{16 + list(GATED).index(metric)}",
        "outcome": outcome,
        "passed": outcome != "fail",
        "baseline": 0.9,
        "quantized": quantized,
        "accepted": None,
        "harm": harm,
        "low": harm - 0.01,
        "high": harm + 0.01,
        "method": "paired t",
        "settling_n": 1234 if outcome == "inconclusive" else None,
        "problem": "",
        **given,
    }


def curves(rng):
    def rise():
        return [(round(x, 4), round(float(x ** (0.3 + 0.1 * rng.random())), 4)) for x in np.linspace(0, 1, POINTS)]

    ranks = np.arange(1.0, POINTS + 1)

    def fall():
        return [
            (rank, float(f"{of:.4g}")) for rank, of in zip(ranks, 5 / ranks * (1 + rng.random(POINTS)), strict=True)
        ]

    bins = [{"confidence": at, "accuracy": at - 0.05, "share": 0.25} for at in (0.3, 0.5, 0.7, 0.95)]
    frequencies = (0.15, 0.27, 0.38, 0.5, 0.63, 0.71)
    return {
        "reliability": [bins, bins[1:]],
        "roc": {name: [rise(), rise()] for name in OOD_SETS},
        "corruptions": {
            kind: {str(severity): (0.9, 0.9 - 0.01 * severity) for severity in range(1, 6)} for kind in CORRUPTIONS
        },
        "spectra": {
            f"block {block + 1}": [[(at, 1000 / at * (1 + rng.random())) for at in frequencies] for _ in range(2)]
            for block in range(4)
        },
        "singular_values": [fall(), fall()],
        "sqnr": fall(),
    }


def case(index=0, *, model="tiny", quantizer=None, bits="w4a8", benchmark="digits", outcomes=None, **given):
    """A case that passes, but where `outcomes` says otherwise, with as much in it as a rich benchmark gives."""
    rng = np.random.default_rng(index)
    quantizer = f"quantizer-{index}" if quantizer is None else quantizer
    changes = 0.01 * rng.standard_normal(len(OTHERS))
    return {
        "case": f"{model}/{quantizer}/{bits}/{benchmark}",
        "model": model,
        "quantizer": quantizer,
        "bits": bits,
        "scope": "both",
        "benchmark": benchmark,
        "quantization": f"{quantizer} {bits}",
        "rescaled": False,
        "parameters": "granularity=channel, symmetric=True, activations=static, images=128",
        "samples": 898,
        "device": "cpu",
        "confidence": 0.9986,
        "coverage": 1.0,
        "size": {"quantized": 280_000 + 1000 * index, "full": 1_340_000},
        "metrics": [
            {
                "metric": name,
                "aspect": "ood",
                "better": "higher",
                "baseline": 0.8 + at / 1000,
                "quantized": 0.8 + at / 1000 + change,
                "change": change,
                "low": None,
                "high": None,
                "problem": "",
            }
            for at, (name, change) in enumerate(zip(OTHERS, map(float, changes), strict=True))
        ],
        "gates": [gate(metric, (outcomes or {}).get(metric, "pass"), rng=rng) for metric in GATED],
        "controls": None,
        "curves": curves(rng),
        "data": {"classes": "10 fa50d9f6", "in_distribution": "898 images 627d0247"},
        "environment": {"python": "3.11.7", "torch": "2.6.0"},
        "warnings": [],
        "repeat": f"pytest qreliab -k '[{model}/{quantizer}/{bits}/{benchmark}]'",
        "encoded": 520,
        "known": 0,
        "peak_memory": 2**30,
        "peak_device_memory": 0,
        **given,
    }


def run(*entries, errors=None, **given):
    errors = errors or {}
    found = Results(
        qreliab="0.1.0",
        created="2026-01-02T03:04:05+00:00",
        shard=None,
        plan=Planned(digest="0", cases=[*(entry["case"] for entry in entries), *errors]),
        cases=list(entries),
        errors=errors,
        exitstatus=0,
    )
    return found.model_copy(update=given)


def many(count):
    """As many cases, of five models on two benchmarks; every seventh fails."""
    return [
        case(
            index,
            model=f"ViT-B-32/model-{index % 5}",
            bits=("w2a8", "w4a8", "w8a8")[index % 3],
            benchmark=f"benchmark-{index // 5 % 2}",
            outcomes={"accuracy": "fail", "ece": "inconclusive"} if index % 7 == 0 else None,
        )
        for index in range(count)
    ]


FAILED = {"accuracy": "fail", "ood.auroc": "fail", "ece": "inconclusive"}
CONTROLS = {
    "matched": "weights",
    "problem": "",
    "residuals": {"quantized": 0.1, "lowrank": 0.09, "noise": 0.11},
    "changes": {"accuracy": [(-0.06, -0.08, -0.04), (-0.01, -0.02, 0.0), (math.nan, -math.inf, 0.01)]},
    "conclusions": {"accuracy": "by neither"},
}


@pytest.fixture(scope="module")
def small():
    """Four cases of one model, two of which fail."""
    return run(
        case(0, quantizer="minmax", bits="w2a8", outcomes=FAILED, controls=CONTROLS, warnings=["few samples"]),
        case(1, quantizer="gptq", bits="w2a8", outcomes={"accuracy": "fail"}, warnings=["few samples"]),
        case(2, quantizer="minmax", bits="w4a8", outcomes={"ece": "inconclusive"}),
        case(3, quantizer="minmax", bits="w8a8"),
    )


VOID = {"meta", "input", "wbr", "br"}


class Page(HTMLParser):
    """The elements of a page, each with its attributes and the text in it, and a check that they are nested."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self._open = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, name, attributes):
        element = {"name": name, "text": "", **{key: value or "" for key, value in attributes}}
        self.elements.append(element)
        if name not in VOID:
            self._open.append(element)

    def handle_endtag(self, name):
        assert self._open.pop()["name"] == name

    def handle_data(self, text):
        for element in self._open:
            element["text"] += text

    def all(self, name, **attributes):
        return [of for of in self.elements if of["name"] == name and attributes.items() <= of.items()]

    def data(self):
        return json.loads(self.all("script", id="data")[0]["text"])


def test_head_gives_the_verdict_in_words(small):
    page = Page(html_page.render(small))
    assert page.all("h1")[0]["text"] == "✗ 2 of 4 cases failed"
    assert page.all("time")[0]["text"] == "2026-01-02 03:04 UTC"
    text = page.all("body")[0]["text"]
    assert "pytest-qreliab 0.1.0" in text
    first, second, *others = [of["text"] for of in page.all("li")]
    assert first == "tiny/minmax/w2a8/digits: accuracy, ood.auroc"
    assert second.startswith("tiny/")
    assert others == ["few samples", "smallest passing: minmax w4a8, 0.21 of full size"]


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (run(case()), "✓ 1 case passed"),
        (run(case(0), case(1)), "✓ All 2 cases passed"),
        (run(case(0), case(1), exitstatus=1), "✗ 2 cases passed, but the run failed"),
        (run(case(), errors={"b": "out of memory"}), "✗ None of 2 cases failed, 1 without result"),
        (run(errors={"a": "no", "b": "no"}), "✗ No result of 2 cases"),
    ],
)
def test_verdict_of_other_runs(found, verdict):
    assert Page(html_page.render(found)).all("h1")[0]["text"] == verdict


def test_matrix_has_all_cases_and_gated_metrics(small):
    page = Page(html_page.render(small))
    rows = page.all("th", scope="row")
    assert [of["text"] for of in rows[:5]] == [
        "full precision",
        "✗ minmax w2a8",
        "✗ gptq w2a8",
        "✓ minmax w4a8",
        "✓ minmax w8a8",
    ]
    heads = [of["text"] for of in page.all("th", scope="col")]
    assert heads[:4] == ["case", "bits", "size", "gates"]
    assert {registry.lookup(metric).header for metric in GATED} <= set(heads)
    assert "model tiny, benchmark digits, scope both" in page.all("caption")[0]["text"]
    [cell] = page.all("td", **{"class": "fail"})[:1]
    accuracy = worst_gates(small.cases[0])["accuracy"]
    assert cell["text"] == f"✗ {accuracy['quantized']:.4f}{accuracy['quantized'] - 0.9:+.4f}".replace("-", "−")


def test_every_sign_has_words(small):
    signs = [of for of in Page(html_page.render(small)).all("b") if of.get("role") == "img"]
    words = {"✓": "pass", "✗": "fail", "?": "inconclusive"}
    assert {of["text"] for of in signs} == set(words)
    assert all(of["aria-label"] == words[of["text"]] for of in signs)


def test_inconclusive_that_fails_has_a_sign_of_its_own():
    found = case(outcomes={"ece": "inconclusive"})
    found["gates"][3]["passed"] = False
    page = Page(html_page.render(run(found)))
    [cell] = page.all("td", **{"class": "unsettled"})
    assert cell["text"].startswith("✗?")
    assert page.all("b", **{"class": "unsettled"})[0]["aria-label"] == "inconclusive, which fails"


def test_headings_are_in_order(small):
    levels = [int(of["name"][1]) for of in Page(html_page.render(small)).elements if re.fullmatch("h[1-6]", of["name"])]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_page_needs_no_network(small):
    text = html_page.render(small)
    page = Page(text)
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")  # a name, which nothing is loaded from
    assert "https://" not in text
    assert not [of for of in page.elements if "src" in of or of["name"] in ("link", "img", "iframe", "object")]
    assert all(of["href"].startswith("#") for of in page.all("a"))
    assert "url(" not in text
    assert "@import" not in text


def test_links_lead_somewhere(small):
    page = Page(html_page.render(small))
    ids = [of["id"] for of in page.elements if "id" in of]
    assert len(ids) == len(set(ids))
    assert {of["href"][1:] for of in page.all("a")} <= set(ids)


def test_policy_allows_only_what_is_there(small):
    page = Page(html_page.render(small))
    [policy] = [of["content"] for of in page.all("meta") if of.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert markup.content_digest(page.all("style")[0]["text"]) in policy
    assert markup.content_digest(page.all("script")[-1]["text"]) in policy
    assert not [of for of in page.elements if "style" in of or any(key.startswith("on") for key in of)]


EVIL = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "\"><img onerror='alert(1)' x=\"",
    "' onmouseover='alert(1)",
    "&lt;b&gt; &amp; ]]> ${verdict} $data",
    "</style></title></noscript></details>",
    "line\u2028separator \x00 \ud800",
]


def evil_run(evil):
    entry = case(
        model=evil,
        quantizer=evil,
        benchmark=evil,
        parameters=evil,
        device=evil,
        data={evil: evil},
        environment={evil: evil},
        warnings=[evil],
        controls={**CONTROLS, "problem": evil},
    )
    entry["gates"][0].update(where=evil, method=evil, problem=evil, outcome="fail", passed=False)
    entry["metrics"][0]["problem"] = evil
    entry["curves"]["roc"] = {evil: entry["curves"]["roc"]["letters"]}
    entry["curves"]["corruptions"] = {evil: {"1": (0.9, 0.8)}}
    return run(entry, errors={f"{evil} ": evil}, qreliab=evil, created=evil)


@pytest.mark.parametrize("evil", EVIL)
def test_nothing_breaks_out(evil):
    harmless, page = (Page(html_page.render(evil_run(text))) for text in ("harmless", evil))
    assert [of["name"] for of in page.elements if of["name"] != "wbr"] == [
        of["name"] for of in harmless.elements if of["name"] != "wbr"
    ]
    assert [sorted(of) for of in page.elements if of["name"] != "wbr"] == [
        sorted(of) for of in harmless.elements if of["name"] != "wbr"
    ]
    said = evil.replace("\ud800", "?")
    assert said in page.all("details")[0]["text"]
    assert page.data()["cases"][0]["warnings"] == [said]


def test_curves_are_kept_to_three_digits():
    entry = case()
    data = Page(html_page.render(run(entry))).data()
    found = data["cases"][0]["curves"]
    [name, (_, quantized)] = found["roc"][0]
    kept = [[rate / 1000 for rate in data["pool"][place]] for place in quantized]
    assert kept == [pytest.approx(axis, abs=0.00051) for axis in zip(*entry["curves"]["roc"][name][1], strict=True)]
    kept = [data["pool"][place] for place in found["sqnr"]]
    assert kept == [pytest.approx(axis, rel=0.0051) for axis in zip(*entry["curves"]["sqnr"], strict=True)]


def test_values_that_are_no_numbers():
    entry = case()
    for at, value in enumerate((math.nan, math.inf, -math.inf)):
        entry["gates"][at].update(quantized=value, harm=value, low=None, high=None, problem="not a finite number")
        entry["metrics"][at].update(quantized=value, change=value, problem="not a finite number")
    entry["curves"]["sqnr"] = [(1.0, math.inf), (2.0, 3.0)]
    page = Page(html_page.render(run(entry)))
    data = page.data()
    pool, gates = data["pool"], data["cases"][0]["gates"]
    assert pool[gates["quantized"]][:3] == ["nan", "inf", "-inf"]
    assert [pool[place] for place in data["cases"][0]["curves"]["sqnr"]] == [[2], [3]]
    assert "nan" in page.all("tbody")[0]["text"]


def test_numbers_are_written_as_everywhere():
    written = {0.12345: "0.1235", -0.5: "−0.5000", 1234.5: "1234", 1e7: "1e+07", -0.00001: "0.0000"}
    assert {value: markup.number_cell(value) for value in written} == written
    assert markup.number_cell(0.00001, "+") == "+0.0000"
    assert [payload._packed(value) for value in (0.12345, -0.5, 99.5, 1234.5, None, math.nan)] == [
        1235,
        -5000,
        995000,
        "1234",
        None,
        "nan",
    ]


def test_recorded_outputs_have_no_sizes():
    found = run(case(0, coverage=None, size=None, curves=None), case(1, coverage=None, size=None, curves=None))
    page = Page(html_page.render(found))
    assert not [of for of in page.elements if of.get("id") in ("sizes", "pareto", "scatter")]
    assert "coverage recorded" in page.all("caption")[0]["text"]


def test_run_without_any_result():
    page = Page(html_page.render(run(errors={"a": "out of memory", "b": "not measured"})))
    assert not page.all("table")
    assert [of["text"] for of in page.all("li")] == ["a has no result: out of memory", "b has no result: not measured"]


def test_front_is_each_models_own():
    entries = [case(index, model=f"model-{index % 2}") for index in range(6)]
    for index, harm in enumerate((0.03, 0.3, 0.01, 0.1, 0.02, 0.2)):
        entries[index]["gates"][0].update(baseline=0.9, quantized=0.9 - harm)
    sizes = Page(html_page.render(run(*entries))).data()["sizes"]
    assert sizes["names"][0] == "accuracy"
    assert sorted(sizes["models"][at]["name"] for at in sizes["fronts"][0]) == [
        f"quantizer-{index} w4a8" for index in (0, 1, 2, 3)
    ]


def test_what_repeats_is_kept_once():
    one, two = (html_page.render(run(*entries)) for entries in ([case(0)], [case(0), case(1)]))
    assert one.count("627d0247") == two.count("627d0247") == 1
    assert one.count("2.6.0") == two.count("2.6.0") == 1


def test_200_cases_are_under_two_megabytes():
    assert len(html_page.render(run(*many(200))).encode()) < 2_000_000


def test_page_of_a_results_file(tmp_path, small):
    results_file.write(tmp_path / "r.json", small)
    assert html_page.render(results_file.read(tmp_path / "r.json")) == html_page.render(small)


# In a browser


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no chromium and no google-chrome")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Opens the page of results; at the end nothing has been complained of, and nothing asked of a network."""
    contexts, complaints = [], []

    def visit(found, *, width=1280, scheme="light", **options):
        file = tmp_path / "page.html"
        file.write_text(html_page.render(found), encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url == file.as_uri() or complaints.append(request.url))
        page.goto(file.as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []


def shown(page):
    return page.locator("#matrix tbody tr[data-case]:visible th").all_inner_texts()


def column(page, number):
    return page.locator(f"#matrix tbody tr[data-case] > :nth-child({number})").all_inner_texts()


def sort_button(page, name):
    return page.locator("#matrix th button").filter(has_text=re.compile(f"^{name}$"))


def test_sorts_by_keyboard(visit, small):
    page = visit(small)
    button = sort_button(page, "bits")
    button.focus()
    page.keyboard.press("Enter")
    assert column(page, 2) == ["w2a8", "w2a8", "w4a8", "w8a8"]
    assert button.locator("xpath=..").get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Space")
    assert column(page, 2) == ["w8a8", "w4a8", "w2a8", "w2a8"]
    assert button.locator("xpath=..").get_attribute("aria-sort") == "descending"
    assert page.locator("#matrix [aria-sort=ascending]").count() == 0


def test_sorts_by_value_and_by_change(visit):
    entries = [case(index, quantizer=f"q{index}", model=f"m{index}") for index in range(3)]
    for entry, baseline, quantized in zip(entries, (0.9, 0.5, math.nan), (0.8, 0.7, math.nan), strict=True):
        entry["gates"][0].update(baseline=baseline, quantized=quantized)
    page = visit(run(*entries))
    cases = page.locator("#matrix tbody tr[data-case] th a")
    sort_button(page, "accuracy").click()
    assert cases.all_inner_texts() == ["q1 w4a8", "q0 w4a8", "q2 w4a8"]
    page.locator("#by").select_option("change")
    assert cases.all_inner_texts() == ["q0 w4a8", "q1 w4a8", "q2 w4a8"]
    sort_button(page, "accuracy").click()
    assert cases.all_inner_texts() == ["q1 w4a8", "q0 w4a8", "q2 w4a8"]


def test_filters_by_keyboard(visit, small):
    page = visit(small)
    assert page.get_by_role("status").inner_text() == "4 shown"
    page.locator("#text").focus()
    page.keyboard.type("GPTQ w2")
    assert shown(page) == ["✗ gptq w2a8"]
    assert page.get_by_role("status").inner_text() == "1 of 4 shown"
    assert page.locator("details[data-case]:visible").count() == 1
    page.locator("#text").fill("")
    page.locator("#verdict").focus()
    page.keyboard.type("failed")
    assert shown(page) == ["✗ minmax w2a8", "✗ gptq w2a8"]
    page.locator("#aspect").select_option("ood")
    assert shown(page) == ["✗ minmax w2a8"]
    assert sort_button(page, "OOD AUROC").is_visible()
    assert not sort_button(page, "accuracy").is_visible()
    page.locator("#verdict").select_option("inconclusive")
    assert shown(page) == []
    page.locator("#aspect").select_option("calibration")
    assert shown(page) == ["✗ minmax w2a8", "✓ minmax w4a8"]


def points(page, title, kind):
    path = page.locator("figure", has_text=title).locator(f"path.line.{kind}").first.get_attribute("d")
    return len(re.findall("[ML]", path))


def test_case_opens_with_all_its_charts(visit, small):
    page = visit(small)
    page.locator("#matrix").get_by_role("link", name="minmax w2a8").focus()
    page.keyboard.press("Enter")
    details = page.locator("#case-0")
    details.locator("figure").first.wait_for()
    assert page.evaluate("document.activeElement.closest('details').id") == "case-0"
    titles = details.locator("figcaption").all_inner_texts()
    assert titles == [
        "Harm as a share of the limit",
        "Reliability",
        *(f"ROC, {name}" for name in OOD_SETS),
        "Singular values",
        "Signal over quantization error, by rank",
        *(f"Power spectrum, block {block}" for block in range(1, 5)),
    ]
    for label in details.locator("svg").evaluate_all("all => all.map(of => of.getAttribute('aria-label'))"):
        assert label.endswith(".")
        assert "NaN" not in label
        assert "undefined" not in label
    for name in OOD_SETS:
        assert points(page, f"ROC, {name}", "full") == points(page, f"ROC, {name}", "quantized") == POINTS
    assert points(page, "Singular values", "full") == points(page, "Singular values", "quantized") == POINTS
    assert points(page, "Signal over", "alone") == POINTS
    assert points(page, "Power spectrum, block 4", "quantized") == 6
    assert details.locator("figure", has_text="Reliability").locator("svg > circle").count() == 4
    assert details.locator("figure", has_text="Reliability").locator("svg > rect").count() == 3
    assert "NaN" not in details.inner_html()
    assert details.locator(".cells tbody tr").count() == len(CORRUPTIONS)
    assert details.locator(".cells tbody td").nth(4).inner_text().split() == ["85.0", "−5.0"]


def test_link_to_a_case_opens_it(visit, small):
    page = visit(small)
    page.goto(f"{page.url}#case-2")
    page.locator("#case-2 figure").first.wait_for()
    assert page.locator("details[data-case][open]").count() == 1


def test_case_says_what_was_gated_and_how(visit, small):
    page = visit(small)
    page.locator("#case-0 > summary").click()
    details = page.locator("#case-0")
    gates = details.locator("table", has_text="Harm is how much worse")
    gates.wait_for()
    assert gates.locator("tbody tr").count() == len(GATED)
    row = gates.locator("tbody tr").first.inner_text().split()
    assert row[:3] == ["accuracy", "✗", "fail"]
    assert {"0.0600", "max_drop", "0.02", "limits/strict.yaml:16", "paired"} <= set(row)
    assert "about 1,234 samples would settle it" in gates.inner_text()
    details.get_by_text(f"{len(OTHERS)} metrics without a gate").click()
    others = details.locator("details table tbody tr")
    others.first.wait_for()
    assert others.count() == len(OTHERS)
    assert others.first.inner_text().split()[:2] == [OTHERS[0], "0.8000"]
    text = details.inner_text()
    for said in (
        "few samples",
        "by neither",
        "granularity=channel",
        "280 kB of 1.34 MB",
        "627d0247",
        "2.6.0",
        "1.0 GiB",
    ):
        assert said in text


@pytest.mark.parametrize("permitted", [True, False])
def test_command_is_copied_or_selected(visit, small, permitted):
    page = visit(small, permissions=["clipboard-read", "clipboard-write"] if permitted else [])
    if not permitted:
        page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.locator("#case-3 > summary").click()
    page.locator("#case-3").get_by_role("button", name="Copy").click()
    page.locator("#case-3").get_by_text("copied" if permitted else "selected", exact=True).wait_for()
    taken = page.evaluate("navigator.clipboard.readText()" if permitted else "getSelection().toString()")
    assert taken.strip() == small.cases[3]["repeat"]


def test_scatter_follows_the_choice(visit, small):
    page = visit(small)
    scatter = page.locator("#scatter")
    assert scatter.locator("svg > .good").count() == 2 + 1  # and in the legend
    assert scatter.locator("svg > .bad").count() == 2 + 1
    assert page.locator("#front-of").inner_text() == "accuracy"
    front = page.locator("#pareto td.front")
    before = front.all_inner_texts()
    page.locator("#size-metric").select_option(label="OOD AUROC")
    assert page.locator("#front-of").inner_text() == "OOD AUROC"
    assert scatter.locator("figcaption").inner_text().endswith("harm to OOD AUROC")
    fronts = Page(html_page.render(small)).data()["sizes"]["fronts"]
    assert [at for at, text in enumerate(before) if text] == sorted(fronts[0])
    assert [at for at, text in enumerate(front.all_inner_texts()) if text] == sorted(
        fronts[list(GATED).index("ood.auroc")]
    )


def test_scatter_is_of_one_model_at_a_time(visit):
    page = visit(run(*(case(index, model=f"model-{index % 2}") for index in range(5))))
    points = page.locator("#scatter svg > .good > title")
    assert points.count() == 3
    page.locator("#size-model").select_option("model-1")
    assert points.count() == 2
    assert "quantizer-1 w4a8" in points.first.text_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone(visit, small, scheme):
    page = visit(small, width=360, scheme=scheme)
    page.locator("#case-0 > summary").click()
    page.locator("#case-0 figure").first.wait_for()
    page.locator("#case-0").get_by_text("metrics without a gate").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)"
    )


def test_is_reached_by_keyboard(visit, small):
    page = visit(small)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    assert page.locator(".skip").bounding_box()["x"] == 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.locator(".scroll", has=page.locator("#matrix")).focus()
    assert page.evaluate("document.activeElement.className") == "scroll"
    page.locator("#case-1 > summary").focus()
    page.keyboard.press("Space")
    assert page.locator("#case-1").get_attribute("open") is not None
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


@pytest.mark.parametrize("evil", EVIL)
def test_nothing_runs_that_is_data(visit, evil):
    page = visit(evil_run(evil))
    page.locator("#case-0 > summary").click()
    page.locator("#case-0 figure").first.wait_for()
    assert page.locator("script").count() == 2
    assert page.locator("[onerror], [onmouseover], img").count() == 0


def test_other_pages_raise_nothing(visit):
    recorded = case(0, coverage=None, size=None, curves=None)
    nothing = {"reliability": [], "roc": {}, "corruptions": {}, "spectra": {}, "singular_values": [], "sqnr": []}
    bare = case(1, curves=nothing, metrics=[], environment={}, data={})
    for found in (run(recorded), run(bare), run(errors={"a": "no"})):
        page = visit(found)
        for summary in page.locator("details[data-case] > summary").all():
            summary.click()


def test_works_without_javascript(visit, small):
    page = visit(small, java_script_enabled=False)
    assert len(shown(page)) == 4
    assert not page.locator("form").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_is_accessible(visit, small, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = visit(small, scheme=scheme)
    page.locator("#case-0 > summary").click()
    page.locator("#case-0 figure").first.wait_for()
    page.locator("#case-0").get_by_text("metrics without a gate").click()
    found = axe.Axe().run(page).response["violations"]
    assert [(of["id"], [node["html"] for node in of["nodes"]]) for of in found] == []


def test_200_cases_open_at_once(visit):
    page = visit(run(*many(200)))
    assert page.locator("#matrix tbody tr[data-case]").count() == 200
    assert page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") < 3000
