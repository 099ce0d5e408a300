"""The plugin as users meet it: pytest run from outside."""

import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from pytest_qreliab.metrics import registry

pytestmark = pytest.mark.usefixtures("everything_imported")

HEAVY = ("torch", "numpy", "yaml", "rich", "pydantic", "open_clip", "scipy", "sklearn", "PIL", "safetensors")


@pytest.fixture
def run(pytester, small_benchmark, kept):
    """Runs pytest in an empty folder, in this process, on the small benchmark."""

    def run(*args: str, benchmark: bool = True):
        given = [f"--qreliab-benchmarks={small_benchmark}", f"--qreliab-cache-dir={kept}"] if benchmark else []
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", *given, *args)

    return run


def test_the_main_job_passes_in_an_empty_folder_and_prints_the_table(pytester, kept, monkeypatch):
    monkeypatch.setenv("QRELIAB_CACHE_DIR", str(kept))
    result = pytester.runpytest_inprocess("--qreliab-bits=4,8")
    result.assert_outcomes(passed=10)
    result.stdout.fnmatch_lines(
        [
            "qreliab: 2 cases: tiny-digits x minmax w4a8, minmax w8a8 x digits",
            "qreliab: 28 gates of *default.yaml, 95% confidence over all of them, device auto",
            "*= reliability =*",
            "tiny-digits on digits (898 samples, *)",
            "full precision *",
            "minmax w4a8 *",
            "minmax w8a8 *",
            "*10 passed*",
        ]
    )
    for header in ("accuracy", "ECE", "shift", "corruption", "spurious", "AUROC", "coverage"):
        assert header in result.stdout.str()


@pytest.mark.parametrize("ci", ["", "true"])
def test_a_failed_gate_says_all_that_is_needed_once(run, write_thresholds, monkeypatch, ci):
    monkeypatch.setenv("CI", ci)
    limits = write_thresholds("accuracy:\n  max_drop: 0.01\necee: {max: 1}\n".replace("ecee", "ece"))
    result = run("--qreliab-bits=w2a2", f"--qreliab-thresholds={limits}")
    result.assert_outcomes(failed=1, passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "*= reliability =*",
            "minmax w2a2 *",
            "*-0.* ✗*",
            "*= FAILURES =*",
            "*test_accuracy[[]tiny-digits/minmax/w2a2/small]*",
            "accuracy: 1 of 1 gates failed",
            "  case: tiny-digits/minmax/w2a2/small, 120 samples",
            "  accuracy (top-1 accuracy)",
            "    baseline   0.9*",
            "    quantized  0.*",
            "    harm       0.*, interval 0.* to 0.*",
            "    method     paired score; McNemar p = *e-*, * lost, * gained; each bound holds with 97.50% confidence",
            f"    limit      max_drop 0.01, {limits}:4",
            "  repeat: pytest 'qreliab::test_accuracy[[]tiny-digits/minmax/w2a2/small]' --qreliab-bits=w2a2 *",
            "FAILED qreliab::test_accuracy[[]tiny-digits/minmax/w2a2/small] - Failed: accura*",
        ]
    )
    assert result.stdout.str().count("repeat: pytest") == 1
    assert "Traceback" not in result.stdout.str()


