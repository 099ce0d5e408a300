"""The console command `qreliab`: all that needs no test run."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text
from rich_argparse import RichHelpFormatter

from pytest_qreliab._version import __version__
from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.config.document import find, read, shipped
from pytest_qreliab.config.settings import IN_PYTESTS_CACHE, Setting, size_of
from pytest_qreliab.config.thresholds import Thresholds
from pytest_qreliab.errors import InputError, unknown
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.metrics import registry
from pytest_qreliab.models import names as models_names
from pytest_qreliab.quantizers.parameters import RoundingParameters, described
from pytest_qreliab.quantizers.recipe import Quantizer, Recipe


@dataclass(frozen=True)
class ListedItem:
    """One thing to choose: its name, a line of help, and lines of detail below it."""

    name: str
    help: str
    details: tuple[str, ...] = ()
    usable: bool = True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0, 1 where data or results are missing or failed, or 2 for an argument that cannot be used."""
    args = _parser().parse_args(argv)
    code = 0
    try:
        if args.command == "check":
            lines, code = _checked(args.names)
        elif args.command == "cache":
            lines, code = _cache(args.action, args.dir, Setting(args.size, "--size", given=True))
        elif args.command in ("merge", "report", "compare", "accept"):
            lines, code = _of_results(args)
        else:
            catalog = Catalog()
            catalog.add_entry_points()
            lines = [line for kind in args.kinds or KINDS for line in _section(kind, list(KINDS[kind](catalog)))]
    except InputError as error:
        print(f"qreliab: error: {error}", file=sys.stderr)
        return 2
    console = Console(highlight=False)
    try:
        for line in lines:
            # Cut to a terminal's width, but left whole where another program reads it.
            for part in _wrapped(line, console.width) if console.is_terminal else [line]:
                console.print(part, soft_wrap=True)
        sys.stdout.flush()
    except BrokenPipeError:  # of `| head`; Python would complain of it again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qreliab",
        description="All of pytest-qreliab that needs no test run; the tests themselves are run with pytest.",
        epilog="Exit codes: 0; 1 where data or results are missing, damaged, failed or worse; 2 for input that cannot "
        "be used.",
        formatter_class=RichHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"qreliab {__version__}")
    adder = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str) -> argparse.ArgumentParser:
        return adder.add_parser(
            name, help=help, description=f"{help[0].upper()}{help[1:]}.", formatter_class=RichHelpFormatter
        )

    lister = command("list", "list models, quantizers, benchmarks and metrics")
    lister.add_argument(
        "kinds", nargs="*", type=_kind, metavar="KIND", help=f"{', '.join(KINDS)}; all of them where none is given"
    )
    checker = command("check", "validate benchmarks, thresholds and suites, and say which images are there")
    checker.add_argument("names", nargs="+", metavar="NAME", help="shipped names, or paths of YAML files")
    cacher = command("cache", "list, verify or prune the embeddings and images kept for later runs")
    cacher.add_argument("action", choices=("list", "verify", "prune"))
    cacher.add_argument(
        "--dir", type=Path, help="the folder; by default QRELIAB_CACHE_DIR, or that in pytest's cache here"
    )
    cacher.add_argument("--size", default="0MB", help="prune: what is left at most, as in 5GB; nothing by default")
    merger = command("merge", "put the results of shards together, in one table")
    merger.add_argument("files", nargs="+", metavar="FILE", help="what --qreliab-json wrote, the file of each shard")
    merger.add_argument("--output", metavar="FILE", help="a file for the results of all, in the same format")
    reporter = command("report", "show results, or write them as HTML, Markdown, CSV or Parquet")
    reporter.add_argument("results", metavar="RESULTS", help="what --qreliab-json wrote")
    reporter.add_argument(
        "--output",
        metavar="FILE",
        action="append",
        default=[],
        help="a file that ends in .html, .md, .csv or .parquet; may be given again",
    )
    comparer = command("compare", "compare two runs; the exit code is 1 where the later is worse")
    comparer.add_argument("before", metavar="BEFORE", help="results of the earlier run")
    comparer.add_argument("after", metavar="AFTER", help="results of the later run")
    comparer.add_argument(
        "--thresholds", metavar="NAME", default="default", help="whose max_drift counts: a shipped name, or a YAML file"
    )
    accepter = command("accept", "accept results that were measured elsewhere into a snapshot")
    accepter.add_argument("results", metavar="RESULTS", help="what --qreliab-json wrote")
    accepter.add_argument("--snapshot", metavar="DIR", required=True, help="the folder of accepted results")
    accepter.add_argument(
        "--update", choices=("new", "all"), default="new", help="what it has not yet (new, the default), or all"
    )
    return parser


