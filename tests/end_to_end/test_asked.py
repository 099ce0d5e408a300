"""Runs in which nobody asks for a reliability test, or only a test of one's own, and runs that judge nothing."""

import json
import os
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.usefixtures("everything_imported")

OWN = "def test_own(qreliab_result): qreliab_result.check('accuracy')\n"
HINT = "qreliab: settings are given, and no reliability test ran: pytest qreliab runs the shipped ones"


@pytest.fixture
def project(pytester, small_benchmark, kept):
    """A project with unit tests, tests of its own for reliability, settings in its ini file, and old results."""
    pytester.makeini(
        f"[pytest]\nqreliab_bits = w8\nqreliab_benchmarks = {small_benchmark}\nqreliab_cache_dir = {kept}\n"
        "qreliab_json = results.json\n"
    )
    pytester.mkdir("unit").joinpath("test_unit.py").write_text("def test_unit(): pass\n")
    pytester.mkdir("reliability").joinpath("test_own.py").write_text(OWN)
    pytester.path.joinpath("results.json").write_text("old")
    return pytester


@pytest.fixture
def refused(refused):
    """Checks that the run ended with exit code 4 and that message alone."""

    def check(result, message: str) -> None:
        refused(result, message)
        assert "Error" not in result.stdout.str()
        assert HINT not in result.stdout.str()

    return check


# Runs in which nobody asks


BROKEN = {
    "bits": "w99",
    "benchmarks": "missing.yaml",
    "models": "ViT-B-32/missing.safetensors",
    "device": "cuda:99",
    "shard": "1/400",
    "snapshot": "missing",
    "compile": "perhaps",
    "deterministic": "perhaps",
}


@pytest.mark.parametrize("where", ["ini", "environment", "addopts"])
@pytest.mark.parametrize("name", BROKEN)
def test_settings_that_cannot_be_used_do_not_keep_unit_tests_from_running(project, monkeypatch, where, name):
    if where == "environment":
        monkeypatch.setenv(f"QRELIAB_{name.upper()}", BROKEN[name])
    else:
        line = (
            f"addopts = --qreliab-{name}={BROKEN[name]}" if where == "addopts" else f"qreliab_{name} = {BROKEN[name]}"
        )
        project.makeini(f"[pytest]\n{line}\n")
    result = project.runpytest_inprocess("unit")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines([HINT])


def test_options_in_addopts_run_the_tests_of_the_project_and_not_the_shipped_ones(project, monkeypatch, refused):
    project.makeini("[pytest]\ntestpaths = unit\naddopts = --qreliab-bits=w99\n")
    project.runpytest_inprocess().assert_outcomes(passed=1)
    project.makeini("[pytest]\ntestpaths = unit\n")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--qreliab-bits=w99")
    project.runpytest_inprocess().assert_outcomes(passed=1)
    refused(project.runpytest_inprocess("qreliab"), "--qreliab-bits: 99 bits in 'w99' is out of range*")


@pytest.mark.parametrize(
    "args",
    [
        ["unit"],
        ["--help"],
        ["--markers"],
        ["--fixtures"],
        ["--fixtures-per-test"],
        ["--cache-show"],
        ["--version"],
        ["--setup-plan"],
        ["--setup-only", "unit"],
        ["--collect-only"],
        ["--co", "-q", "unit"],
        ["-k", "nothing"],
        ["-k", "unit"],
        ["-m", "not qreliab"],
        ["--qreliab-json=results.json", "--co"],
        ["--qreliab-json=results.json", "--setup-plan"],
        ["--qreliab-json=results.json", "--fixtures"],
        ["--qreliab-json=results.json", "-k", "nothing"],
    ],
    ids=" ".join,
)
def test_the_results_of_the_run_before_stay_if_no_reliability_test_is_run(project, args):
    result = project.runpytest_inprocess(*args)
    assert project.path.joinpath("results.json").read_text() == "old"
    assert result.ret == (pytest.ExitCode.NO_TESTS_COLLECTED if "nothing" in args else pytest.ExitCode.OK)
    assert sorted(path.name for path in project.path.iterdir() if path.suffix == ".json") == ["results.json"]


@pytest.mark.parametrize("args", [["--help"], ["--markers"], ["--fixtures"], ["--cache-show"]], ids=" ".join)
def test_lists_are_shown_whatever_the_options_are(project, args):
    result = project.runpytest_inprocess("--qreliab-bits=w99", *args)
    assert result.ret == pytest.ExitCode.OK