def test_the_printed_command_repeats_the_failure_to_the_last_digit(pytester, run):
    first = run("--qreliab-bits=w2,w8")
    command = next(line for line in first.outlines if "repeat: pytest" in line and "test_ood" in line)
    words = re.findall(r"(?:'[^']*'|\S)+", command.partition("pytest ")[2])
    second = pytester.runpytest_inprocess("-p", "no:cacheprovider", *(word.strip("'") for word in words))
    second.assert_outcomes(failed=1)

    def explanation(result):
        lines = result.outlines
        start = next(i for i, line in enumerate(lines) if "ood.auroc, ood.fpr95: 2 of 2" in line)
        return lines[start : start + 16]

    assert explanation(first) == explanation(second)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--qreliab-bits=9", "--qreliab-bits: 9 bits in '9' is out of range*did you mean '8'*"),
        ("--qreliab-bits=four", "--qreliab-bits: 'four' is no format; did you mean '4'*"),
        ("--qreliab-bits=", "--qreliab-bits: is empty*"),
        ("--qreliab-quantizers=mimax", "--qreliab-quantizers: unknown quantizer*did you mean 'minmax'*"),
        ("--qreliab-models=tinydigits", "--qreliab-models: unknown model*did you mean 'tiny-digits'*"),
        ("--qreliab-scopes=visual", "--qreliab-scopes: unknown scope*did you mean 'vision'*"),
        ("--qreliab-benchmarks=digit", "--qreliab-benchmarks: unknown benchmark*did you mean 'digits'*"),
        ("--qreliab-thresholds=defaults", "--qreliab-thresholds: unknown thresholds*did you mean 'default'*"),
        ("--qreliab-device=gpu", "--qreliab-device: unknown device*valid: auto, cpu, cuda*"),
        ("--qreliab-models=ViT-B-32/bad.safetensors", "*bad.safetensors is damaged*"),
        ("--qreliab-models=ViT-B-32/bad.pt", "*bad.pt is damaged*"),
        ("--qreliab-thresholds=typo.yaml", "*typo.yaml:3: *unknown key 'max_dorp'; did you mean 'max_drop'*"),
        ("--qreliab-benchmarks=empty.yaml", "*empty.yaml:2: *a holds no images*"),
    ],
)
def test_bad_input_ends_with_exit_code_4_and_one_message(pytester, option, message):
    pytester.path.joinpath("bad.safetensors").write_bytes(b"garbage")
    pytester.path.joinpath("bad.pt").write_bytes(b"PK\x03\x04 garbage")
    pytester.path.joinpath("typo.yaml").write_text("version: 1\ngates:\n  accuracy: {max_dorp: 0.1}\n")
    pytester.mkdir("empty").joinpath("a").mkdir()
    pytester.path.joinpath("empty.yaml").write_text(
        "version: 1\nin_distribution: {source: image-folder, path: empty}\n"
    )
    result = pytester.runpytest_inprocess(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])
    assert len([line for line in result.errlines if line]) == 1
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


def test_a_damaged_image_is_named_without_a_traceback(run, folder_benchmark):
    (folder_benchmark.parent / "images" / "dog" / "1.png").write_bytes(b"no image")
    result = run(f"--qreliab-benchmarks={folder_benchmark}", "--qreliab-bits=w8", benchmark=False)
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(["*image */images/dog/1.png cannot be decoded*"])
    assert "Traceback" not in result.stdout.str()
    assert "site-packages" not in result.stdout.str().partition("= ERRORS =")[2]


def test_a_model_of_nan_fails_every_gate_and_says_so(run, folder_benchmark, tmp_path, write_local_model):
    model = write_local_model(tmp_path / "nan", poison="visual.transformer.resblocks.0.mlp.c_fc.weight")
    result = run(
        f"--qreliab-models=local-dir:{model}", f"--qreliab-benchmarks={folder_benchmark}", "--qreliab-bits=w8,8",
        benchmark=False,
    )  # fmt: skip
    result.assert_outcomes(failed=8)
    text = result.stdout.str()
    assert text.count("problem    baseline: NaN") == 18
    assert "3 of 3 gates failed" in text
    assert "inconclusive:" not in text


def test_an_open_clip_model_on_image_folders(run, folder_benchmark, tmp_path, write_local_model, write_thresholds):
    model = write_local_model(tmp_path / "model")
    limits = write_thresholds("nll: {max_rise: 0.5}\nood.auroc: {max_drop: 0.9}")
    result = run(
        f"--qreliab-models=local-dir:{model}", f"--qreliab-benchmarks={folder_benchmark}",
        f"--qreliab-thresholds={limits}", "--qreliab-bits=4", "--qreliab-scopes=vision,text,both",
        benchmark=False,
    )  # fmt: skip
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(
        ["*on folders (18 samples, *)", "minmax w4a8 vision*", "minmax w4a8 text*", "minmax w4a8 *"]
    )


# Which tests run


