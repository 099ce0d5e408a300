"""One plan on several machines: which tests each runs, the file of its results, and all of them put together."""

import json
import math
import re
import shutil

import pytest

from pytest_qreliab import cli
from pytest_qreliab.report import results_file
from pytest_qreliab.report.results_file import Planned, Results

pytestmark = pytest.mark.usefixtures("everything_imported")


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def run(pytester, small_benchmark, kept):
    """Runs pytest in this process on the small benchmark."""

    def run(*args: str):
        given = (f"--qreliab-benchmarks={small_benchmark}", f"--qreliab-cache-dir={kept}")
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", *given, *args)

    return run


@pytest.fixture
def merge(capsys):
    """Runs `qreliab merge`; gives its exit status and the lines of both streams."""

    def merge(*args: object) -> tuple[int, list[str]]:
        capsys.readouterr()
        code = cli.main(["merge", *map(str, args)])
        captured = capsys.readouterr()
        return code, (captured.out + captured.err).splitlines()

    return merge


# Cutting


def test_every_test_is_in_one_shard_and_other_peoples_in_all(pytester, run):
    pytester.makepyfile(
        test_own="""
        def test_model(baseline_clip): pass
        def test_build(quantized_clip): pass
        def test_theirs(): pass
        """
    )
    args = ("--qreliab-bits=w8,w4,3", "--qreliab-scopes=vision,both", "--co", "-q", "qreliab", "test_own.py")

    def tests(*more: str) -> list[str]:
        return [line for line in run(*args, *more).outlines if "::" in line]

    whole, theirs = tests(), "test_own.py::test_theirs"
    parts = [tests(f"--qreliab-shard={number}/4") for number in (1, 2, 3, 4)]
    assert all(part.count(theirs) == 1 for part in parts)
    ours = [test for part in parts for test in part if test != theirs]
    assert sorted(ours) == sorted(set(whole) - {theirs})
    assert len(ours) == 6 * 5 + 1
    builds = [{found[0] for test in part if (found := re.search(r"/w\d+(a\d)?(/vision)?", test))} for part in parts]
    assert [len(part) for part in builds] == [1, 2, 1, 2]


def test_the_header_and_pytest_say_what_is_left_out(run):
    result = run("--qreliab-bits=w8,w4,w3", "--qreliab-shard=2/2", "--co", "-q")
    result.stdout.fnmatch_lines(["*/12 tests collected (4 deselected)*"])
    result = run("--qreliab-bits=w8,w4,w3", "--qreliab-shard=2/2", "--co")
    result.stdout.fnmatch_lines(["qreliab: 27 gates of *", "qreliab: shard 2 of 2: 2 of 3 cases"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--qreliab-shard=0/2"], "--qreliab-shard: '0/2' is no shard; write K/N, as in 1/4, K from 1 to N, or none"),
        (["--qreliab-shard=3/2"], "--qreliab-shard: '3/2' is no shard*"),
        (["--qreliab-shard=1"], "--qreliab-shard: '1' is no shard*"),
        (["--qreliab-shard="], "--qreliab-shard: is empty*"),
        (["--qreliab-shard=1/4"], "--qreliab-shard: 4 shards of 3 quantized models *; give at most 3"),
        (["--qreliab-json=folder"], "--qreliab-json: */folder is no file; give a file*"),
        (["--qreliab-json=test_it.py/x.json"], "--qreliab-json: */test_it.py/x.json cannot be written: *"),
        (["--qreliab-json=x.json", "--qreliab-aa"], "--qreliab-json: is for results of the gates, which --qreliab-aa*"),
    ],
)
def test_what_cannot_be_used_ends_the_run_at_its_start(pytester, run, options, message):
    pytester.mkdir("folder")
    pytester.makepyfile(test_it="")
    result = run("--qreliab-bits=w8,w4,w3", *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])
    assert len([line for line in result.errlines if line]) == 1


# Results of runs