def test_a_unit_run_reads_no_benchmark_and_imports_nothing_heavy(project):
    project.makeconftest(
        """
        import sys

        def pytest_unconfigure():
            print("LOADED", *sorted(name for name in sys.modules if "." not in name))
        """
    )
    others = ("-p", "no:hypothesispytest", "-p", "no:xdist", "-p", "no:anyio", "-p", "no:torchtyping")
    result = project.runpytest_subprocess(*others, "unit")
    result.assert_outcomes(passed=1)
    loaded = next(line for line in result.outlines if line.startswith("LOADED")).split()
    assert not {"torch", "numpy", "yaml", "rich", "pydantic"} & set(loaded)


# Runs in which tests of one's own ask


def test_a_test_of_ones_own_makes_the_plan_and_announces_it_after_collection(project):
    result = project.runpytest_inprocess()
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["collected 2 items*", "qreliab: 1 case: tiny-digits x minmax w8 x small", "*2 passed*"]
    )
    assert result.stdout.str().count("qreliab: 1 case") == 1
    (entry,) = json.loads(project.path.joinpath("results.json").read_text())["cases"]
    assert entry["case"] == "tiny-digits/minmax/w8/small"
    assert "qreliab: 1 case" not in project.runpytest_inprocess("-q", "--co").stdout.str()


def test_options_on_the_command_line_are_announced_at_the_head(project):
    result = project.runpytest_inprocess("--qreliab-bits=w4", "reliability")
    result.stdout.fnmatch_lines(["qreliab: 1 case: tiny-digits x minmax w4 x small", "*collected 1 item*"])
    assert result.stdout.str().count("qreliab: 1 case") == 1


@pytest.mark.parametrize("args", [[], ["--collect-only"], ["-p", "xdist", "-n1"]], ids=["run", "collect", "xdist"])
def test_settings_that_cannot_be_used_are_one_message_for_all_tests_of_ones_own(project, args, refused):
    if "xdist" in args:
        pytest.importorskip("xdist")
    project.path.joinpath("reliability", "test_more.py").write_text(OWN + OWN.replace("test_own", "test_again"))
    project.makeini("[pytest]\nqreliab_bits = w99\n")
    run = project.runpytest_subprocess if "xdist" in args else project.runpytest_inprocess
    refused(run(*args), "ini qreliab_bits: 99 bits in 'w99' is out of range*")


def test_a_registration_that_fails_is_one_message_for_all_tests_of_ones_own(project, refused):
    project.makeconftest("def pytest_qreliab_register(catalog):\n    1 / 0\n")
    refused(
        project.runpytest_inprocess(),
        "pytest_qreliab_register raised ZeroDivisionError: division by zero (conftest.py:2)",
    )


def test_a_conftest_beside_the_tests_registers_as_well(project):
    project.path.joinpath("reliability", "conftest.py").write_text(
        "def pytest_qreliab_register(catalog):\n    catalog.add_model('mine', lambda: None)\n"
    )
    project.makeini("[pytest]\nqreliab_models = mine\nqreliab_bits = w8\n")
    result = project.runpytest_inprocess("--co")
    result.stdout.fnmatch_lines(["qreliab: 1 case: mine x minmax w8 x digits"])


@pytest.mark.slow
def test_workers_take_the_settings_of_an_ini_file_for_tests_of_ones_own(project):
    pytest.importorskip("xdist")
    project.path.joinpath("reliability", "test_own.py").write_text(OWN + "def test_model(baseline_clip): pass\n")
    result = project.runpytest_subprocess("-p", "xdist", "-n2", "-v")
    result.assert_outcomes(passed=3)
    assert result.stdout.str().count("qreliab: 1 case: tiny-digits x minmax w8 x small") == 1
    result.stdout.fnmatch_lines(["scheduling tests via BuildScheduling"])
    (entry,) = json.loads(project.path.joinpath("results.json").read_text())["cases"]
    assert entry["case"] == "tiny-digits/minmax/w8/small"
    project.path.joinpath("results.json").write_text("old")
    result = project.runpytest_subprocess("-p", "xdist", "-n2", "-v", "unit")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["scheduling tests via LoadScheduling"])  # as without the plugin
    assert project.path.joinpath("results.json").read_text() == "old"
    project.runpytest_subprocess("-p", "xdist", "-n2", "-k", "model").assert_outcomes(passed=1)
    assert json.loads(project.path.joinpath("results.json").read_text())["cases"] == []


