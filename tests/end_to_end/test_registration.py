"""Quantizers and models of conftest.py files and of installed packages, through pytest."""

import textwrap

import pytest

pytestmark = pytest.mark.usefixtures("everything_imported")

CONFTEST = """
from pytest_qreliab import Parameters, Quantizer

class Own(Parameters):
    strength: float = 1.0

def keep(clip, request):
    assert request.parameters.strength in (1.0, 0.5)
    return clip.copy()

def make():
    from pytest_qreliab import load_model
    return load_model("tiny-digits")

def pytest_qreliab_register(catalog):
    catalog.add_quantizer(Quantizer(
        name="keep", help="changes nothing", function=keep, parameters=Own, needs="nothing", coverage=0.0
    ))
    catalog.add_model("mine", make, help="my own")
"""


@pytest.fixture
def run(pytester, small_benchmark, kept):
    """Runs pytest in this process on the small benchmark, with weights at 8 bits."""

    def run(*args: str):
        options = (f"--qreliab-benchmarks={small_benchmark}", f"--qreliab-cache-dir={kept}", "--qreliab-bits=w8")
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", *options, *args)

    return run


@pytest.fixture
def package(pytester, monkeypatch):
    """Installs a package with an entry point, as far as importlib.metadata can tell."""

    def install(code: str, target: str = "acme_quant:register") -> None:
        folder = pytester.mkdir("site")
        if code:
            folder.joinpath("acme_quant.py").write_text(textwrap.dedent(code))
        info = folder / "acme_quant-1.2.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: acme-quant\nVersion: 1.2\n")
        info.joinpath("entry_points.txt").write_text(f"[pytest_qreliab]\nacme = {target}\n")
        pytester.syspathinsert(folder)
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")

    return install


def test_a_conftest_registers_a_quantizer_and_a_model_for_the_shipped_suite(pytester, run):
    pytester.makeconftest(CONFTEST)
    result = run("--qreliab-quantizers=keep", "--qreliab-models=mine")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        ["qreliab: 1 case: mine x keep w8 x small", "mine on small (120 samples, *)", "keep w8 *"]
    )


def test_a_variant_of_a_registered_quantizer_and_its_repeat_command(pytester, run):
    pytester.makeconftest(CONFTEST)
    pytester.path.joinpath("suite.yaml").write_text(
        "version: 1\nquantizers: [{name: soft, quantizer: keep, strength: 0.5}]\nthresholds: limits.yaml\n"
    )
    pytester.path.joinpath("limits.yaml").write_text("version: 1\ngates: {accuracy: {min: 1.0}}\n")
    result = run("--qreliab-suite=suite.yaml")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["soft w8 *", "*repeat: pytest 'qreliab::test_accuracy*' --qreliab-suite=suite.yaml *"])
    pytester.path.joinpath("limits.yaml").write_text("version: 1\ngates: {accuracy: {min: 0.1}}\n")
    named = run("--qreliab-suite=suite.yaml", "qreliab::test_accuracy[tiny-digits/soft+rescale/w8/small]",
                "--qreliab-quantizers=soft+rescale")  # fmt: skip
    named.assert_outcomes(passed=1)


def test_a_conftest_below_the_folder_is_heard_when_its_path_is_named(pytester, run):
    folder = pytester.mkdir("reliability")
    folder.joinpath("conftest.py").write_text(CONFTEST)
    folder.joinpath("test_own.py").write_text(
        "def test_it(qreliab_case): assert qreliab_case.build.quantizer == 'keep'"
    )
    run("--qreliab-quantizers=keep", "reliability").assert_outcomes(passed=1)


def test_testpaths_do_not_hide_the_conftest_of_the_folder(pytester, run):
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\ntestpaths = unit\n")
    pytester.mkdir("unit").joinpath("test_unit.py").write_text("def test_unit(): pass")
    run("--qreliab-quantizers=keep").assert_outcomes(passed=4)


def test_a_package_registers_through_its_entry_point(package, run):
    package(CONFTEST.replace("pytest_qreliab_register", "register"))
    run("--qreliab-quantizers=keep", "--qreliab-models=mine").assert_outcomes(passed=4)