@pytest.mark.slow
def test_the_merged_table_is_that_of_one_run(pytester, run, merge, small_benchmark):
    args = ("--qreliab-bits=w8,w4,w2",)
    whole = run(*args, "--qreliab-json=whole.json")
    first = run(*args, "--qreliab-shard=1/2", "--qreliab-json=out/1.json")
    assert (whole.ret, first.ret) == (1, 0)
    pytester.makeconftest(
        "import sys\n"
        "def pytest_unconfigure(config):\n"
        "    if not hasattr(config, 'workerinput'):\n"
        "        print('the controller has torch:', 'torch' in sys.modules)\n"
    )
    second = pytester.runpytest_subprocess(
        f"--qreliab-benchmarks={small_benchmark}", *args, "--qreliab-shard=2/2", "--qreliab-json=out/2.json", "-n2"
    )
    second.assert_outcomes(passed=4, failed=4)
    second.stdout.fnmatch_lines(["the controller has torch: False"])
    repeats = [line for line in second.outlines if "repeat: pytest" in line]
    assert len(repeats) == 4
    assert not any("shard" in line or "json" in line for line in repeats)

    code, lines = merge("out/2.json", "out/1.json", "--output=all.json")
    lines = [line for line in lines if line]
    assert code == 1
    assert lines[-2:] == [
        "out/2.json: the run ended with exit status 1",
        "3 cases: 2 passed, 1 failed, 0 without result",
    ]
    printed = [line for line in whole.outlines if line]
    start = printed.index("tiny-digits on small (120 samples, cpu)")
    assert lines[:-2] == printed[start : start + len(lines) - 2]
    assert merge("all.json")[1][:-2] == merge("whole.json")[1][:-2]

    data = json.loads((pytester.path / "out" / "2.json").read_text())
    assert data["version"] == 1
    assert data["shard"] == [2, 2]
    assert data["exitstatus"] == 1
    assert data["errors"] == {}
    assert [entry["case"] for entry in data["cases"]] == data["plan"]["cases"][1:]
    assert sorted(path.name for path in (pytester.path / "out").iterdir()) == ["1.json", "2.json"]


def test_a_case_without_result_is_in_the_file_with_its_reason(pytester, run, merge, folder_benchmark):
    (folder_benchmark.parent / "images" / "dog" / "1.png").write_bytes(b"no image")
    run(f"--qreliab-benchmarks={folder_benchmark}", "--qreliab-bits=w8", "--qreliab-json=it.json").assert_outcomes(
        errors=4
    )
    case = "tiny-digits/minmax/w8/folders"
    data = json.loads((pytester.path / "it.json").read_text())
    assert data["cases"] == []
    assert re.search(r"image .*/images/dog/1.png cannot be decoded", data["errors"][case])
    code, lines = merge("it.json")
    assert code == 1
    assert lines == [
        f"no result: {case}: {data['errors'][case]}",
        "it.json: the run ended with exit status 1",
        "1 case: 0 passed, 0 failed, 1 without result",
    ]


def test_a_file_of_a_run_before_is_gone_when_a_run_starts(pytester, run, small_benchmark):
    path = pytester.path / "it.json"
    path.write_text("old")
    run("--qreliab-json=it.json", "--co")
    assert path.read_text() == "old"
    pytester.makeconftest("def pytest_runtestloop():\n    import os\n    os._exit(7)\n")
    pytester.runpytest_subprocess("--qreliab-json=it.json", f"--qreliab-benchmarks={small_benchmark}")
    assert not path.exists()


