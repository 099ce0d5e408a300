"""The console command `qreliab`: everything that needs no test run."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text
from rich_argparse import RichHelpFormatter

from pytest_qreliab._version import __version__
from pytest_qreliab.config.benchmark import RECORDED, Benchmark
from pytest_qreliab.config.document import find, read, shipped
from pytest_qreliab.config.settings import IN_PYTESTS_CACHE, Setting, parse_size, resolve
from pytest_qreliab.config.text_forms import printable
from pytest_qreliab.config.thresholds import Thresholds
from pytest_qreliab.errors import InputError, unknown
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.metrics import registry
from pytest_qreliab.metrics.definitions import ASPECTS
from pytest_qreliab.metrics.names import PRIMARY_SCORE, MetricName
from pytest_qreliab.models import hub
from pytest_qreliab.models import names as models_names
from pytest_qreliab.quantizers.parameters import RoundingParameters, described
from pytest_qreliab.quantizers.recipe import Quantizer, Recipe
from pytest_qreliab.report import downloads
from pytest_qreliab.report.command_output import CommandOutput
from pytest_qreliab.report.formatting import file_size


@dataclass(frozen=True, kw_only=True)
class ListedItem:
    """Something to choose, as `qreliab list` shows it."""

    name: str
    help: str
    details: tuple[str, ...] = ()  # lines below it
    usable: bool = True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `qreliab`.

    Returns:
        0; 1 if data or results are missing, damaged, failed or worse; 2 if an argument cannot be used.
    """
    args = _parser().parse_args(argv)
    try:
        output: CommandOutput = args.run(args)
    except InputError as error:
        print(f"qreliab: error: {error}", file=sys.stderr)
        return 2
    console = Console(highlight=False)
    try:
        for line in output.lines:
            # Lines are cut to a terminal's width, but stay whole for another program to read.
            line.plain = printable(line.plain) if "\n" not in line.plain else line.plain
            for part in _wrapped(line, console.width) if console.is_terminal else [line]:
                console.print(part, soft_wrap=True)
        sys.stdout.flush()
    except BrokenPipeError:  # as `| head` makes it; Python would complain again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return output.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qreliab",
        description="The parts of pytest-qreliab that need no test run. The tests themselves are run with pytest.",
        epilog="Exit codes: 0: success; 1: data or results are missing, damaged, failed or worse; 2: an argument "
        "cannot be used.",
        formatter_class=RichHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"qreliab {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add_command(name: str, help: str, run: Callable[[argparse.Namespace], CommandOutput]) -> ArgumentParser:
        description = f"{help[0].upper()}{help[1:]}."
        command = subparsers.add_parser(name, help=help, description=description, formatter_class=RichHelpFormatter)
        command.set_defaults(run=run)
        return command

    command = add_command("list", "list models, quantizers, benchmarks and metrics", _list)
    command.add_argument("kinds", nargs="*", type=_kind, metavar="KIND", help=f"{', '.join(KINDS)} (default: all)")
    command = add_command("check", "validate benchmarks, thresholds and suites, and count their images", _check)
    command.add_argument("names", nargs="+", metavar="NAME", help="shipped names, or paths of YAML files")
    command.add_argument("--download", action="store_true", help="download what is not here yet from the hub")
    command = add_command("cache", "list, verify or prune the embeddings and images kept for later runs", _cache)
    command.add_argument("action", choices=("list", "verify", "prune"), help="what to do with them")
    command.add_argument(
        "--dir", type=Path, help="the cache folder (default: QRELIAB_CACHE_DIR, else the one in pytest's cache)"
    )
    command.add_argument(
        "--size", default="0MB", help="for prune: keep at most this much, as in 5GB (default: nothing)"
    )
    _add_result_commands(add_command)
    return parser