def test_aspects_without_gates_or_without_data_yield_no_test(run, folder_benchmark, write_thresholds):
    folder_benchmark.write_text(folder_benchmark.read_text().partition("ood:")[0])
    limits = write_thresholds("accuracy: {max_drop: 1}\nood.auroc: {max_drop: 1, where_missing: skip}")
    result = run(
        f"--qreliab-benchmarks={folder_benchmark}", f"--qreliab-thresholds={limits}", "--qreliab-bits=w8",
        "--collect-only", "-q", benchmark=False,
    )  # fmt: skip
    assert [line for line in result.outlines if "::" in line] == [
        "qreliab::test_accuracy[tiny-digits/minmax/w8/folders]"
    ]
    result = run(f"--qreliab-benchmarks={folder_benchmark}", f"--qreliab-thresholds={limits}", "--co", benchmark=False)
    result.stdout.fnmatch_lines(["qreliab: not judged: ood.auroc: benchmark 'folders' has no ood images; add *"])


def test_items_come_case_by_case_in_the_order_of_the_axes(run):
    result = run("--qreliab-bits=8,w4", "--qreliab-scopes=text,both", "--collect-only", "-q")
    ids = re.findall(r"qreliab::(\w+)\[(.*)\]", result.stdout.str())
    cases = [case for test, case in ids if test == "test_accuracy"]
    assert cases == [f"tiny-digits/minmax/{case}/small" for case in ("w8a8/text", "w8a8", "w4/text", "w4")]
    assert [case for _, case in ids] == [case for case in cases for _ in range(4)]


def test_the_shipped_suite_takes_the_place_of_testpaths_and_runs_with_a_projects_own(pytester, run):
    pytester.makeini("[pytest]\ntestpaths = unit\nqreliab_testpaths = reliability\npython_functions = check_*\n")
    pytester.mkdir("unit").joinpath("test_unit.py").write_text("def check_unit(): pass")
    pytester.mkdir("reliability").joinpath("test_own.py").write_text(
        "def check_own(qreliab_case): assert qreliab_case.benchmark == 'small'"
    )
    result = run("--qreliab-bits=w8", "--collect-only", "-q")
    assert re.findall(r"(\w+)\[", result.stdout.str()) == [
        "check_own", "test_accuracy", "test_calibration", "test_ood", "test_spectrum",
    ]  # fmt: skip
    explicit = run("--qreliab-bits=w8", "--collect-only", "-q", "unit")
    assert [line for line in explicit.outlines if "::" in line] == ["unit/test_unit.py::check_unit"]
    plain = pytester.runpytest_inprocess("--collect-only", "-q")
    assert [line for line in plain.outlines if "::" in line] == ["unit/test_unit.py::check_unit"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("qreliab", 4),
        ("qreliab::test_ood", 1),
        ("qreliab::test_ood[tiny-digits/minmax/w8/small]", 1),
    ],
)
def test_the_shipped_tests_can_be_named(pytester, run, name, found):
    pytester.makepyfile("def test_it(): pass")
    result = run("--qreliab-bits=w8", "--collect-only", "-q", name)
    assert [line.partition("[")[0] for line in result.outlines if "::" in line and name.partition("[")[0] in line]
    assert len([line for line in result.outlines if "::" in line]) == found


def test_a_shipped_test_that_is_not_there(run):
    result = run("--qreliab-bits=w8", "qreliab::test_od")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["unknown test 'qreliab::test_od'; did you mean 'qreliab::test_ood*"])
    assert "Traceback" not in result.stdout.str()


def test_a_folder_of_that_name_is_the_projects_own(pytester):
    pytester.mkdir("qreliab").joinpath("test_unit.py").write_text("def test_it(): pass")
    pytester.runpytest_inprocess("qreliab").assert_outcomes(passed=1)


def test_a_virtual_environment_inside_the_project_does_not_hide_the_suite(pytester, run):
    pytester.mkdir("venv").joinpath("pyvenv.cfg").touch()
    result = run("--qreliab-bits=w8", "--collect-only", "-q", "--import-mode=importlib")
    assert result.stdout.str().count("qreliab::") == 4


@pytest.mark.parametrize(
    ("selection", "count"), [(["-k", "ood"], 2), (["-m", "qreliab"], 8), (["-m", "not qreliab"], 0), (["-k", "w4"], 4)]
)
def test_selection_works_as_people_expect(run, selection, count):
    result = run("--qreliab-bits=w4,w8", "--collect-only", "-q", "--strict-markers", *selection)
    assert result.stdout.str().count("qreliab::") == count
    assert result.ret == (pytest.ExitCode.OK if count else pytest.ExitCode.NO_TESTS_COLLECTED)