def _of_results(args: argparse.Namespace) -> tuple[list[Text], int]:
    from pytest_qreliab.report import commands  # imports pydantic and more, which `--help` does without

    color, unicode = sys.stdout.isatty(), (sys.stdout.encoding or "").lower().startswith("utf")
    if args.command == "merge":
        return commands.merge(args.files, args.output, color=color, unicode=unicode)
    if args.command == "report":
        return commands.report(args.results, args.output, color=color, unicode=unicode)
    if args.command == "compare":
        return commands.compare(args.before, args.after, args.thresholds)
    return commands.accept(args.results, args.snapshot, args.update)


def _cache(action: str, folder: Path | None, size: Setting) -> tuple[list[Text], int]:
    """What the store holds, what is wrong with it, or what was removed of it; and 1 if anything was wrong, else 0."""
    from pytest_qreliab.embedding.store import Store  # imports NumPy

    folder = folder or Path(os.environ.get("QRELIAB_CACHE_DIR") or IN_PYTESTS_CACHE).expanduser()
    if not folder.is_dir():
        raise InputError(f"there is no cache at {folder.absolute()}; name its folder with --dir")
    store = Store(folder)
    if action == "prune":
        removed = store.prune(size_of(size))
        left = sum(entry.size for entry in store.stored())
        return [Text(f"{folder}: {_bytes(removed)} removed, {_bytes(left)} left")], 0
    lines, total, bad = [], 0, 0
    with Console(stderr=True).status(f"reading {folder}"):
        entries = sorted(store.stored(read=True, verify=action == "verify"), key=lambda entry: entry.used)
    for entry in entries:
        total += entry.size
        if entry.problem:
            bad += 1
            store.remove(entry)
            lines.append(Text(f"  {entry.path} {entry.problem}; removed", style="red"))
        elif action == "list":
            used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
            lines.append(Text(f"  {used}  {_bytes(entry.size):>9}  {entry.about}"))
    lines.append(Text(f"{folder}: {_bytes(total)}, {bad} damaged" if bad else f"{folder}: {_bytes(total)}"))
    return lines, int(bad > 0)


def _bytes(size: float) -> str:
    power = next((power for power in (30, 20) if size >= 2**power), 10)
    return f"{size / 2**power:.1f} {'KMG'[power // 10 - 1]}iB"


def _checked(names: Sequence[str]) -> tuple[list[Text], int]:
    """That each file is valid, and what is there of a benchmark; and 1 if a run could not go on, else 0."""
    lines, code = [], 0
    with Console(stderr=True).status("") as status:
        for name in names:
            status.update(f"checking {name}")
            kind = _kind_of(name)
            if kind == "thresholds":
                policy = Thresholds.load(name).policy
                text = f"{name}: thresholds for {len(policy.gates)} metrics, {len(policy.overrides)} overrides"
                lines.append(Text(text, style="bold"))
            elif kind == "suites":
                lines.append(Text(f"{name}: a suite of {_cases_of_suite(name)} cases", style="bold"))
            else:
                of_benchmark, bad = _present(Benchmark.load(name))
                lines += of_benchmark
                code = max(code, bad)
    return lines, code


def _kind_of(name: str) -> str:
    """`benchmarks`, `suites` or `thresholds`: of a shipped name, or by what a YAML file holds."""
    for kind in ("benchmarks", "suites", "thresholds"):
        if name in shipped(kind):
            return kind
    data = read(find("benchmarks", name)).data
    if "gates" in data:
        return "thresholds"
    return "benchmarks" if {"in_distribution", "extends", "classes"} & set(data) else "suites"


def _cases_of_suite(name: str) -> int:
    """The number of cases, after everything that the suite names was checked as a run would."""
    from pytest_qreliab.config import settings as config_settings
    from pytest_qreliab.evaluation.planning import make_plan  # imports NumPy, which lists do without

    catalog = Catalog()
    catalog.add_entry_points()
    settings = config_settings.resolve(lambda ini: name if ini == "qreliab_suite" else None, lambda ini: None)
    return len(make_plan.make_plan(settings, catalog).cases)


def _present(benchmark: Benchmark) -> tuple[list[Text], int]:
    """A line for each image set; and 1 if one is missing, else 0."""
    from pytest_qreliab.data import loading as data  # imports NumPy, which lists do without

    code = 0
    lines = [Text(f"{benchmark.name}: {benchmark.definition.description}".rstrip(": "), style="bold")]
    for found in data.availability(benchmark):
        count = f"{found.images:,} images"
        if found.problem:
            code = 1
            lines.append(Text(f"  missing  {found.name}: {found.problem}", style="red"))
        elif found.expected not in (None, found.images):
            what = "smaller" if found.images < (found.expected or 0) else "larger "
            text = f"  {what}  {found.name}: {count} of {found.expected:,}; a run measures on what is there"
            lines.append(Text(text, style="yellow"))
        else:
            lines.append(Text(f"  present  {found.name}: {count}"))
    return lines, code


def _kind(text: str) -> str:
    if text not in KINDS:
        raise argparse.ArgumentTypeError(str(unknown("kind", text, KINDS)))
    return text