def _add_result_commands(add_command: Callable[..., ArgumentParser]) -> None:
    """Add the commands that read results files."""
    command = add_command("merge", "merge the results of shards into one table", _merge)
    command.add_argument("files", nargs="+", metavar="FILE", help="results files of --qreliab-json, one per shard")
    command.add_argument("--output", metavar="FILE", help="also write the merged results to FILE, in the same format")
    command = add_command("report", "show results, or write them as HTML, Markdown, CSV or Parquet", _report)
    command.add_argument("results", metavar="RESULTS", help="a results file of --qreliab-json")
    command.add_argument(
        "--output",
        metavar="FILE",
        action="append",
        default=[],
        help="write to FILE, which ends in .html, .md, .csv or .parquet; may be repeated",
    )
    command = add_command("compare", "compare two runs, and exit with 1 if the later one is worse", _compare)
    command.add_argument("before", metavar="BEFORE", help="the results file of the earlier run")
    command.add_argument("after", metavar="AFTER", help="the results file of the later run")
    command.add_argument(
        "--thresholds",
        metavar="NAME",
        default="default",
        help="the max_drift limits to apply: a shipped name, or the path of a YAML file (default: default)",
    )
    command = add_command("accept", "accept results that were measured elsewhere into a snapshot", _accept)
    command.add_argument("results", metavar="RESULTS", help="a results file of --qreliab-json")
    command.add_argument("--snapshot", metavar="DIR", required=True, help="the folder of accepted results")
    command.add_argument(
        "--update", choices=("new", "all"), default="new", help="accept only missing results (new, the default) or all"
    )


def _list(args: argparse.Namespace) -> CommandOutput:
    catalog = Catalog()
    catalog.add_entry_points()
    return CommandOutput([line for kind in args.kinds or KINDS for line in _section(kind, list(KINDS[kind](catalog)))])


def _merge(args: argparse.Namespace) -> CommandOutput:
    from pytest_qreliab.report import commands  # slow to import, and so are the others for results

    return commands.merge(args.files, args.output, **_terminal())


def _report(args: argparse.Namespace) -> CommandOutput:
    from pytest_qreliab.report import commands

    return commands.report(args.results, args.output, **_terminal())


def _compare(args: argparse.Namespace) -> CommandOutput:
    from pytest_qreliab.report import commands

    return commands.compare(args.before, args.after, args.thresholds)


def _accept(args: argparse.Namespace) -> CommandOutput:
    from pytest_qreliab.report import commands

    return commands.accept(args.results, args.snapshot, args.update)


def _terminal() -> dict[str, bool]:
    """Return what the standard output can show."""
    return {"color": sys.stdout.isatty(), "unicode": (sys.stdout.encoding or "").lower().startswith("utf")}


def _cache(args: argparse.Namespace) -> CommandOutput:
    """List, verify or prune the cache. The exit code is 1 if an entry is damaged."""
    from pytest_qreliab.embedding import eviction  # imports NumPy

    folder: Path = args.dir or Path(os.environ.get("QRELIAB_CACHE_DIR") or IN_PYTESTS_CACHE).expanduser()
    if not folder.is_dir():
        raise InputError(f"there is no cache at {folder.absolute()}; name its folder with --dir")
    if args.action == "prune":
        removed = eviction.prune(folder, parse_size(Setting(text=args.size, origin="--size", given=True)))
        left = sum(entry.size for entry in eviction.list_entries(folder))
        return CommandOutput([Text(f"{folder}: {file_size(removed)} removed, {file_size(left)} left")])
    with Console(stderr=True).status(Text(f"reading {folder}")):
        entries = sorted(
            eviction.list_entries(folder, read=True, verify=args.action == "verify"), key=lambda entry: entry.used
        )
    lines = []
    for entry in entries:
        if entry.problem:
            entry.remove()
            lines.append(Text(f"  {entry.path} {entry.problem}; removed", style="red"))
        elif args.action == "list":
            used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
            lines.append(Text(f"  {used}  {file_size(entry.size):>9}  {entry.about}"))
    total = file_size(sum(entry.size for entry in entries))
    damaged = sum(bool(entry.problem) for entry in entries)
    lines.append(Text(f"{folder}: {total}, {damaged} damaged" if damaged else f"{folder}: {total}"))
    return CommandOutput(lines, int(damaged > 0))


def _check(args: argparse.Namespace) -> CommandOutput:
    """Check files. The exit code is 1 if a benchmark lacks images."""
    lines: list[Text] = []
    exit_code = 0
    access = hub.Access(network=args.download, show=downloads.show)
    # Downloads are shown in place of the status.
    with Console(stderr=True, quiet=args.download).status("") as status, hub.access(access):
        for name in args.names:
            status.update(Text(f"checking {name}"))
            kind = _kind_of(name)
            if kind == "thresholds":
                policy = Thresholds.load(name).policy
                text = f"{name}: thresholds for {len(policy.gates)} metrics, {len(policy.overrides)} overrides"
                lines.append(Text(text, style="bold"))
            elif kind == "suites":
                lines += _suite(name)
            else:
                images = _image_sets(Benchmark.load(name))
                lines += images.lines
                exit_code = max(exit_code, images.exit_code)
    return CommandOutput(lines, exit_code)


