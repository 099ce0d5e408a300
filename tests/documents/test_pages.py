"""The pages of docs/ are true: commands parse, YAML loads, Python runs, and output is what comes out.

docs/options.md is made from the options themselves: `python tests/documents/test_pages.py`.
"""

import argparse
import configparser
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

from pytest_qreliab import cli
from pytest_qreliab.config import benchmark, settings, suite, thresholds
from pytest_qreliab.config.cases import parse_scope
from pytest_qreliab.config.document import read, shipped
from pytest_qreliab.config.formats import Format
from pytest_qreliab.config.settings import OPTIONS, SELF_CHECK, TESTPATHS_INI, Setting
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.evaluation.planning.parse_settings import suite_variants
from pytest_qreliab.metrics import registry
from pytest_qreliab.models import loading

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the line that it begins at."""

    page: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """The file name that its first line gives in a comment, or nothing."""
        found = re.match(r"# ([\w.-]+\.\w+)\b", self.text)
        return found[1] if found else ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str) -> list[Block]:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert not re.search(r"^ +```|^\s*~~~", text, re.MULTILINE), f"{page}: a fence that this test does not see"
    found = re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(page, text.count("\n", 0, at.start()) + 1, at[1], at[2]) for at in found]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def of_page(page: str, language: str) -> list[Block]:
    return [block for block in BLOCKS if (block.page, block.language) == (page, language)]


# The pages of which a test below runs every block of that language.
RUN = {
    "python": {"index.md", "snapshots.md", "thresholds.md", "reports.md", "extend.md", "recorded.md"},
    "text": {"index.md", "snapshots.md", "thresholds.md", "ci.md"},
}


# Command lines


@pytest.fixture
def check_command(pytestconfig, monkeypatch) -> Callable[[list[str]], None]:
    """Parses a command with the real parsers; what is neither pytest's nor ours must be a word that is known here."""

    def check(words: list[str]) -> None:
        program, *args = words
        if program == "pytest":
            check_pytest(pytestconfig, args)
        elif program == "qreliab":
            check_qreliab(monkeypatch, args)
        elif program == "pip":
            check_pip(args)
        else:
            assert program in ("python", "python3", ".", "git", "cat"), words

    return check


