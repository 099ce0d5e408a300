"""Draw the rooms of the package and the imports between them, for docs/architecture.md.

    python benchmarks/studies/architecture.py          # print what the code imports, room by room
    python benchmarks/studies/architecture.py --write  # draw docs/architecture.svg again

Everything is read from the code: the rooms from its folders, their purpose from the first line of their docstrings,
arrows from every import, in functions and under TYPE_CHECKING too. A test holds the picture to the code.
"""

from __future__ import annotations

import argparse
import ast
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "pytest_qreliab"
PICTURE = ROOT / "docs" / "architecture.svg"

# Files that are no room of their own: small things that every room may use, and public aliases.
BASE = ("errors", "workers", "hashing", "lazy", "_version")
ALIASES = ("__init__", "record")
# What goes from a room to the one above it, on the way from a command line to a page.
DATA = {
    "config": "options, suites, benchmarks and thresholds, with file and line",
    "data": "image sets, labels, prompts, recorded outputs",
    "models": "a full-precision CLIP",
    "quantizers": "a quantized CLIP",
    "embedding": "features, as arrays",
    "metrics": "values of samples and models",
    "statistics": "intervals, p-values, power",
    "evaluation": "changes, verdicts, results",
    "report": "records, a table, a page, files",
}

WIDTH, BOX, HEIGHT, GAP, LEFT = 820, 660, 62, 34, 140
INK, PALE, LINE, PAPER = "#1f2933", "#5b6b7b", "#9fb0c0", "#f5f8fa"


@dataclass(frozen=True)
class Room:
    """A folder or file of the package: its name, its purpose in a line, its modules, and the rooms that it imports."""

    name: str
    purpose: str
    modules: int
    imports: frozenset[str]


def room_of(module: str) -> str:
    """Return the room of a module by its full name."""
    name = module.split(".")[1] if "." in module else "__init__"
    return "base" if name in BASE else name


def imported(path: Path) -> set[str]:
    """Return the full names of all modules of ours that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "pytest_qreliab":
            names |= {f"pytest_qreliab.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    return {name for name in names if name.startswith("pytest_qreliab.")}


def purpose(path: Path) -> str:
    """Return the first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.split(r"\.?\n|\. ", text, maxsplit=1)[0].rstrip(".").replace("`", "")


def rooms() -> list[Room]:
    """Return the rooms, each after all that it imports."""
    files: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if name not in ALIASES:
            files.setdefault("base" if name in BASE else name, []).append(path)
    found = {}
    for name, paths in files.items():
        about = "errors, digests, a worker's share" if name == "base" else purpose(paths[0])
        others = {room_of(module) for path in paths for module in imported(path)} - {name, *ALIASES}
        found[name] = Room(name, about, len(paths), frozenset(others))
    ordered: list[Room] = []
    while len(ordered) < len(found):
        placed = {room.name for room in ordered}
        ready = [room for room in found.values() if room.name not in placed and room.imports <= placed]
        if not ready:
            raise SystemExit(f"a circle among {sorted(found.keys() - placed)}")
        ordered.append(min(ready, key=lambda room: (len(room.imports), room.name)))
    return ordered


def direct(room: Room, all_rooms: dict[str, Room]) -> set[str]:
    """Return the imports of a room that no other of its imports implies."""

    def reached(name: str) -> set[str]:
        return {name}.union(*(reached(other) for other in all_rooms[name].imports))

    implied = {name for other in room.imports for name in reached(other) - {other}}
    return set(room.imports) - implied


def draw(found: list[Room]) -> str:
    """Return the picture as SVG: the rooms from the ground up, and an arrow for every import that none implies."""
    by_name = {room.name: room for room in found}
    top = {room.name: 20 + (len(found) - 1 - place) * (HEIGHT + GAP) for place, room in enumerate(found)}
    height = 20 + len(found) * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'font-family="system-ui, sans-serif">',
        "<title>The rooms of pytest-qreliab, and which imports which</title>",
        '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 8 4 0 8z" fill="{PALE}"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for room in found:
        y = top[room.name]
        parts += [
            f'<rect x="{LEFT}" y="{y}" width="{BOX}" height="{HEIGHT}" rx="8" fill="{PAPER}" stroke="{LINE}"/>',
            f'<text x="{LEFT + 16}" y="{y + 25}" font-size="17" font-weight="600" fill="{INK}">{room.name}</text>',
            f'<text x="{LEFT + BOX - 16}" y="{y + 25}" font-size="13" text-anchor="end" fill="{PALE}">'
            f"{room.modules} module{'s' * (room.modules > 1)}</text>",
            f'<text x="{LEFT + 16}" y="{y + 48}" font-size="13" fill="{INK}">{escape(room.purpose)}</text>',
        ]
        if room.name in DATA:
            parts.append(
                f'<text x="{LEFT + BOX / 2}" y="{y - 12}" font-size="12" font-style="italic" text-anchor="middle" '
                f'fill="{PALE}">{escape(DATA[room.name])} \u2191</text>'
            )
    arrows = [(room.name, other) for room in found for other in sorted(direct(room, by_name))]
    for source, target in arrows:
        start, end = top[source] + HEIGHT / 2, top[target] + HEIGHT / 2
        reach = LEFT - 30 - 0.25 * (end - start)
        parts.append(
            f'<path d="M{LEFT} {start + 8:g} C{reach:g} {start + 8:g} {reach:g} {end - 8:g} {LEFT - 2} {end - 8:g}" '
            f'fill="none" stroke="{PALE}" stroke-width="1.4" marker-end="url(#end)"/>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Print the rooms, or draw the picture again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {PICTURE.relative_to(ROOT)}")
    found = rooms()
    if parser.parse_args().write:
        PICTURE.write_text(draw(found), encoding="utf-8")
        return
    for room in reversed(found):
        print(f"{room.name:12}{room.modules:4} modules  imports {', '.join(sorted(room.imports)) or 'none of them'}")


if __name__ == "__main__":
    main()