def _kind_of(name: str) -> str:
    """Return the kind of a shipped file, of recorded outputs, or of a YAML file by its content."""
    if name.startswith(RECORDED):
        return "benchmarks"
    for kind in ("benchmarks", "suites", "thresholds"):
        if name in shipped(kind):
            return kind
    data = read(find("benchmarks", name)).data
    if "gates" in data:
        return "thresholds"
    return "benchmarks" if {"in_distribution", "extends", "classes"} & set(data) else "suites"


def _suite(name: str) -> list[Text]:
    """List the models of a hub that a suite names, after checking all that it names as a run would."""
    from pytest_qreliab.evaluation.planning import make_plan  # imports NumPy, which lists do without

    catalog = Catalog()
    catalog.add_entry_points()
    settings = resolve(lambda ini: name if ini == "qreliab_suite" else None, lambda ini: None)
    plan = make_plan.make_plan(settings, catalog)
    lines = [Text(f"{name}: a suite of {len(plan.cases)} cases", style="bold")]
    for model, description in plan.descriptions.items():
        if (commit := description.facts.get("commit")) is not None:
            lines.append(Text(f"  present  {model}: commit {commit} of {description.facts['repository']}"))
        elif plan.models[model].fetch is not None:
            lines.append(Text(f"  absent   {model}: {description.facts['files']}; a run fetches it", style="yellow"))
    return lines


def _image_sets(benchmark: Benchmark) -> CommandOutput:
    """List the image sets of a benchmark as a run measures on them. The exit code is 1 if one cannot be used."""
    from pytest_qreliab.data import availability  # imports NumPy, which lists do without
    from pytest_qreliab.data.wording import counted

    lines = [Text(f"{benchmark.name}: {benchmark.definition.description}".rstrip(": "), style="bold")]
    try:
        found = availability.check(benchmark)
    except InputError as error:
        return CommandOutput([*lines, Text(f"  wrong    {error}", style="red")], 1)
    for image_set in found.sets:
        if image_set.problem:
            lines.append(Text(f"  missing  {image_set.name}: {image_set.problem}", style="red"))
            continue
        there, published = image_set.found, image_set.expected
        text = f"{image_set.name}: {counted(image_set.images, 'image')}"
        if there is not None and there != image_set.images:
            text += f" of {there:,}"
        if image_set.left_out:
            text += f" ({', '.join(image_set.left_out)})"
        if there is None or published is None or there == published:
            lines.append(Text(f"  present  {text}"))
        else:
            size = "smaller" if there < published else "larger "
            text += f"; {published:,} are published, a run measures on what is there"
            lines.append(Text(f"  {size}  {text}", style="yellow"))
    lines += [Text(f"  warning: {text}", style="yellow") for text in found.warnings]
    return CommandOutput(lines, int(any(image_set.problem for image_set in found.sets)))


def _kind(text: str) -> str:
    if text not in KINDS:
        raise argparse.ArgumentTypeError(str(unknown("kind", text, KINDS)))
    return text


def _section(kind: str, items: list[ListedItem]) -> Iterator[Text]:
    yield Text(kind, style="bold underline")
    width = min(28, max(len(item.name) for item in items))
    for item in items:
        name = (f"  {item.name:<{width}}", "bold" if item.usable else "dim")
        yield Text.assemble(name, (f"  {item.help}", "" if item.usable else "dim"))
        for detail in item.details:
            yield Text(f"      {detail}", style="dim")
    yield Text("")


