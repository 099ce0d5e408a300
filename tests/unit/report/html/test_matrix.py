"""The matrix of verdicts."""

from pytest_qreliab.metrics import registry
from pytest_qreliab.report.queries import worst_gates


def test_matrix_has_all_cases_and_gated_metrics(build, read_page, small):
    page = read_page(small)
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
    assert {registry.lookup(metric).header for metric in build.GATED} <= set(heads)
    assert "model tiny, benchmark digits, scope both" in page.all("caption")[0]["text"]
    [cell] = page.all("td", **{"class": "fail"})[:1]
    accuracy = worst_gates(small.cases[0])["accuracy"]
    assert cell["text"] == f"✗ {accuracy['quantized']:.4f}{accuracy['quantized'] - 0.9:+.4f}".replace("-", "−")


def test_inconclusive_that_fails_has_a_sign_of_its_own(build, read_page):
    record = build.case(outcomes={"ece": "inconclusive"})
    record["gates"][3]["passed"] = False
    page = read_page(build.results(record))
    [cell] = page.all("td", **{"class": "unsettled"})
    assert cell["text"].startswith("✗?")
    assert page.all("b", **{"class": "unsettled"})[0]["aria-label"] == "inconclusive, which fails"