CI_VARIABLES = {
    r"\$\{\{ *matrix\.shard *\}\}": "1",
    r"\$CI_NODE_INDEX": "1",
    r"\$CI_NODE_TOTAL": "4",
}


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a shell text, each in words, without redirections."""
    for pattern, value in CI_VARIABLES.items():
        text = re.sub(pattern, value, text)
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word in ("&&", "||", "|", ";"):
                if words:
                    yield words[: next((i for i, w in enumerate(words) if w in (">", ">>")), None)]
                words = []
            else:
                words.append(word)


def in_workflow(data: object) -> Iterator[str]:
    """The shell texts of a workflow of GitHub's or GitLab's."""
    if isinstance(data, list):
        for item in data:
            yield from in_workflow(item)
    elif isinstance(data, dict):
        for key, value in data.items():
            if key == "run":
                yield value
            elif key == "script":
                yield from value
            else:
                yield from in_workflow(value)


def check_pytest(config: pytest.Config, args: list[str]) -> None:
    if not config.pluginmanager.has_plugin("xdist") and "-n" in args:
        at = args.index("-n")
        args = args[:at] + args[at + 2 :]
    given = config._parser.parse(args)  # raises UsageError for an option that is not there
    for option in OPTIONS:
        text = getattr(given, option.ini)
        if text is not None:
            check_value(option.name, text)


def check_value(name: str, text: str) -> None:
    """Raise InputError, or fail, for a value that a run would refuse, as far as can be told without its files."""
    setting = Setting(text=text, origin=name, given=True)
    for value in text.split(",") if name in ("models", "quantizers", "bits", "scopes", "benchmarks") else [text]:
        path_like = re.fullmatch(r"[\w./$~-]+\.yaml|recorded:[\w.-]+\.npz", value)
        match name:
            case "models":
                tail = value.partition("/")[2]
                known = value in ("tiny-digits", "mine") or re.match(r"(local-dir|recorded|hf-hub):[\w./-]+$", value)
                if not known and tail.endswith(".safetensors"):
                    assert value.partition("/")[0] in loading.architectures()
                elif not known:
                    loading.check_model_name(value)
            case "quantizers":
                plain = value.removesuffix("+rescale")
                if not plain.startswith(("recorded:", "artifact:")) and plain not in ("ternary", "clipped"):
                    Catalog().quantizer(plain)
            case "bits":
                Format.parse(value)
            case "scopes":
                parse_scope(value)
            case "benchmarks" | "thresholds" | "suite":
                assert path_like or value in shipped({"suite": "suites"}.get(name, name))
            case "cache_size":
                settings.parse_size(setting)
            case "shard":
                assert re.fullmatch(r"[1-9]/[1-9]", value)
            case "update":
                assert re.fullmatch(r"(new|all)(,ci)?", value)
            case "json" | "html":
                assert value.endswith(f".{name}")
            case "device":
                assert value in ("auto", "cpu", "cuda", "mps")
            case "deterministic":
                assert value in ("yes", "no")
            case "cache_dir" | "snapshot" | "figures":
                assert value
            case _:
                raise AssertionError(f"no rule for --qreliab-{name}")


class Stopped(Exception):  # noqa: N818
    """Raised in place of running a command whose arguments are right."""


def check_qreliab(monkeypatch: pytest.MonkeyPatch, args: list[str]) -> None:
    parse = argparse.ArgumentParser.parse_args

    def stop(self, *given):
        raise Stopped(parse(self, *given))

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        try:
            cli.main(args)
        except Stopped:
            return
        except SystemExit as refused:
            pytest.fail(f"qreliab {shlex.join(args)}: exit code {refused.code}")
    raise AssertionError("the command did not parse its arguments")


def check_pip(args: list[str]) -> None:
    assert args[0] == "install"
    project = (ROOT / "pyproject.toml").read_text()
    for extra in re.findall(r"pytest-qreliab\[([\w-]+)\]", " ".join(args)):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra


# Every block of every page


def check_sh(block: Block, check_command, tmp_path: Path) -> None:
    found = list(commands(block.text))
    assert found
    for words in found:
        check_command(words)


def check_yaml(block: Block, check_command, tmp_path: Path) -> None:
    path = tmp_path / "block.yaml"
    path.write_text(block.text)
    data = yaml.safe_load(block.text)
    if "gates" in data:
        read(path).validate(thresholds.Policy)
    elif "in_distribution" in data:
        read(path).validate(benchmark.BenchmarkSchema)
    elif data.get("version") == 1:
        found = suite.Suite.load(path)
        names = [variant.name for variant in suite_variants(found, Catalog())]
        for axis in ("quantizers", "bits", "scopes"):
            for value in found.values(axis):
                if value.text not in names:
                    check_value(axis, value.text)
    else:
        texts = list(in_workflow(data))
        assert texts, f"{block}: neither a file of ours nor a workflow"
        for text in texts:
            for words in commands(text):
                check_command(words)


def check_json(block: Block, check_command, tmp_path: Path) -> None:
    from pytest_qreliab.report.results_file import Results
    from pytest_qreliab.report.snapshot import ModelSnapshot

    data = json.loads(block.text)
    (Results if "plan" in data else ModelSnapshot).model_validate(data)


def check_ini(block: Block, check_command, tmp_path: Path) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(block.text)
    for key, value in parser["pytest"].items():
        if key != TESTPATHS_INI:
            name = key.removeprefix("qreliab_")
            assert name in {option.name for option in OPTIONS}
            check_value(name, value)


def check_toml(block: Block, check_command, tmp_path: Path) -> None:
    assert block.text.splitlines()[0] == "[project.entry-points.pytest_qreliab]"
    assert re.fullmatch(r'\w+ = "\w+:\w+"', block.text.splitlines()[1])


def check_run_elsewhere(block: Block, check_command, tmp_path: Path) -> None:
    assert block.page in RUN[block.language], f"{block}: no test runs the {block.language} of this page"


RULES = {
    "sh": check_sh,
    "console": check_sh,
    "yaml": check_yaml,
    "json": check_json,
    "ini": check_ini,
    "toml": check_toml,
    "python": check_run_elsewhere,
    "text": check_run_elsewhere,
}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_right(block, check_command, tmp_path):
    assert block.language in RULES, f"{block}: no rule covers the language {block.language!r}"
    RULES[block.language](block, check_command, tmp_path)


def test_pages_import_public_names_alone():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    texts = {**{str(block): block.text for block in BLOCKS}, "README.md": readme}
    modules = {
        (where, module)
        for where, text in texts.items()
        for module in re.findall(r"^\s*(?:from|import) (pytest_qreliab[\w.]*)", text, re.MULTILINE)
    }
    assert len(modules) > 5
    assert {module for _, module in modules} <= {"pytest_qreliab", "pytest_qreliab.record"}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("pytest --qreliab-bitz=4", pytest.UsageError),
        ("pytest --qreliab-bits=9", ValueError),
        ("pytest --qreliab-quantizers=minmaks", ValueError),
        ("qreliab compare one.json", pytest.fail.Exception),
        ("pip install 'pytest-qreliab[no]'", AssertionError),
        ("sudo pytest", AssertionError),
    ],
)
def test_what_is_wrong_in_a_command_is_found(text, error, check_command):
    (words,) = commands(text)
    with pytest.raises(error):
        check_command(words)


# Pages that are run, block by block


@pytest.fixture
def outside(monkeypatch):
    """Nothing of a CI system or of the user's settings."""
    for name in [name for name in os.environ if name.startswith(("QRELIAB_", "GITHUB_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


SMALL_DIGITS = """\
version: 1
extends: digits
in_distribution: {limit: 300}
calibration: {limit: 100}
covariate_shift: null
corruptions: null
spurious: null
ood: {near: {letters: {limit: 100}}, far: {photos: {limit: 100}}}
"""


@pytest.fixture(scope="module")
def small_digits(tmp_path_factory) -> Path:
    """A part of the embedded benchmark, under its name."""
    path = tmp_path_factory.mktemp("small") / "digits.yaml"
    path.write_text(SMALL_DIGITS)
    return path


def pattern(line: str) -> str:
    """A pattern for a line of output in which numbers, their signs, rules and room may be others."""
    line = re.sub(r"(pytest_qreliab/)?(thresholds/)", r"*\2", line)
    line = re.sub(r"\s[✓✗?](?=\s|$)|\b[0-9a-f]{8}\b|[+-]?\d[\d.,]*(e[+-]?\d+)?|[=_─]{3,}|\s+", "*", line)
    return re.sub(r"\*+", "*", "*" + line.replace("[", "[[]") + "*")


def compare(block: Block, output: list[str]) -> None:
    """Fail unless the lines of a `text` block are among those of the output, in order; `...` stands for any."""
    wanted = [pattern(line) for line in block.text.splitlines() if line.strip() not in ("", "...")]
    pytest.LineMatcher(output).fnmatch_lines([line for line in wanted if line != "*"])


def test_output_is_held_to_what_is_fixed_in_it():
    output = [
        "accuracy: 1 of 2 gates failed",
        "  harm       0.21, interval 0.1 to 0.3",
        "  limit      max_drop 0.02, x.yaml:4",
    ]
    compare(Block("", 1, "text", "accuracy: 2 of 3 gates failed\n...\n    limit   max_drop 0.03, x.yaml:7\n"), output)
    for text in ("accuracy: 1 of 2 gates passed", "  limit  max_rise 0.02, x.yaml:4", "  harm 0.21\naccuracy: 1 of 2"):
        with pytest.raises(pytest.fail.Exception):
            compare(Block("", 1, "text", text), output)


class Folder:
    """Follows a page in a folder: writes the files that it names, runs its commands, looks at its output."""

    def __init__(self, pytester: pytest.Pytester, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester, self.small, self.monkeypatch = pytester, small, monkeypatch
        self.output: list[str] = []

    def follow(self, page: str, after: Callable[[Block], None] = lambda block: None) -> None:
        for block in (block for block in BLOCKS if block.page == page):
            if block.name:
                (self.pytester.path / block.name).write_text(block.text)
            if block.language == "sh":
                self.output = []
                wanted = re.search(r"# exit code (\d)", block.text)
                codes = [self.run(words) for words in commands(block.text)]
                assert codes[-1] == int(wanted[1] if wanted else 0), "\n".join(self.output)
            elif block.language == "text":
                compare(block, self.output)
            after(block)

    def run(self, words: list[str]) -> int:
        program, *args = words
        if program == "python":
            runpy.run_path(args[0])
        elif program == "qreliab" and words[1] in ("merge", "accept") and not Path(words[2]).exists():
            pass  # of results from elsewhere
        elif program == "qreliab":
            with redirect_stdout(io.StringIO()) as out, redirect_stderr(out):
                code = cli.main(args)
            self.output += out.getvalue().splitlines()
            return code
        elif program == "pytest":
            with self.monkeypatch.context() as patch:
                if not Path("pytest.ini").exists() and not any("--qreliab-benchmarks" in word for word in args):
                    patch.setenv("QRELIAB_BENCHMARKS", str(self.small))
                    patch.setenv("QRELIAB_CACHE_DIR", str(self.small.parent / "kept"))
                result = self.pytester.runpytest_inprocess(*args)
            self.output += [*result.outlines, *result.errlines]
            return int(result.ret)
        return 0  # pip, git and the like are left out


@pytest.fixture
def folder(pytester, small_digits, monkeypatch, outside, everything_imported) -> Folder:
    return Folder(pytester, small_digits, monkeypatch)


def test_the_quick_start_and_the_snapshot_workflow_run_as_they_are_written(folder):
    """In one folder, as the second goes on where the first ends; on every sixth image, for the time it takes."""

    def thinned(block: Block) -> None:
        if block.language == "sh" and "make_example.py" in block.text:
            for path in Path().glob("*/*/*.png"):
                if int(path.stem) % 12 > 1:
                    path.unlink()
        if block.language == "text" and "0 images and prompts" in block.text:
            assert any(line.startswith("0 images and prompts encoded") for line in folder.output)

    def changed(block: Block) -> None:
        """Before the last output the data and the environment change."""
        if block.language == "text" and "accepted into release: 1 changed" in block.text:
            next(Path("images/zero").glob("*.png")).unlink()
            (path,) = Path("release").glob("*.json")
            path.write_text(re.sub(r'"torch": "[^"]+"', '"torch": "2.14.0"', path.read_text()))
            folder.output = []
            assert folder.run(["pytest", "qreliab", "--qreliab-snapshot=release"]) == 0

    folder.follow("index.md", thinned)
    folder.follow("snapshots.md", changed)


@pytest.fixture
def results(folder) -> Path:
    """The results file of a run, in the working directory."""
    assert folder.run(["pytest", "--qreliab-bits=4,w8", "--qreliab-json=results.json"]) == 0
    return Path("results.json")


def test_the_commands_and_the_python_of_reports_and_thresholds_work_on_results(folder, results, monkeypatch):
    pandas = pytest.importorskip("pandas")
    for name in ("before.json", "after.json"):
        shutil.copy(results, name)
    Path("limits.yaml").write_text("version: 1\ngates: {accuracy: {max_drop: 0.5, max_drift: 0.1}}\n")
    for block in of_page("reports.md", "sh"):
        for words in commands(block.text):
            if words[0] == "qreliab" and words[1] != "merge":
                if "table.parquet" in " ".join(words):
                    pytest.importorskip("pyarrow")
                assert folder.run(words) == 0, words
    for name in ("report.html", "summary.md", "table.csv", "table.parquet", "accepted"):
        assert Path(name).exists()
    shutil.copy("table.csv", "measured.csv")
    for page in ("reports.md", "thresholds.md"):
        for block in of_page(page, "python"):
            with redirect_stdout(io.StringIO()) as out:
                exec(compile(block.text, str(block), "exec"), {})
            assert "accuracy" in out.getvalue()
            assert "w4a8" in out.getvalue()
    assert len(pandas.read_csv("table.csv")) > 20


def test_the_outputs_in_thresholds_are_those_of_its_files(folder, monkeypatch):
    from pytest_qreliab.evaluation.verdicts import self_check

    monkeypatch.setattr(self_check, "REPLICATES", 5)
    files = {block.name: block.text for block in of_page("thresholds.md", "yaml") if block.name}
    for name, text in files.items():
        Path(name).write_text(text)
    of_refusal, of_head, of_self_check = of_page("thresholds.md", "text")
    assert folder.run(["pytest", "--qreliab-bits=4", "--qreliab-thresholds=typo.yaml"]) == 4
    compare(of_refusal, folder.output)
    folder.run(["pytest", "--collect-only", "--qreliab-bits=4", "--qreliab-thresholds=strict.yaml"])
    compare(of_head, folder.output)
    assert folder.run(["pytest", SELF_CHECK, "--qreliab-bits=4", "--qreliab-thresholds=limits.yaml"]) in (0, 1)
    compare(of_self_check, folder.output)


def test_an_update_in_ci_is_refused_as_said(folder, monkeypatch):
    (block,) = of_page("ci.md", "text")
    monkeypatch.setenv("CI", "true")
    assert folder.run(["pytest", "--qreliab-bits=4", "--qreliab-snapshot=accepted", "--qreliab-update=new"]) == 4
    assert block.text.strip() in folder.output


MY_PROJECT = """
from pytest_qreliab import load_model

own = load_model("tiny-digits")
preprocess, tokenizer = own.preprocess, own.tokenizer

def MyClip():
    return own.module
"""


def test_the_python_of_extend_runs(folder, small_benchmark):
    from PIL import Image

    quantizer, model, *tests, export = of_page("extend.md", "python")
    assert [block.name for block in (quantizer, model, export)] == ["conftest.py", "conftest.py", "export.py"]
    assert all(block.name.startswith("test_") for block in tests)
    folder.small = small_benchmark
    Path("low.yaml").write_text("version: 1\ngates: {accuracy: {min: 0.15}}\n")
    Path("my_project.py").write_text(MY_PROJECT)
    folder.pytester.syspathinsert()
    for block, *words in (
        (quantizer, "--qreliab-quantizers=ternary", "--qreliab-bits=w2"),
        (model, "--qreliab-models=mine", "--qreliab-bits=4"),
    ):
        Path("conftest.py").write_text(block.text)
        assert folder.run(["pytest", *words, "--qreliab-thresholds=low.yaml"]) == 0
    Path("conftest.py").unlink()
    Path("images").mkdir()
    for i in range(8):
        Image.new("RGB", (32, 32), (i * 30, 0, 255 - i * 30)).save(f"images/{i}.png")
    for block in tests:
        Path(block.name).write_text(block.text)
    assert folder.run(["pytest", "--qreliab-bits=w8", *(block.name for block in tests)]) == 0
    assert any(line.startswith("=") and " 5 passed" in line for line in folder.output)


def test_the_exported_array_is_a_source(tmp_path, monkeypatch):
    from pytest_qreliab.data import loading as data

    monkeypatch.chdir(tmp_path)
    exec(of_page("extend.md", "python")[-1].text, {})
    (text,) = (block.text for block in of_page("extend.md", "yaml"))
    Path("mine.yaml").write_text(text)
    assert len(data.load(benchmark.Benchmark.load("mine.yaml")).in_distribution) == 200


def test_the_python_of_recorded_writes_a_file_that_can_be_read(tmp_path, monkeypatch):
    import numpy as np

    from pytest_qreliab.record import Recording

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    given = {
        "names": ["cat", "dog"],
        "text": rng.normal(size=(2, 4)),
        "paths": ["a.jpg", "b.jpg"],
        "features": rng.normal(size=(2, 4)),
        "labels": [0, 1],
        "texture_paths": ["c.jpg"],
        "texture_features": rng.normal(size=(1, 4)),
    }
    (block,) = of_page("recorded.md", "python")
    exec(block.text, given)
    assert str(Recording.load(Path("phone.npz")).bits) == "w8a8"


# What pages say of everything there is


def test_every_metric_has_a_formula():
    formulas: dict[str, str] = {}
    for page in ("metrics.md", "spectrum.md"):
        text = (DOCS / page).read_text(encoding="utf-8")
        for table in re.findall(r"^\| (?:metric|score) \| formula \|.*?\n\n", text + "\n\n", re.MULTILINE | re.DOTALL):
            for row in table.splitlines()[2:]:
                cells = row.strip("| ").split(" | ")
                formulas.update(dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), cells[1:] and cells[1]))
    for name in registry.names():
        if name.startswith("ood."):
            _, statistic, *score = name.split(".")
            assert formulas[f"ood.{statistic}"]
            assert all(formulas[of] for of in score)
        else:
            assert formulas["rescaled.NAME" if name in registry.RESCALED_METRICS else name], name
    for name in ("recall.CLASS", "spurious.accuracy.SET"):
        assert formulas[name]


def test_every_key_of_the_results_is_explained():
    from pytest_qreliab.report.records import CaseRecord, GateRecord, MetricRecord
    from pytest_qreliab.report.results_file import Results

    text = (DOCS / "reports.md").read_text(encoding="utf-8")
    names = {
        *Results.model_fields,
        *get_type_hints(CaseRecord),
        *get_type_hints(GateRecord),
        *get_type_hints(MetricRecord),
    }
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_every_limit_and_setting_of_thresholds_has_a_row():
    text = (DOCS / "thresholds.md").read_text(encoding="utf-8")
    for name in (*thresholds.Limits.model_fields, *thresholds.Correction.__args__, *thresholds.Inconclusive.__args__):
        assert f"\n| `{name}` |" in text, name


def test_every_command_has_its_exit_codes(monkeypatch):
    def stop(self, *given):
        (commands,) = (action for action in self._actions if isinstance(action, argparse._SubParsersAction))
        raise Stopped(commands.choices)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    with pytest.raises(Stopped) as found:
        cli.main([])
    text = (DOCS / "reports.md").read_text(encoding="utf-8")
    (names,) = found.value.args
    assert len(names) > 5
    assert [name for name in names if f"\n| `qreliab {name}` |" not in text] == []


def slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", re.sub(r"`|\]\(.*?\)|\[", "", heading).strip().lower()).replace(" ", "-")


def test_links_of_the_readme_lead_to_pages_and_headings():
    for page, anchor in re.findall(r"\]\(docs/([\w-]+\.md)(?:#([\w-]+))?\)", (ROOT / "README.md").read_text("utf-8")):
        headings = re.findall(r"^#+ (.*)$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
        assert not anchor or anchor in map(slug, headings), f"{page}#{anchor}"


OPTIONS_HEAD = """\
# Options

<!-- Made by `python tests/documents/test_pages.py` from the options themselves. -->

Each option is a command-line option, an environment variable and an ini setting (`pytest.ini`, or
`[tool.pytest.ini_options]` in `pyproject.toml`). The command line wins over the environment, the environment over the
ini file; a [suite](suites.md) comes after all three and before the default. An empty variable counts as none. Lists are
separated by commas or line ends; TOML takes `["w4", "w8"]`, and `true` and `false` for yes and no, as well.

Relative paths on the command line and in variables start in the working directory, those in an ini file or a suite file
in the folder of that file. So `pytest` may be started in any folder of a project.

An option on the command line, without a path, runs the shipped tests in place of `testpaths`; with settings from
elsewhere `pytest qreliab` does. Input that cannot be used ends the run with exit code 4 and one message.

## When settings count

Settings in an ini file, in variables or in `addopts` are there for the runs that ask for reliability tests: by an
option on the command line, by `pytest qreliab`, or by a test that uses a fixture of the plugin and is collected. Any
other run (unit tests, `--help`, `--markers`, `--fixtures`, `--cache-show`) reads no benchmark, model or device, and
leaves the files of results as they are. `--collect-only` and `--setup-plan` make the plan and write nothing.

A file of an earlier run is removed when a reliability test has been collected and selected, and written at the end.

A run that asked and judged nothing is no success: it ends with exit code 5 and a line that says why.

| what ran | exit code |
|---|---|
| options on the command line or `pytest qreliab`, and `-k`, `--lf` or a path selects no reliability test | 5 |
| every reliability test was skipped | 5 |
| tests use `qreliab_result`, and none calls `check` or reads `verdicts`, `changes` or `coverage` | 5 |
| only the other [shards](ci.md#shards) have the selected tests | 0, with a line that says so |
| tests of one's own use the models or the case alone: they judge by themselves | as they pass or fail |
| `--collect-only`, `--setup-plan`, `--setup-only` | as ever |

| option | environment | ini | default | what it is |
|---|---|---|---|---|
"""
NOT_IN_TABLE = (
    (SELF_CHECK, "", "", "off", "the [A/A self-check](thresholds.md#how-to-set-limits), in place of the gates' tests"),
    ("", "", TESTPATHS_INI, "none", "files and folders of your own tests, run with the shipped ones without a path"),
)
OPTIONS_TAIL = """\

## Other variables

| variable | what it does |
|---|---|
| `QRELIAB_DATA` | where the data of the shipped [benchmarks](benchmarks.md#the-catalogue) lie |
| `CI` | where it is set (not empty, `0`, `false`, `no`), [nothing is accepted](ci.md#accept-a-snapshot) |
| `GITHUB_STEP_SUMMARY` | a file that the tables are added to, as Markdown |
| `GITHUB_ACTIONS` | `true`: failed gates are printed as annotations |
| `OMP_NUM_THREADS` | threads of each process; with `-n` the workers share the cores unless it is set |
"""


def options_page() -> str:
    """docs/options.md as it has to be."""
    found = [(o.flag, o.env, o.ini, o.default, o.help.replace("|", "\\|")) for o in OPTIONS]
    rows = [
        "| " + " | ".join([*(f"`{of}`" if of else "" for of in row), text]) for *row, text in (*found, *NOT_IN_TABLE)
    ]
    return OPTIONS_HEAD + "".join(f"{row} |\n" for row in rows) + OPTIONS_TAIL


def test_the_page_of_options_is_up_to_date():
    assert (DOCS / "options.md").read_text(encoding="utf-8") == options_page()


def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="needs pip install 'pytest-qreliab[docs]'")
    pytest.importorskip("material", reason="needs pip install 'pytest-qreliab[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert {path.stem for path in pages} >= {Path(page).stem for page in PAGES}
    for path in pages:
        loaded = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"?(https?:)?//", path.read_text(encoding="utf-8"))
        assert not loaded, path


if __name__ == "__main__":
    (DOCS / "options.md").write_text(options_page(), encoding="utf-8")