@pytest.mark.slow
def test_in_a_process_of_its_own_and_in_workers(pytester, package, small_benchmark):
    """conftest.py, entry point and suite file, under pytest-xdist: the workers leave testpaths out as well, and their
    results make one table, without progress in what is no terminal."""
    pytest.importorskip("xdist")
    pytester.makeconftest(CONFTEST)
    package("def register(catalog):\n    catalog.add_model('theirs', lambda: catalog.models['mine'].make())")
    pytester.makeini("[pytest]\ntestpaths = unit\n")
    pytester.mkdir("unit").joinpath("test_unit.py").write_text("def test_unit(): pass")
    pytester.path.joinpath("suite.yaml").write_text(
        f"version: 1\nmodels: [theirs]\nquantizers: [{{name: soft, quantizer: keep, strength: 0.5}}]\n"
        f"bits: [w8, w4]\nbenchmarks: ['{small_benchmark}']\n"
    )
    result = pytester.runpytest_subprocess("--qreliab-suite=suite.yaml", "-n2", "-p", "xdist")
    result.assert_outcomes(passed=8)
    result.stdout.fnmatch_lines(["theirs on small (120 samples, *)", "soft w*", "soft w*"])
    output = result.stdout.str() + result.stderr.str()
    assert output.count("theirs on small") == 1
    assert "full precision on small" not in output
    assert "\x1b" not in output


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("1 / 0", "pytest_qreliab_register raised ZeroDivisionError: division by zero (conftest.py:2)"),
        ("catalog.add_quantiser(1)", "pytest_qreliab_register raised AttributeError: *add_quantiser* (conftest.py:2)"),
        ("catalog.add_quantizer('x')", "pytest_qreliab_register (conftest.py:2): add_quantizer takes a Quantizer*"),
        (
            "catalog.add_model('tiny-digits', None)",
            "pytest_qreliab_register (conftest.py:2): a model 'tiny-digits' is*",
        ),
    ],
)
def test_a_hook_that_fails_is_one_message(pytester, run, body, message, refused):
    pytester.makeconftest(f"def pytest_qreliab_register(catalog):\n    {body}\n")
    refused(run(), message)


@pytest.mark.parametrize(
    ("code", "target", "message"),
    [
        ("", "acme_quant:register", "cannot be imported: ModuleNotFoundError: No module named 'acme_quant'"),
        (
            "import no_such",
            "acme_quant:register",
            "cannot be imported: ModuleNotFoundError: *no_such* (*acme_quant.py:1)",
        ),
        ("x = 1", "acme_quant:register", "cannot be imported: AttributeError: *has no attribute 'register'"),
        ("register = 1", "acme_quant:register", "raised TypeError: 'int' object is not callable"),
        ("def register(catalog):\n    1 / 0", "acme_quant:register", "raised ZeroDivisionError: * (*acme_quant.py:2)"),
        (
            "def register(catalog):\n    catalog.add_model('a b', 1)",
            "acme_quant:register",
            ": the model name 'a b' is no*",
        ),
    ],
)
def test_an_entry_point_that_fails_is_one_message(package, run, code, target, message, refused):
    package(code, target)
    sign = "" if message.startswith(":") else " "
    refused(run(), f"entry point acme = '{target}' of acme-quant 1.2 (group pytest_qreliab){sign}{message}")


def test_two_that_want_the_same_name(pytester, package, run, refused):
    pytester.makeconftest(CONFTEST)
    package(CONFTEST.replace("pytest_qreliab_register", "register"))
    refused(run(), "pytest_qreliab_register (conftest.py:*): a quantizer 'keep' is there already; *")


def test_nothing_is_asked_to_register_where_nothing_is_run(pytester, package):
    pytester.makeconftest("def pytest_qreliab_register(catalog):\n    raise SystemExit('called')\n")
    package("raise SystemExit('imported')")
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest_inprocess().assert_outcomes(passed=1)


def test_a_model_that_cannot_be_made_fails_its_tests_with_one_message(pytester, run):
    pytester.makeconftest(
        "def make():\n    return open('missing')\n\n"
        "def pytest_qreliab_register(catalog):\n    catalog.add_model('mine', make)\n"
    )
    result = run("--qreliab-models=mine", "-k", "accuracy")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["model 'mine': what was registered to make it raised FileNotFoundError: *missing' (conftest.py:2)"]
    )
    assert "Traceback" not in result.stdout.str()