# Where paths of an ini file start


def test_paths_in_an_ini_file_start_in_its_folder_and_others_in_the_working_directory(
    pytester, small_benchmark, refused
):
    project = pytester.mkdir("project")
    project.joinpath("pytest.ini").write_text(
        "[pytest]\nqreliab_bits = w8\nqreliab_benchmarks = b.yaml\nqreliab_thresholds = t.yaml\nqreliab_json = r.json\n"
        "qreliab_cache_dir = cache\n"
    )
    project.joinpath("b.yaml").write_text(small_benchmark.read_text())
    project.joinpath("t.yaml").write_text("version: 1\ngates: {accuracy: {max_drop: 0.5}}\n")
    tests = project / "tests"
    tests.mkdir()
    tests.joinpath("test_own.py").write_text(OWN)
    os.chdir(tests)
    pytester.runpytest_inprocess("--qreliab-html=r.html").assert_outcomes(passed=1)
    assert sorted(path.name for path in project.glob("[!.]*")) == [
        "b.yaml",
        "cache",
        "pytest.ini",
        "r.json",
        "t.yaml",
        "tests",
    ]
    assert tests.joinpath("r.html").exists()
    result = pytester.runpytest_inprocess("--qreliab-benchmarks=b.yaml")
    refused(result, "--qreliab-benchmarks: unknown benchmark 'b.yaml'*tests/b.yaml does not exist)")


# TOML


@pytest.mark.parametrize("table", ["tool.pytest.ini_options", "tool.pytest"])
@pytest.mark.parametrize(
    ("line", "widths"),
    [
        ('qreliab_bits = ["w4", "w8"]', "w4 w8"),
        ("qreliab_bits = [4, 8]", "w4a8 w8a8"),
        ('qreliab_bits = "w4,w8"', "w4 w8"),
        ("qreliab_bits = 4", "w4a8"),
        ('qreliab_bits = "w8"\nqreliab_compile = false', "w8"),
        ('qreliab_bits = "w8"\nqreliab_thresholds = ["default"]', "w8"),
    ],
)
def test_toml_lists_and_truth_values_are_taken(pytester, table, line, widths):
    if table == "tool.pytest" and int(pytest.__version__.partition(".")[0]) < 9:
        pytest.skip("pytest 9 reads this table")
    pytester.makepyprojecttoml(f"[{table}]\n{line}\n")
    pytester.makepyfile(OWN)
    result = pytester.runpytest_inprocess("--co", "-W", "error")
    names = ", ".join(f"minmax {width}" for width in widths.split())
    result.stdout.fnmatch_lines([f"qreliab: * x {names} x digits"])


@pytest.mark.parametrize("value", ["4.5", '[["w4"]]', "[1.5]", '{ a = "w4" }'])
def test_toml_values_of_other_types_are_refused_with_one_message(pytester, value, refused):
    if value.startswith(("4", "{")) and int(pytest.__version__.partition(".")[0]) < 9:
        pytest.skip("pytest 8 makes it a text")
    table = "tool.pytest" if value.startswith(("4", "{")) else "tool.pytest.ini_options"
    pytester.makepyprojecttoml(f"[{table}]\nqreliab_bits = {value}\n")
    pytester.makepyfile(test_own=OWN, test_unit="def test_unit(): pass")
    refused(pytester.runpytest_inprocess(), "ini qreliab_bits: * is no text; write *")
    pytester.runpytest_inprocess("test_unit.py").assert_outcomes(passed=1)


# Runs that judge nothing


