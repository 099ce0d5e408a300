"""The house: ten rooms, one direction. Every import counts: at module level, in functions and under TYPE_CHECKING."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "pytest_qreliab"

# A room imports only rooms of a smaller rank.
RANKS = [
    {"errors", "workers", "hashing", "lazy", "_version"},
    {"statistics"},
    {"metrics", "models"},
    {"config"},
    {"data"},
    {"quantizers"},
    {"embedding"},
    {"evaluation"},
    {"report"},
    {"plugin", "cli"},
]

# The same inside two rooms that are large enough to have floors of their own.
INSIDE = {
    "evaluation": [{"planning", "measurement"}, {"verdicts"}],
    "quantizers": [{"engine"}, {"post_training", "libraries"}, {"training", "inspection"}],
}

# They are imported by users, and import from wherever the thing is.
PUBLIC = {"__init__", "record"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path) for path in modules()}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the module of each import of a file, ours by the module that holds the name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield node.lineno, full if full in NAMES else str(node.module)


def ours(path: Path) -> Iterator[tuple[int, str]]:
    yield from ((line, name) for line, name in imports(path) if name.partition(".")[0] == "pytest_qreliab")


def parts_of(name: str) -> list[str]:
    """Split the name of a module below the package; the package itself is `__init__`."""
    return name.split(".")[1:] or ["__init__"]


def rank(room: str, ranks: list[set[str]]) -> int | None:
    return next((number for number, rooms in enumerate(ranks) if room in rooms), None)


def wrong(path: Path, line: int, name: str) -> str:
    """Say what is wrong with one import of ours; empty if nothing is."""
    here, there = parts_of(name_of(path)), parts_of(name)
    if here[0] in PUBLIC or (here[0] == there[0] and len(here) == 1):
        return ""
    where = f"{path.relative_to(PACKAGE.parent)}:{line} imports {name}"
    if there[0] in PUBLIC:
        return f"{where}: a public alias, for users"
    if here[0] != there[0]:
        mine, theirs = rank(here[0], RANKS), rank(there[0], RANKS)
        assert mine is not None, where
        assert theirs is not None, where
        return "" if theirs < mine or (mine == theirs == 0) else f"{where}: that room is not below"
    floors = INSIDE.get(here[0], [])
    top = len(floors)
    mine, theirs = (
        next((number for number, rooms in enumerate(floors) if parts[1:] and parts[1] in rooms), top)
        for parts in (here, there)
    )
    same_floor = here[1:2] == there[1:2] and len(here) > 2
    if theirs < mine or mine == theirs == top or same_floor:
        return ""
    if here[0] == "quantizers" and len(there) == 2 and there[1] in BASICS:
        return ""
    return f"{where}: that floor is not below"


# What a quantizer is told and what it is made from: the ground of the room, which its floors stand on.
BASICS = {"recipe", "request", "calibration", "parameters"}


def test_every_room_has_a_rank():
    rooms = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert rooms - {"schemas", "py"} - PUBLIC <= set().union(*RANKS)


def test_every_import_runs_down():
    found = [text for path in modules() for line, name in ours(path) if (text := wrong(path, line, name))]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("here", "there", "allowed"),
    [
        ("metrics/ood.py", "report.records", False),
        ("report/records.py", "metrics.registry", True),
        ("metrics/ood.py", "models.clip", False),
        ("evaluation/planning/plan.py", "evaluation.verdicts.gates", False),
        ("evaluation/verdicts/gates.py", "evaluation.planning.plan", True),
        ("evaluation/verdicts/gates.py", "evaluation.evaluator", False),
        ("quantizers/engine/grid.py", "quantizers.training.loop", False),
        ("config/cases.py", "record", False),
    ],
)
def test_the_rule_tells_up_from_down(here, there, allowed):
    assert (wrong(PACKAGE / here, 1, f"pytest_qreliab.{there}") == "") == allowed


def test_no_two_modules_lead_to_each_other():
    graph = {name_of(path): {name for _, name in ours(path) if name != name_of(path)} for path in modules()}
    done: set[str] = set()

    def follow(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name in done or name in {"pytest_qreliab"}:
            return
        for other in sorted(graph.get(name, ())):
            follow(other, (*way, name))
        done.add(name)

    for name in sorted(graph):
        follow(name, ())


@pytest.mark.parametrize("room", ["statistics", "evaluation/measurement", "evaluation/verdicts"])
def test_judging_numbers_imports_no_model_library(room):
    for path in sorted((PACKAGE / room).rglob("*.py")):
        heavy = {name.partition(".")[0] for _, name in imports(path)}
        assert not heavy & {"open_clip", "torchvision", "PIL", "safetensors"}, path


def loaded_by(modules: list[str]) -> dict[str, set[str]]:
    """Return the top-level packages that are loaded after each import, one after the other in one process."""
    code = f"""