def _section(kind: str, entries: list[ListedItem]) -> Iterator[Text]:
    yield Text(kind, style="bold underline")
    width = min(28, max(len(entry.name) for entry in entries))
    for entry in entries:
        name = (f"  {entry.name:<{width}}", "bold" if entry.usable else "dim")
        yield Text.assemble(name, (f"  {entry.help}", "" if entry.usable else "dim"))
        for detail in entry.details:
            yield Text(f"      {detail}", style="dim")
    yield Text("")


def _wrapped(line: Text, width: int) -> list[Text]:
    """The line in parts that fit, the later ones indented."""
    indent = len(line.plain) - len(line.plain.lstrip()) + 4
    cut = textwrap.wrap(
        line.plain, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
    if len(cut) < 2:
        return [line]
    rest = [Text(part, style=line.style) for part in cut[1:]]
    return [line[: len(cut[0])], *rest]


def _models(catalog: Catalog) -> Iterator[ListedItem]:
    from pytest_qreliab.models import openclip

    yield ListedItem(models_names.TINY_DIGITS, "a small CLIP of handwritten digits that comes with the package")
    for name, registered in sorted(catalog.models.items()):
        yield ListedItem(name, registered.help or "registered by a package")
    # The tags are in open_clip's code, which imports torch: nothing else here does.
    for architecture, tags in openclip.tags().items():
        yield ListedItem(architecture, ", ".join(tags) or "no hub weights: give ARCH/CHECKPOINT")
    yield ListedItem("hf-hub:ORG/NAME", "an open_clip model of the Hugging Face hub")
    yield ListedItem("local-dir:PATH", "a folder with open_clip_config.json and a checkpoint")


def _quantizers(catalog: Catalog) -> Iterator[ListedItem]:
    for quantizer in catalog.quantizers.values():
        details = [_abilities(quantizer)]
        if parameters := _parameters(quantizer):
            details.append(f"parameters: {parameters}")
        if missing := quantizer.missing():
            how = f"pip install 'pytest-qreliab[{quantizer.extra}]'" if quantizer.extra else "install it"
            details.append(f"not usable here, {', '.join(missing)} is missing: {how}")
        yield ListedItem(quantizer.name, quantizer.help, tuple(details), usable=not missing)


def _parameters(quantizer: Quantizer) -> str:
    """Those of its own, and that it has those of `minmax`, which most have."""
    names = described(quantizer.parameters)
    shared = described(RoundingParameters)
    if quantizer.parameters is not RoundingParameters and issubclass(quantizer.parameters, RoundingParameters):
        names = [*(name for name in names if name not in shared), "and those of minmax"]
    elif quantizer.parameters is RoundingParameters and quantizer.name != "minmax":
        names = ["those of minmax"]
    return ", ".join(names)


def _abilities(quantizer: Quantizer) -> str:
    bits = ", ".join(quantizer.bits) or "any from w2 to w8, a2 to a8"
    if quantizer.read_bits is not None:
        return "bits: those of the file; needs no calibration data; what it covers is shown"
    recipe = Recipe(quantizer.name, quantizer)
    bare = 4 if not quantizer.bits or any(text.startswith("w4") for text in quantizer.bits) else 8
    default = recipe.bits(bare, "both")
    needs = {
        "nothing": "no calibration data",
        "ranges": "calibration images for static activation ranges",
        "images": "calibration images",
        "pairs": "labelled calibration images",
    }[quantizer.needs]
    what = "" if quantizer.convolutions else " of the matrix products"
    return f"bits: {bits} ({bare} is {default}); needs {needs}; covers {quantizer.coverage:.0%}{what}"


def _benchmarks(catalog: Catalog) -> Iterator[ListedItem]:
    for name in shipped("benchmarks"):
        benchmark = Benchmark.load(name)
        aspects = [aspect for aspect in registry.ASPECTS if aspect in benchmark.aspects]
        yield ListedItem(name, benchmark.definition.description, (f"measures {', '.join(aspects)}",))
    yield ListedItem("PATH.yaml", "a benchmark of your own")


def _metrics(catalog: Catalog) -> Iterator[ListedItem]:
    for name in registry.names():
        metric = registry.lookup(name)
        if name.rpartition(".")[2] in registry.OOD_SCORES:
            continue
        better = "any change is harm" if metric.better == "neither" else f"{metric.better} is better"
        yield ListedItem(name, f"{metric.aspect}, {better}: {metric.help}")
    scores = f"by the score {', '.join(registry.OOD_SCORES)}; {registry.PRIMARY_SCORE} where none is named"
    yield ListedItem("ood.NAME.SCORE", scores)
    yield ListedItem("ood.NAME.SCORE.SET", "of one OOD set in place of the mean over all")
    yield ListedItem("spectral.NAME.N", "high_band_energy and map_error after block N of the image tower")
    yield ListedItem(
        "spectral.NAME.penultimate", "of what the last projection reads; spectral.NAME.text: of the classes"
    )


KINDS = {"quantizers": _quantizers, "benchmarks": _benchmarks, "metrics": _metrics, "models": _models}


if __name__ == "__main__":
    sys.exit(main())
