"""Time the idle plugin in a project that does not use it: `pytest --collect-only -q` with the plugin and without.

    python benchmarks/performance/idle_cost.py [--pairs 30]

The project has 200 trivial tests in 20 files and no option of ours. The two commands are whole processes and take
turns, also at being the first of a pair. The median of the paired differences is compared with the budget. Below it are
the modules that only the plugin imports, by `python -X importtime`.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
from pathlib import Path

import speed

BUDGET = 20  # ms
FILES, TESTS = 20, 10
COLLECT = ["-m", "pytest", "--collect-only", "-q"]
BLOCKED = ["-p", "no:qreliab"]


def project(folder: Path) -> None:
    (folder / "pytest.ini").write_text("[pytest]\n")
    for file in range(FILES):
        tests = [f"def test_{test}():\n    assert {test} < {TESTS}\n" for test in range(TESTS)]
        (folder / f"test_file_{file}.py").write_text("\n\n".join(tests))


def collect(folder: Path, *options: str, interpreter: tuple[str, ...] = ()) -> speed.Finished:
    found = speed.run([sys.executable, *interpreter, *COLLECT, *options], folder)
    if f"{FILES * TESTS} tests collected" not in found.output:
        sys.exit(found.output)
    return found


def imported(folder: Path, *options: str) -> dict[str, int]:
    """Return every module that is imported, with its own microseconds."""
    output = collect(folder, *options, interpreter=("-X", "importtime")).output
    lines = re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", output, re.MULTILINE)
    return {name: int(microseconds) for microseconds, name in lines}


def importing(folder: Path) -> float:
    """Return the milliseconds to import the plugin after pytest; `importtime` omits what pytest imports by name."""
    plugin = "pytest_qreliab.plugin.hooks"
    code = f"import time, pytest, importlib; start = time.perf_counter(); importlib.import_module('{plugin}')"
    return float(speed.python(f"{code}; print(1000 * (time.perf_counter() - start))", folder).output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=30)
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project(folder)
        if "--qreliab-bits" not in speed.run([sys.executable, "-m", "pytest", "--help"], folder).output:
            sys.exit("the plugin is not installed: its entry point is missing")
        times: list[tuple[float, float]] = []
        for pair in range(-1, pairs):  # the first is not counted
            if pair % 2:
                without, idle = collect(folder, *BLOCKED).seconds, collect(folder).seconds
            else:
                idle, without = collect(folder).seconds, collect(folder, *BLOCKED).seconds
            times += [(1000 * idle, 1000 * without)] * (pair >= 0)
        rounds = [(imported(folder), imported(folder, *BLOCKED)) for _ in range(5)]
        whole = statistics.median(importing(folder) for _ in range(9))
    differences = [idle - without for idle, without in times]
    quarters = statistics.quantiles(differences, n=4)
    for what, found in zip(("with the plugin", "without it"), zip(*times, strict=True), strict=True):
        print(f"{what:16} median {statistics.median(found):6.1f} ms  (min {min(found):.1f}, max {max(found):.1f})")
    median = statistics.median(differences)
    print(f"paired difference: median {median:.1f} ms, quarters {quarters[0]:.1f} to {quarters[2]:.1f}, ", end="")
    print(f"of least times {min(idle for idle, _ in times) - min(without for _, without in times):.1f} ms; ", end="")
    print(f"budget {BUDGET} ms: {'kept' if median <= BUDGET else 'BROKEN'}\n")
    added: dict[str, list[int]] = {}
    for idle_modules, other in rounds:
        for module in idle_modules.keys() - other.keys():
            added.setdefault(module, []).append(idle_modules[module])
    costs = sorted(((statistics.median(of), module) for module, of in added.items()), reverse=True)
    print(f"importing the plugin takes {whole:.1f} ms in all; of these the modules below it\n")
    print(speed.table(["module", "ms"], [[f"`{module}`", f"{cost / 1000:.2f}"] for cost, module in costs[:12]]))


if __name__ == "__main__":
    main()