def test_last_failed_runs_the_failed_ones_again(pytester, small_benchmark, kept):
    args = (f"--qreliab-benchmarks={small_benchmark}", f"--qreliab-cache-dir={kept}", "--qreliab-bits=w2,w8", "--lf")
    first = pytester.runpytest_inprocess(*args)
    failed = first.parseoutcomes()["failed"]
    assert 0 < failed < 8
    second = pytester.runpytest_inprocess(*args)
    second.assert_outcomes(failed=failed, deselected=8 - failed)


def test_fixtures_parametrize_a_test_over_just_the_axes_it_needs(pytester, run):
    pytester.makepyfile(
        """
        import pytest
        from pytest_qreliab.models.clip import Clip

        def test_model(baseline_clip):
            assert isinstance(baseline_clip, Clip)

        def test_build(quantized_clip, baseline_clip):
            assert quantized_clip.coverage.weights == 1.0
            assert quantized_clip.encode_text(["7"]).shape == baseline_clip.encode_text(["7"]).shape

        @pytest.mark.parametrize("x", [1, 2])
        def test_result(qreliab_result, qreliab_case, x):
            assert qreliab_result.case is qreliab_case
            assert abs(qreliab_result.changes["accuracy"].delta) < 0.05
            qreliab_result.check("calibration")

        def test_pair(qreliab_case, quantized_clip):
            assert quantized_clip.name == qreliab_case.build.model

        def test_other():
            pass
        """
    )
    result = run("--qreliab-bits=w8,4", "test_fixtures_parametrize_a_test_over_just_the_axes_it_needs.py", "-v")
    result.assert_outcomes(passed=1 + 2 + 4 + 2 + 1)
    ids = re.findall(r"::(\S+) PASSED", result.stdout.str())
    assert ids[0] == "test_model[tiny-digits]"
    assert "test_build[tiny-digits/minmax/w8]" in ids  # weights only: no benchmark takes part
    assert "test_build[tiny-digits/minmax/w4a8/small]" in ids
    assert ids.index("test_pair[tiny-digits/minmax/w8/small]") < ids.index("test_build[tiny-digits/minmax/w4a8/small]")
    assert any(name.startswith("test_result[1-tiny-digits") or "small-1]" in name for name in ids)


def test_a_failed_check_in_ones_own_test_names_its_file_in_the_command(pytester, run):
    pytester.makepyfile(test_own="def test_it(qreliab_result): qreliab_result.check('accuracy')")
    result = run("--qreliab-bits=w2", "test_own.py")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["  repeat: pytest 'test_own.py::test_it[[]tiny-digits/minmax/w2/small]' --qreliab-bits=w2 *"]
    )


def test_fixtures_work_without_any_option(pytester):
    pytester.makepyfile("def test_it(qreliab_case): assert qreliab_case.benchmark == 'digits'")
    pytester.runpytest_inprocess().assert_outcomes(passed=2)


def test_marker_mistakes(pytester, run):
    pytester.makepyfile(
        test_a="import pytest\n@pytest.mark.qreliab(aspect='odd')\ndef test_it(qreliab_result): pass",
    )
    result = run("test_a.py")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["test_a.py::test_it: unknown aspect 'odd'; did you mean 'ood'*"])
    assert "Traceback" not in result.stdout.str()


# Where settings come from


def test_command_line_beats_environment_beats_ini_beats_default(pytester, monkeypatch):
    def bits(*args: str) -> str:
        out = pytester.runpytest_inprocess("--collect-only", *args).stdout.str()
        return re.search(r"minmax (\w+)", out)[1]

    path = pytester.makepyfile("def test_it(qreliab_case): pass")
    assert re.search(r"w4a8", bits_of(pytester, path))
    pytester.makeini("[pytest]\nqreliab_bits = w5")
    assert bits(str(path)) == "w5"
    monkeypatch.setenv("QRELIAB_BITS", "w6")
    assert bits(str(path)) == "w6"
    assert bits(str(path), "--qreliab-bits=w7") == "w7"
    monkeypatch.setenv("QRELIAB_BITS", "")
    assert bits(str(path)) == "w5"
    monkeypatch.setenv("QRELIAB_BITS", "w66")
    result = pytester.runpytest_inprocess(str(path))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: QRELIAB_BITS: 66 bits*"])