def test_a_file_that_cannot_be_written_any_more_is_said_below_the_table(pytester, run):
    pytester.makeconftest("import shutil\ndef pytest_sessionfinish():\n    shutil.rmtree('out')\n")
    result = run("--qreliab-bits=w8", "--qreliab-json=out/it.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(["*= reliability =*", "*4 passed*"])
    assert "out/it.json cannot be written: No such file" in result.stderr.str() + result.stdout.str()
    assert "Traceback" not in result.stderr.str() + result.stdout.str()


def test_the_digest_is_of_what_decides_results_not_of_where_it_lies(
    make_plan, small_benchmark, write_thresholds, tmp_path
):
    def digest(**given: str) -> str:
        plan = make_plan(**{"benchmarks": str(small_benchmark), "bits": "w8", **given})
        return results_file.identify_plan(plan).digest

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    limits = write_thresholds("accuracy: {max_drop: 0.1}")
    shutil.copy(limits, elsewhere / "else.yaml")
    shutil.copy(small_benchmark, elsewhere)
    one = digest(thresholds=str(limits))
    assert one == digest(thresholds=str(elsewhere / "else.yaml"), benchmarks=str(elsewhere / small_benchmark.name))
    (elsewhere / "small.yaml").write_text(small_benchmark.read_text().replace("limit: 120", "limit: 119"))
    others = {
        digest(thresholds=str(limits), benchmarks=str(elsewhere / "small.yaml")),
        digest(thresholds=str(limits), bits="w8,w4"),
        digest(thresholds=str(limits), controls="weights"),
        digest(thresholds=str(write_thresholds("accuracy: {max_drop: 0.2}", "b.yaml"))),
        digest(
            thresholds=str(write_thresholds("accuracy: {max_drop: 0.1}", "c.yaml", "version: 1\nconfidence: 0.9\n"))
        ),
    }
    assert len(others - {one}) == 5


# Files


def entry(case: str, value: float = 0.9, outcome: str = "pass"):
    change = {"baseline": 0.9, "quantized": value, "low": None, "high": None, "problem": ""}
    return {
        "case": case,
        "model": "m",
        "quantizer": "minmax",
        "bits": case,
        "scope": "both",
        "benchmark": "b",
        "quantization": f"minmax {case}",
        "rescaled": False,
        "parameters": "",
        "trained_on": "",
        "samples": 10,
        "device": "cpu",
        "confidence": 0.95,
        "coverage": None,
        "product_coverage": None,
        "size": None,
        "metrics": [
            {"metric": "accuracy", "aspect": "accuracy", "better": "higher", "change": value - 0.9, **change},
        ],
        "gates": [
            {
                "metric": "accuracy",
                "aspect": "accuracy",
                "limit": "max_drop",
                "value": 0.01,
                "where": "limits.yaml:3",
                "outcome": outcome,
                "passed": outcome == "pass",
                "accepted": None,
                "kernel_spread": None,
                "harm": 0.9 - value,
                "method": "",
                "settling_n": None,
                **change,
            }
        ],
        "controls": None,
        "curves": None,
        "data": {},
        "environment": {},
        "baseline": {"file": "model.safetensors 1a2b3c4d"},
        "skipped": {},
        "warnings": [],
        "repeat": "pytest",
        "encoded": 0,
        "known": 20,
        "peak_memory": 2**30,
        "peak_device_memory": 0,
    }


CASES = ["w8", "w4", "w2"]


def of_shard(number: int, count: int = 3, **changes: object) -> Results:
    case = CASES[number - 1]
    fields = {
        "qreliab": "0.1.0",
        "created": "2026-01-01T00:00:00+00:00",
        "shard": (number, count),
        "plan": Planned(digest="d", cases=CASES),
        "cases": [entry(case)],
        "errors": {},
        "exitstatus": 0,
    }
    return Results.model_validate({**fields, **changes})


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2, 3):
        results_file.write(tmp_path / f"{number}.json", of_shard(number))
    return tmp_path


def test_numbers_that_json_has_not_come_back(tmp_path):
    (gate,) = entry("w8")["gates"]
    gate |= {"baseline": math.nan, "quantized": math.inf, "harm": -math.inf, "low": -math.inf}
    found = of_shard(1, cases=[entry("w8") | {"gates": [gate]}])
    results_file.write(tmp_path / "it.json", found)

    def refuse(text: str):
        raise AssertionError(text)

    json.loads((tmp_path / "it.json").read_text(), parse_constant=refuse)
    back = results_file.read(tmp_path / "it.json")
    assert repr(back) == repr(found)
    assert back.cases[0]["gates"][0]["quantized"] == math.inf


