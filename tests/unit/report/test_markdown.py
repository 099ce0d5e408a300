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