import importlib, json, sys
loaded = {{}}
for name in {modules!r}:
    importlib.import_module("pytest_qreliab." + name)
    loaded[name] = sorted({{module.partition(".")[0] for module in sys.modules}})
print(json.dumps(loaded))
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    return {name: set(packages) for name, packages in json.loads(output).items()}


def test_the_way_to_a_plan_and_reading_results_load_no_torch():
    modules = [
        "record",
        "plugin.hooks",
        "config.settings",
        "report.records",
        "report.results_file",
        "report.snapshot",
        "report.run_comparison",
        "evaluation.planning.make_plan",
        "plugin.session",
    ]
    assert not [name for name, packages in loaded_by(modules).items() if "torch" in packages]


def test_judging_numbers_loads_no_model_library():
    for name, packages in loaded_by(["evaluation.measurement.measure", "evaluation.verdicts.gates"]).items():
        assert not packages & {"open_clip", "torchvision", "safetensors"}, name


def test_the_picture_in_the_documentation_is_that_of_the_code():
    script = PACKAGE.parent / "benchmarks" / "studies" / "architecture.py"
    command = [sys.executable, "-c", "import architecture as a; print(a.draw(a.rooms()), end='')"]
    drawn = subprocess.run(command, capture_output=True, check=True, cwd=script.parent, encoding="utf-8").stdout
    picture = PACKAGE.parent / "docs" / "architecture.svg"
    assert picture.read_text(encoding="utf-8") == drawn, f"python {script.relative_to(PACKAGE.parent)} --write"


def test_every_unit_test_is_of_a_module():
    unit = PACKAGE.parent / "tests" / "unit"
    of_nothing = [
        str(path.relative_to(unit))
        for path in sorted(unit.rglob("test_*.py"))
        if not (PACKAGE / path.relative_to(unit)).with_name(f"{path.stem.removeprefix('test_')}.py").is_file()
    ]
    assert not of_nothing


# What keeps a file easy to read.

LARGEST = {"class": 200, "function": 50, "file": 400}
MOST_POSITIONAL = 4


def definitions() -> Iterator[tuple[Path, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def test_nothing_is_too_long():
    too_long = [
        f"{path.relative_to(PACKAGE)}: {lines} lines"
        for path in modules()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LARGEST["file"]
    ]
    for path, node in definitions():
        lines = (node.end_lineno or 0) - node.lineno + 1
        if lines > LARGEST["class" if isinstance(node, ast.ClassDef) else "function"]:
            too_long.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}: {lines} lines")
    assert not too_long, "\n" + "\n".join(too_long)


def test_every_class_has_a_name_of_its_own():
    places: dict[str, list[str]] = {}
    for path, node in definitions():
        if isinstance(node, ast.ClassDef):
            places.setdefault(node.name, []).append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert not {name: of for name, of in places.items() if len(of) > 1}


def test_no_private_name_is_imported_from_another_module():
    private = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {alias.name}"
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pytest_qreliab")
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]
    assert not private


@pytest.mark.parametrize("folder", ["pytest_qreliab", "tests", "benchmarks"])
def test_no_object_is_made_from_more_than_four_values_by_position(folder):
    classes = {node.name for _, node in definitions() if isinstance(node, ast.ClassDef)}
    by_position = []
    for path in sorted((PACKAGE.parent / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or len(node.args) <= MOST_POSITIONAL:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in classes:
                by_position.append(f"{path.relative_to(PACKAGE.parent)}:{node.lineno} {name}({len(node.args)})")
    assert not by_position, "\n" + "\n".join(by_position)


# The first part of a metric's name: only `metrics/` may look at it.
FAMILIES = ("ood", "shift", "corruption", "spurious", "spectral", "rescaled", "recall", "flips")


def test_only_the_metrics_room_takes_names_of_metrics_apart():
    apart = re.compile(rf"""(startswith|removeprefix|partition)\(\(?["']({"|".join(FAMILIES)})""")
    found = [
        f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}"
        for path in modules()
        if path.relative_to(PACKAGE).parts[0] != "metrics"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if apart.search(line)
    ]
    assert not found, "\n" + "\n".join(found)