def _wrapped(line: Text, width: int) -> list[Text]:
    """Cut a line into parts that fit a width, and indent the later ones."""
    indent = len(line.plain) - len(line.plain.lstrip()) + 4
    parts = textwrap.wrap(
        line.plain, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
    if len(parts) < 2:
        return [line]
    rest = [Text(part, style=line.style) for part in parts[1:]]
    return [line[: len(parts[0])], *rest]


def _models(catalog: Catalog) -> Iterator[ListedItem]:
    from pytest_qreliab.models import openclip

    yield ListedItem(
        name=models_names.TINY_DIGITS, help="a small CLIP of handwritten digits that comes with the package"
    )
    for name, registered in sorted(catalog.models.items()):
        yield ListedItem(name=name, help=registered.help or "registered by a package")
    # The tags are in open_clip's code, which imports torch. Nothing else here does.
    for architecture, tags in openclip.tags().items():
        yield ListedItem(name=architecture, help=", ".join(tags) or "no hub weights: give ARCH/CHECKPOINT")
    yield ListedItem(name="hf-hub:ORG/NAME@REV", help="an open_clip model of a Hugging Face hub; without @REV, main")
    yield ListedItem(name="local-dir:PATH", help="a folder with open_clip_config.json and a checkpoint")


def _quantizers(catalog: Catalog) -> Iterator[ListedItem]:
    for quantizer in catalog.quantizers.values():
        details = [_abilities(quantizer)]
        if parameters := _parameters(quantizer):
            details.append(f"parameters: {parameters}")
        if missing := quantizer.missing():
            how = f"pip install 'pytest-qreliab[{quantizer.extra}]'" if quantizer.extra else "install it"
            details.append(f"not usable here, {', '.join(missing)} is missing: {how}")
        yield ListedItem(name=quantizer.name, help=quantizer.help, details=tuple(details), usable=not missing)


def _parameters(quantizer: Quantizer) -> str:
    """Describe the parameters of a quantizer, without those that most share with `minmax`."""
    names = described(quantizer.parameters)
    shared = described(RoundingParameters)
    if quantizer.parameters is not RoundingParameters and issubclass(quantizer.parameters, RoundingParameters):
        names = [*(name for name in names if name not in shared), "and those of minmax"]
    elif quantizer.parameters is RoundingParameters and quantizer.name != "minmax":
        names = ["those of minmax"]
    return ", ".join(names)


def _abilities(quantizer: Quantizer) -> str:
    if quantizer.read_bits is not None:
        return "bits: those of the file; needs no calibration data; what it covers is shown"
    recipe = Recipe(name=quantizer.name, quantizer=quantizer)
    bare = next(n for n in (4, 8, 1) if any(text.startswith(f"w{n}") for text in quantizer.bits or ("w4",)))
    default = recipe.bits(bare, "both")
    needs = {
        "nothing": "no calibration data",
        "ranges": "calibration images for static activation ranges",
        "images": "calibration images",
        "both": "calibration images",
        "pairs": "image-caption pairs or labelled calibration images",
    }[quantizer.needs]
    what = "" if quantizer.convolutions else " of the matrix products"
    return f"bits: {quantizer.formats} ({bare} is {default}); needs {needs}; covers {quantizer.coverage:.0%}{what}"


def _benchmarks(catalog: Catalog) -> Iterator[ListedItem]:
    for name in shipped("benchmarks"):
        benchmark = Benchmark.load(name)
        aspects = [aspect for aspect in ASPECTS if aspect in benchmark.aspects]
        details = (f"measures {', '.join(aspects)}",)
        yield ListedItem(name=name, help=benchmark.definition.description, details=details)
    yield ListedItem(name="PATH.yaml", help="a benchmark of your own")


def _metrics(catalog: Catalog) -> Iterator[ListedItem]:
    for name in registry.names():
        metric, parsed = registry.lookup(name), MetricName.parse(name)
        if parsed.score and name == str(parsed):  # the scores are listed once, below
            continue
        better = "any change is harm" if metric.better == "neither" else f"{metric.better} is better"
        yield ListedItem(name=name, help=f"{metric.aspect}, {better}: {metric.help}")
    scores = f"by the score {', '.join(registry.OOD_SCORES)}; {PRIMARY_SCORE} where none is named"
    yield ListedItem(name="ood.NAME.SCORE", help=scores)
    yield ListedItem(name="ood.NAME.SCORE.SET", help="of one OOD set in place of the mean over all")
    yield ListedItem(name="spectral.NAME.N", help="high_band_energy and map_error after block N of the image tower")
    yield ListedItem(
        name="spectral.NAME.penultimate", help="of what the last projection reads; spectral.NAME.text: of the classes"
    )


KINDS = {"quantizers": _quantizers, "benchmarks": _benchmarks, "metrics": _metrics, "models": _models}


if __name__ == "__main__":
    sys.exit(main())