def test_all_shards_that_pass_are_a_run_that_passed(files, merge):
    code, lines = merge("2.json", "3.json", "1.json", "--output=all.json")
    assert code == 0
    assert [line.split()[1] for line in lines if line.startswith("minmax")] == CASES
    assert lines[-1] == "3 cases: 3 passed, 0 failed, 0 without result"
    merged = results_file.read(files / "all.json")
    assert (merged.shard, merged.exitstatus, [found["case"] for found in merged.cases]) == (None, 0, CASES)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"cases": [entry("w4", 0.1, "fail")], "exitstatus": 1}, "3 cases: 2 passed, 1 failed, 0 without result"),
        ({"cases": [entry("w4", 0.1, "fail")]}, "3 cases: 2 passed, 1 failed, 0 without result"),
        ({"cases": [], "errors": {"w4": "worker gw0 crashed"}}, "no result: w4: worker gw0 crashed"),
        ({"cases": []}, "no result: w4: not measured"),
        ({"exitstatus": 1}, "2.json: the run ended with exit status 1"),
    ],
)
def test_a_shard_that_did_not_pass_fails_the_merge(files, merge, changes, line):
    results_file.write(files / "2.json", of_shard(2, **changes))
    code, lines = merge("1.json", "2.json", "3.json")
    assert code == 1
    assert line in lines


def test_missing_shards_are_named(files, merge):
    code, lines = merge("2.json")
    assert code == 1
    assert "missing: shard 1 of 3" in lines
    assert "missing: shard 3 of 3" in lines
    assert "no result: w8: not measured" in lines


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.json", "again.json"], "again.json and 1.json are both shard 1 of 3"),
        (["1.json", "1.json"], "a file is given twice"),
        (["1.json", "other.json"], "other.json is of another plan than 1.json: options, files or versions differ"),
        (["1.json", "of-two.json"], "of-two.json is a shard of 2, 1.json one of 3"),
        (["1.json", "whole.json"], "whole.json is of a whole run, no shard: give it alone"),
        (["whole.json", "1.json"], "whole.json is of a whole run, no shard: give it alone"),
        (["1.json", "none.json"], "none.json: cannot be read: No such file or directory"),
        (["bad.json"], "bad.json: is no JSON: *"),
        (["later.json"], "later.json: is no results file of version 1, as --qreliab-json writes it"),
        (["list.json"], "list.json: is no results file of version 1, as --qreliab-json writes it"),
        (["cut.json"], "cut.json: plan: Field required"),
        (["strange.json"], "strange.json: w9 is not of its plan, or has no gate: the file is damaged"),
        (["bare.json"], "bare.json: w8 is not of its plan, or has no gate: the file is damaged"),
        (["odd.json"], "odd.json: cases.0.gates.0.outcome: Input should be 'pass', 'fail' or 'inconclusive'"),
        (["1.json", "--output=no/such.json"], "--output: no/such.json cannot be written: No such file or directory"),
    ],
)
def test_files_that_do_not_belong_together(files, merge, names, message):
    results_file.write(files / "again.json", of_shard(1))
    results_file.write(files / "other.json", of_shard(2, plan=Planned(digest="e", cases=CASES)))
    results_file.write(files / "of-two.json", of_shard(2, 2))
    results_file.write(files / "whole.json", of_shard(1, shard=None))
    results_file.write(files / "strange.json", of_shard(1, cases=[entry("w9")]))
    results_file.write(files / "bare.json", of_shard(1, cases=[entry("w8") | {"gates": []}]))
    odd = json.loads((files / "1.json").read_text())
    odd["cases"][0]["gates"][0]["outcome"] = "perhaps"
    (files / "odd.json").write_text(json.dumps(odd))
    (files / "bad.json").write_text("{")
    (files / "list.json").write_text("[]")
    (files / "later.json").write_text('{"version": 2}')
    (files / "cut.json").write_text(json.dumps({**json.loads((files / "1.json").read_text()), "plan": None}))
    data = json.loads((files / "1.json").read_text())
    del data["plan"]
    (files / "cut.json").write_text(json.dumps(data))
    code, lines = merge(*names)
    assert code == 2
    assert len(lines) == 1
    assert re.fullmatch(re.escape(f"qreliab: error: {message}").replace(r"\*", ".*"), lines[0])