def bits_of(pytester, path) -> str:
    return pytester.runpytest_inprocess("--collect-only", "-q", str(path)).stdout.str()


# Reports


def test_a_run_without_reliability_tests_says_so_where_settings_are_given(pytester, run):
    pytester.makeini("[pytest]\nqreliab_bits = w8\n")
    pytester.makepyfile(test_own="def test_nothing(): pass")
    hint = "qreliab: settings are given, and no reliability test ran: pytest qreliab runs the shipped ones"
    run(benchmark=False).stdout.fnmatch_lines([hint, "*1 passed*"])
    for args in (("qreliab",), ("--co",)):
        assert hint not in run(*args).stdout.str()
    pytester.makeini("[pytest]\n")
    assert "qreliab:" not in run(benchmark=False).stdout.str()


def test_junit_gets_flat_properties(pytester, run):
    run("--qreliab-bits=w8", "--junit-xml=out.xml")
    cases = {case.get("name"): case for case in ElementTree.parse(pytester.path / "out.xml").iter("testcase")}
    properties = {
        p.get("name"): p.get("value") for p in cases["test_accuracy[tiny-digits/minmax/w8/small]"].iter("property")
    }
    assert properties["qreliab.case"] == "tiny-digits/minmax/w8/small"
    assert float(properties["accuracy.max_drop.baseline"]) > 0.9
    assert properties["accuracy.max_drop.limit"] == "0.02"
    assert properties["accuracy.max_drop.verdict"] in ("pass", "inconclusive")
    assert not [name for name in properties if name.startswith("ece")]


def test_underpowered_gates_are_announced_with_the_samples_that_would_do(run, write_thresholds):
    thresholds = write_thresholds("accuracy: {max_drop: 0.02}\nnll: {max_rise: 5}\nece: {max_rise: 0}\n")
    result = run("--qreliab-bits=w8,w4", f"--qreliab-thresholds={thresholds}", "--collect-only")
    result.stdout.fnmatch_lines(
        [
            "qreliab: underpowered*",
            "qreliab:   accuracy max_drop 0.02: 120 samples of small show * at best; about * would do",
            "qreliab:   ece max_rise 0: 120 samples of small show * at best; no number of samples would do",
        ]
    )
    result.stdout.no_fnmatch_line("*nll max_rise 5*")


@pytest.fixture
def few_replicates(monkeypatch):
    monkeypatch.setattr("pytest_qreliab.evaluation.verdicts.self_check.REPLICATES", 20)


def test_the_self_check_takes_the_place_of_the_other_tests_and_prints_its_table(run, few_replicates, write_thresholds):
    thresholds = write_thresholds("accuracy: {max_drop: 0.3}\nood.auroc: {max_drop: 0.3}\nkl: {max_rise: 9}\n")
    result = run("--qreliab-bits=w8,w4", f"--qreliab-thresholds={thresholds}", "--qreliab-aa")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "*= self-check of the gates =*",
            "tiny-digits/minmax/w8/small (120 samples, 20 pairs that do not differ)",
            "accuracy * max_drop 0.3 * 0.0% *",
            "any of them * at most 5.0% * 0.0%",
            "not tried: kl",
            "tiny-digits/minmax/w4/small *",
        ]
    )


def test_gates_that_fail_where_there_is_nothing_to_find_fail_the_self_check(run, few_replicates, write_thresholds):
    thresholds = write_thresholds("nll: {max_rise: 0}\nood.auroc: {max_drop: 0}\n")
    result = run("--qreliab-bits=w2", f"--qreliab-thresholds={thresholds}", "--qreliab-aa")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "self-check: * of 20 pairs that do not differ fail a gate, where 5.0% may",
            "  nll: *%; max_rise 0, *limits.yaml:3",
            "  repeat: pytest 'qreliab::test_self_check?tiny-digits/minmax/w2/small?' --qreliab-aa --qreliab-bits=w2 *",
        ]
    )


def test_a_self_check_of_ones_own(pytester, run, few_replicates):
    pytester.makepyfile(
        """
        def test_gates(qreliab_self_check):
            assert qreliab_self_check.replicates == 20
        """
    )
    run("--qreliab-bits=w8", "test_a_self_check_of_ones_own.py").assert_outcomes(passed=1)