@pytest.mark.parametrize(
    ("test", "args", "outcome", "reason"),
    [
        ("def test_it(qreliab_result): pass", [], {"passed": 1}, "no test called check(aspect)*"),
        ("def test_it(qreliab_result): assert qreliab_result.samples", [], {"passed": 1}, "no test called check*"),
        ("import pytest\n@pytest.mark.skip\ndef test_it(qreliab_result): pass", [], {"skipped": 1}, "*was skipped*"),
        (OWN, ["-k", "nothing", "--qreliab-bits=w4"], {"deselected": 4}, "*no reliability test was selected"),
        (OWN, ["unit", "--qreliab-bits=w4"], {"passed": 1}, "*no reliability test was selected"),
        (OWN, ["qreliab", "-k", "nothing"], {"deselected": 4}, "*no reliability test was selected"),
    ],
)
def test_a_run_that_judges_nothing_is_not_green(project, test, args, outcome, reason):
    project.path.joinpath("reliability", "test_own.py").write_text(test)
    result = project.runpytest_inprocess(*(args or ["reliability"]), "-q")
    result.assert_outcomes(**outcome)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines([f"qreliab: nothing was judged*{reason}"])
    assert result.stdout.str().count("qreliab: nothing") == 1


def test_a_run_that_an_error_ends_says_nothing_of_what_it_judged(project):
    project.path.joinpath("reliability", "test_own.py").write_text("import nothing_like_it")
    result = project.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert HINT not in result.stdout.str()
    assert "nothing was judged" not in project.runpytest_inprocess("qreliab::test_acuracy").stdout.str()


@pytest.mark.parametrize(
    "test",
    [
        OWN,
        "def test_it(qreliab_result): assert qreliab_result.changes['accuracy'].delta < 1",
        "def test_it(qreliab_result): assert qreliab_result.verdicts",
        "def test_it(qreliab_result): assert qreliab_result.coverage.weights == 1",
        "def test_it(quantized_clip): assert quantized_clip.coverage.weights == 1",
        "def test_it(baseline_clip): assert baseline_clip",
        "import pytest\n@pytest.mark.xfail\ndef test_it(qreliab_result): qreliab_result.check('accuracy'); assert 0",
    ],
)
def test_a_test_that_looks_at_anything_has_judged(project, test):
    project.path.joinpath("reliability", "test_own.py").write_text(test)
    result = project.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.OK
    assert "nothing was judged" not in result.stdout.str()


def test_a_shard_without_any_of_the_selected_tests_says_so_and_is_no_failure(project):
    project.path.joinpath("reliability", "test_own.py").write_text("def test_it(baseline_clip): pass")
    args = ("--qreliab-bits=w8,w4", "reliability")
    project.runpytest_inprocess(*args, "--qreliab-shard=1/2").assert_outcomes(passed=1)
    result = project.runpytest_inprocess(*args, "--qreliab-shard=2/2")
    result.stdout.fnmatch_lines(["qreliab: shard 2 of 2 has none of the selected tests: nothing to judge here"])
    assert result.ret == pytest.ExitCode.OK
    assert json.loads(project.path.joinpath("results.json").read_text())["shard"] == [2, 2]


# Errors of many tests


def test_an_error_of_many_tests_is_printed_once_and_without_a_chain(project):
    project.makeconftest(
        "def make():\n    raise OSError('no such weights')\n\n"
        "def pytest_qreliab_register(catalog):\n    catalog.add_model('mine', make)\n"
    )
    result = project.runpytest_inprocess("--qreliab-models=mine", "--qreliab-bits=w8,w4")
    result.assert_outcomes(errors=8)
    text = result.stdout.str()
    first = "qreliab::test_accuracy[mine/minmax/w8/small]"
    assert text.count("no such weights (conftest.py:2)") in (1, 2)  # pytest's short summary may cut it
    assert text.count(f"no result, for the reason that {first} gives") in (7, 14)
    assert "During handling" not in text
    errors = json.loads(project.path.joinpath("results.json").read_text())["errors"]
    assert len(errors) == 2
    assert all("no such weights" in message for message in errors.values())


# Tests that are run again


@pytest.mark.parametrize("aspect", ["accuracy", "spectrum"])
def test_a_test_that_is_run_again_has_its_properties_once(project, write_thresholds, aspect):
    pytest.importorskip("pytest_rerunfailures")
    limits = write_thresholds("accuracy: {min: 1}\nspectral.effective_rank: {min: 999}")
    args = ("--reruns=2", "--junit-xml=out.xml", f"--qreliab-thresholds={limits}", "-k", aspect)
    project.runpytest_inprocess("--qreliab-bits=w2", *args).assert_outcomes(failed=1)
    for case in ElementTree.parse(project.path / "out.xml").iter("testcase"):
        names = [each.get("name") for each in case.iter("property")]
        assert len(names) == len(set(names))
        assert "qreliab.case" in names
