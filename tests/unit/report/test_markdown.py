"""The results in Markdown."""

from pytest_qreliab.report import markdown


def test_the_summary_says_what_failed_first(results):
    text = markdown.render(results)
    lines = text.splitlines()
    assert lines[0] == "## ❌ Reliability of 2 quantized cases: 1 passed, 1 failed, 10 gated metrics not judged"
    assert lines[2].startswith("- ⏭️ not judged: shift.accuracy: benchmark 'small' has no shift images; ")
    assert lines[3].startswith("- ⏭️ not judged: corruption.accuracy, corruption.ece: benchmark ")
    assert "#### ❌ minmax w2a8: tiny-digits on small" in lines
    assert text.index("#### ❌") < text.index("### tiny-digits on small")
    assert any(line.startswith("| ❌ ood.auroc | 0.91") for line in lines)
    assert text.count("```sh\npytest -k 'tiny-digits/minmax/w2a8/small'\n```") == 1
    tables = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in tables}) == 2  # those of the failure and of all


def test_markup_in_names_is_text(results):
    for record in results.cases:
        record["model"] = "a|b*<script>_`"
        record["warnings"] = ["data [x](y): one\nwas accepted"]
    results.errors["other"] = "<b>"
    results.plan.cases.append("other")
    text = markdown.render(results)
    assert "<script>" not in text
    assert "<b>" not in text
    assert "a\\|b\\*&lt;script&gt;\\_\\`" in text
    assert "- ⚠️ data \\[x\\](y): one was accepted" in text
    assert "`other` has no result: &lt;b&gt;" in text


def test_the_spread_of_kernels_is_beside_the_drift(build):
    record = build.case(outcomes={"nll": "fail"})
    (gate,) = (gate for gate in record["gates"] if gate["metric"] == "nll")
    gate.update(limit="max_drift", accepted=0.9, harm=0.05, low=None, high=None, kernel_spread=0.00123)
    assert "| 0.0500 (kernels: 0.0012) |" in markdown.render(build.results(record))


def test_what_was_trained_on_is_said(build):
    text = markdown.render(build.results(build.case(quantizer="lsq", trained_on="pairs in a_b.csv")))
    assert "- lsq: trained on pairs in a\\_b.csv" in text.splitlines()
