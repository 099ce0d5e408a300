"""The page in a browser: that it works, for everybody, and that nothing runs that is data."""

from __future__ import annotations

import math
import re
import shutil

import pytest

from pytest_qreliab.report.html import page as html_page
from pytest_qreliab.report.html.sizes import compare_sizes


@pytest.fixture(scope="module")
def small(build):
    """Four cases of one model, two of which fail."""
    return build.four_cases()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("there is no chromium and no google-chrome")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Opens the page of results; at the end nothing has been complained of, and nothing asked of a network."""
    contexts, complaints = [], []

    def visit(results, *, width=1280, scheme="light", **options):
        file = tmp_path / "page.html"
        file.write_text(html_page.render(results), encoding="utf-8")
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


def test_sorts_by_value_and_by_change(build, visit):
    records = [build.case(index, quantizer=f"q{index}", model=f"m{index}") for index in range(3)]
    for record, baseline, quantized in zip(records, (0.9, 0.5, math.nan), (0.8, 0.7, math.nan), strict=True):
        record["gates"][0].update(baseline=baseline, quantized=quantized)
    page = visit(build.results(*records))
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


def test_case_opens_with_all_its_charts(build, visit, small):
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
        *(f"ROC, {name}" for name in build.OOD_SETS),
        "Singular values",
        "Signal over quantization error, by rank",
        *(f"Power spectrum, block {block}" for block in range(1, 5)),
    ]
    for label in details.locator("svg").evaluate_all("all => all.map(of => of.getAttribute('aria-label'))"):
        assert label.endswith(".")
        assert "NaN" not in label
        assert "undefined" not in label
    for name in build.OOD_SETS:
        assert points(page, f"ROC, {name}", "full") == points(page, f"ROC, {name}", "quantized") == build.POINTS
    assert points(page, "Singular values", "full") == points(page, "Singular values", "quantized") == build.POINTS
    assert points(page, "Signal over", "alone") == build.POINTS
    assert points(page, "Power spectrum, block 4", "quantized") == 6
    assert details.locator("figure", has_text="Reliability").locator("svg > circle").count() == 4
    assert details.locator("figure", has_text="Reliability").locator("svg > rect").count() == 3
    assert "NaN" not in details.inner_html()
    assert details.locator(".cells tbody tr").count() == len(build.CORRUPTIONS)
    assert details.locator(".cells tbody td").nth(4).inner_text().split() == ["85.0", "−5.0"]


def test_link_to_a_case_opens_it(visit, small):
    page = visit(small)
    page.goto(f"{page.url}#case-2")
    page.locator("#case-2 figure").first.wait_for()
    assert page.locator("details[data-case][open]").count() == 1


def test_case_says_what_was_gated_and_how(build, visit, small):
    page = visit(small)
    page.locator("#case-0 > summary").click()
    details = page.locator("#case-0")
    gates = details.locator("table", has_text="Harm is how much worse")
    gates.wait_for()
    assert gates.locator("tbody tr").count() == len(build.GATED)
    row = gates.locator("tbody tr").first.inner_text().split()
    assert row[:3] == ["accuracy", "✗", "fail"]
    assert {"0.0600", "max_drop", "0.02", "limits/strict.yaml:16", "paired"} <= set(row)
    assert "about 1,234 samples would settle it" in gates.inner_text()
    details.get_by_text(f"{len(build.OTHERS)} metrics without a gate").click()
    others = details.locator("details table tbody tr")
    others.first.wait_for()
    assert others.count() == len(build.OTHERS)
    assert others.first.inner_text().split()[:2] == [build.OTHERS[0], "0.8000"]
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


def test_scatter_follows_the_choice(build, visit, small):
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
    fronts = compare_sizes(small.cases).fronts
    assert [at for at, text in enumerate(before) if text] == sorted(fronts[0])
    assert [at for at, text in enumerate(front.all_inner_texts()) if text] == sorted(
        fronts[list(build.GATED).index("ood.auroc")]
    )


def test_scatter_is_of_one_model_at_a_time(build, visit):
    page = visit(build.results(*(build.case(index, model=f"model-{index % 2}") for index in range(5))))
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


def test_nothing_runs_that_is_data(build, visit, hostile_text):
    page = visit(build.hostile_results(hostile_text))
    page.locator("#case-0 > summary").click()
    page.locator("#case-0 figure").first.wait_for()
    assert page.locator("script").count() == 2
    assert page.locator("[onerror], [onmouseover], img").count() == 0


def test_other_pages_raise_nothing(build, visit):
    recorded = build.case(0, coverage=None, size=None, curves=None)
    nothing = {"reliability": [], "roc": {}, "corruptions": {}, "spectra": {}, "singular_values": [], "sqnr": []}
    bare = build.case(1, curves=nothing, metrics=[], environment={}, data={})
    for results in (build.results(recorded), build.results(bare), build.results(errors={"a": "no"})):
        page = visit(results)
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
    violations = axe.Axe().run(page).response["violations"]
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in violations] == []


def test_200_cases_open_at_once(build, visit):
    page = visit(build.results(*build.many(200)))
    assert page.locator("#matrix tbody tr[data-case]").count() == 200
    assert page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") < 3000