@pytest.mark.parametrize("correction", ["bonferroni", "holm", "benjamini-hochberg", "none"])
def test_every_correction_runs(run, write_thresholds, correction):
    thresholds = write_thresholds(
        "accuracy: {max_drop: 0.5}\nnll: {max_rise: 5}\n", head=f"version: 1\ncorrection: {correction}\n"
    )
    run("--qreliab-bits=w8", f"--qreliab-thresholds={thresholds}").assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (
            "ood.auroc.neglabel",
            "*limits.yaml:3: ood.auroc.neglabel cannot be judged: *add `negatives:`, a list of words, to *small.yaml*",
        ),
        ("ood.auroc.negative", "*limits.yaml:3: *unknown metric 'ood.auroc.negative'; did you mean*"),
        ("rescaled.accuracy", "*limits.yaml:3: *unknown metric 'rescaled.accuracy'*"),
    ],
)
def test_a_metric_that_cannot_be_measured_ends_the_run_at_once(run, write_thresholds, gate, message):
    thresholds = write_thresholds(f"{gate}: {{max_drop: 0.1}}\n")
    result = run("--qreliab-bits=w8", f"--qreliab-thresholds={thresholds}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


def test_every_metric_can_be_gated_on_the_embedded_benchmark(pytester, write_thresholds, kept):
    """Also those that need local features, negative labels, calibration images or a refitted logit scale."""
    names = [*registry.names(), "recall.seven", "ood.auroc.mcm.near", "ood.fpr95.knn.photos"]
    names += ["shift.ece.printed", "corruption.accuracy.fog.4", "corruption.nll.snow", "corruption.ece.4"]
    names += ["spurious.accuracy.common"]
    limits = {"higher": "max_drop", "lower": "max_rise", "neither": "max_change"}
    gates = "".join(f"{name}: {{{limits[registry.lookup(name).better]}: 1000}}\n" for name in names)
    thresholds = write_thresholds(gates)
    result = pytester.runpytest_inprocess(
        "--qreliab-bits=4", f"--qreliab-thresholds={thresholds}", f"--qreliab-cache-dir={kept}"
    )
    result.assert_outcomes(passed=5)
    result.stdout.no_fnmatch_line("*?inconclusive:*")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal is needed")
def test_progress_is_live_in_a_terminal(pytester, small_benchmark):
    import pty

    command = [sys.executable, "-m", "pytest", "--qreliab-bits=w8", f"--qreliab-benchmarks={small_benchmark}"]
    master, slave = pty.openpty()
    with subprocess.Popen(command, cwd=pytester.path, stdout=slave, stderr=slave, close_fds=True) as process:
        os.close(slave)
        chunks = []
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # Linux reports the end of a pseudo-terminal as an error
                break
            if not chunk:
                break
            chunks.append(chunk)
    os.close(master)
    text = b"".join(chunks).decode()
    assert process.returncode == 0
    assert "tiny-digits full precision on small" in text
    assert "tiny-digits minmax w8 on small" in text
    assert "4 passed" in text


# At rest


def idle(pytester, *args: str) -> str:
    """What a foreign project's run leaves in sys.modules."""
    pytester.makeconftest(
        """
        import sys

        def pytest_unconfigure():
            print("LOADED", *sorted(name for name in sys.modules if "." not in name))
        """
    )
    pytester.makepyfile("def test_it(): pass")
    # Other plugins of this environment import some of these themselves.
    others = ("-p", "no:hypothesispytest", "-p", "no:xdist", "-p", "no:anyio", "-p", "no:torchtyping")
    result = pytester.runpytest_subprocess(*others, *args)
    result.assert_outcomes(passed=1)
    return result.stdout.str()


def test_an_idle_plugin_imports_nothing_heavy_and_prints_nothing(pytester):
    out = idle(pytester)
    loaded = next(line for line in out.splitlines() if line.startswith("LOADED")).split()
    assert "pytest_qreliab" in loaded
    assert not set(HEAVY) & set(loaded)
    assert "qreliab:" not in out
    assert "reliability" not in out


def test_the_plugin_can_be_switched_off(pytester):
    assert "pytest_qreliab" not in idle(pytester, "-p", "no:qreliab")
    result = pytester.runpytest_subprocess("-p", "no:qreliab", "--qreliab-bits=4")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
