"""What a run writes for other tools: summaries and annotations for GitHub Actions, JUnit, and nothing else unasked."""

import pytest

pytestmark = pytest.mark.usefixtures("everything_imported")


@pytest.fixture
def run(pytester, small_benchmark, monkeypatch, kept):
    """Runs pytest in this process on the small benchmark."""

    def run(*args: str):
        given = (f"--qreliab-benchmarks={small_benchmark}", f"--qreliab-cache-dir={kept}")
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", *given, *args)

    return run


def test_nothing_is_written_that_nobody_asked_for(pytester, run, monkeypatch):
    run("--qreliab-bits=w8")
    assert list(pytester.path.iterdir()) == []


def test_github_gets_a_summary_and_annotations(pytester, run, monkeypatch):
    summary = pytester.path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    result = run("--qreliab-bits=w2", "--qreliab-thresholds=default")
    text = summary.read_text()
    head = "## ❌ Reliability of 1 quantized case: 0 passed, 1 failed, 5 gated metrics not judged"
    assert text.startswith(f"before\n{head}\n")
    assert [line for line in result.outlines if line.startswith("::error file=")]
    run("--co", "-q")
    assert summary.read_text() == text
    monkeypatch.delenv("GITHUB_ACTIONS")
    assert "::error" not in run("--qreliab-bits=w2").stdout.str()


def test_the_summary_tells_of_cases_without_result(pytester, run, monkeypatch, folder_benchmark):
    summary = pytester.path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    (folder_benchmark.parent / "images" / "dog" / "1.png").write_bytes(b"no image")
    run(f"--qreliab-benchmarks={folder_benchmark}", "--qreliab-bits=w8").assert_outcomes(errors=4)
    lines = summary.read_text().splitlines()
    assert lines[0] == "## ❌ Reliability of 1 quantized case: 0 passed, 0 failed, 1 without result"
    assert lines[2].startswith("- ❌ `tiny-digits/minmax/w8/folders` has no result: ")


def test_another_plugin_annotates(pytester, run, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    pytester.makeconftest(
        "def pytest_configure(config):\n"
        "    config.pluginmanager.register(object(), 'pytest_github_actions_annotate_failures')\n"
    )
    assert "::error" not in run("--qreliab-bits=w2").stdout.str()


def test_a_summary_that_cannot_be_written_is_said(pytester, run, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "no" / "summary.md"))
    result = run("--qreliab-bits=w8")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "no/summary.md cannot be written: No such file" in result.stderr.str() + result.stdout.str()


def test_junit_is_what_strict_parsers_take(pytester, run):
    run("--qreliab-bits=w2a8", "--qreliab-controls=weights", "--junit-xml=out.xml")
    junitparser = pytest.importorskip("junitparser")
    (suite,) = junitparser.JUnitXml.fromfile(str(pytester.path / "out.xml"))
    assert (suite.tests, suite.failures, suite.errors) == (4, 4, 0)
    for case in suite:
        properties = {element.get("name"): element.get("value") for element in case._elem.iter("property")}
        assert properties["qreliab.case"] == "tiny-digits/minmax/w2a8/small"
        assert "repeat: pytest" in case.result[0].text
        if case.name.startswith("test_ood"):
            assert properties["ood.auroc.mcm.controls"]
            assert properties["ood.auroc.max_drop.verdict"] == "fail"
        assert all(isinstance(value, str) and "\n" not in value for value in properties.values())
