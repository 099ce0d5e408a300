"""The settings of a run: the table of options, and their resolution.

A setting comes from the first of these that has it: command line, environment, ini file, default. Relative paths of an
ini file start in its folder, all others in the working directory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_qreliab.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option, known as `--qreliab-NAME`, `QRELIAB_NAME` and ini `qreliab_NAME`."""

    name: str
    default: str
    metavar: str  # the placeholder for its value in the help
    help: str
    plan: bool = True  # whether it changes what is measured; setting only others makes no plan

    @property
    def flag(self) -> str:
        """The option of the command line."""
        return f"--qreliab-{self.name.replace('_', '-')}"

    @property
    def env(self) -> str:
        """The environment variable."""
        return f"QRELIAB_{self.name.upper()}"

    @property
    def ini(self) -> str:
        """The key in pytest's ini file."""
        return f"qreliab_{self.name}"


NO_SUITE = "none"

OPTIONS = (
    Option(
        name="suite",
        default=NO_SUITE,
        metavar="FILE",
        help="take the options that are not given from a suite: a shipped name, or the path of a YAML file",
    ),
    Option(
        name="models",
        default="tiny-digits",
        metavar="A,B",
        help="models to test: tiny-digits (shipped), ARCH/TAG or ARCH/CHECKPOINT of open_clip, "
        "hf-hub:ORG/NAME@REVISION or local-dir:PATH",
    ),
    Option(
        name="quantizers",
        default="minmax",
        metavar="A,B",
        help="quantizers to test, as listed by `qreliab list quantizers`; NAME+rescale also refits the logit scale",
    ),
    Option(
        name="bits",
        default="4,8",
        metavar="A,B",
        help="formats: w4 for weights, w4a8 for activations too, w4g128, fp8, mxfp4, ...; 4: the quantizer's default",
    ),
    Option(name="scopes", default="both", metavar="A,B", help="towers to quantize: vision, text or both"),
    Option(
        name="benchmarks",
        default="digits",
        metavar="A,B",
        help="benchmarks to measure on: shipped names, or paths of YAML files",
    ),
    Option(
        name="thresholds",
        default="default",
        metavar="NAME",
        help="the thresholds of the gates: a shipped name, or the path of a YAML file",
    ),
    Option(
        name="controls",
        default="none",
        metavar="MATCH",
        help="explain changes by low-rank and noise controls with the case's weight error (weights) or feature "
        "SQNR (features); none: no controls",
    ),
    Option(
        name="figures",
        default="none",
        metavar="DIR",
        help="write figures of each case to DIR, which needs pytest-qreliab[report]; none: no figures",
    ),
    Option(
        name="device",
        default="auto",
        metavar="DEVICE",
        help="the device to run on: auto (a GPU if there is one), cpu, cuda, cuda:N or mps",
    ),
    Option(
        name="compile",
        default="no",
        metavar="yes|no",
        help="compile the transformer blocks of open_clip models with torch.compile, which takes a while at first",
    ),
    Option(
        name="deterministic",
        default="no",
        metavar="yes|no",
        help="quantize and measure with one attention kernel, one thread and deterministic algorithms, so that no last "
        "bit depends on the number of cores",
    ),
    Option(
        name="cache_dir",
        default="auto",
        metavar="DIR",
        help="where to keep embeddings and decoded images for later runs: auto (in pytest's cache), a folder or none",
        plan=False,
    ),
    Option(
        name="cache_size",
        default="20GB",
        metavar="SIZE",
        help="the largest size of the cache; entries unused for longest are removed first",
        plan=False,
    ),
    Option(
        name="shard",
        default="none",
        metavar="K/N",
        help="run part K of N of the quantized models, to spread them over N machines; none: run all",
    ),
    Option(
        name="snapshot",
        default="none",
        metavar="DIR",
        help="compare the results with the accepted ones in DIR; none: no comparison",
    ),
    Option(
        name="update",
        default="none",
        metavar="new|all",
        help="accept results into the snapshot: only missing ones (new) or all; in CI write new,ci or all,ci; "
        "none: accept nothing",
    ),
    Option(
        name="json",
        default="none",
        metavar="FILE",
        help="write the results to FILE, for the command `qreliab` to read; none: no file",
    ),
    Option(name="html", default="none", metavar="FILE", help="write an HTML report to FILE; none: no report"),
)

# These belong to one run on one machine: the command that repeats a result leaves them out.
RUN_ONLY = ("shard", "update", "json", "html")
SELF_CHECK = "--qreliab-aa"
TESTPATHS_INI = "qreliab_testpaths"
IN_PYTESTS_CACHE = ".pytest_cache/d/qreliab"  # where `cache_dir` auto points, unless pytest's own cache is moved


@dataclass(frozen=True)
class SettingValue:
    """A value of a setting."""

    text: str
    origin: str  # the option, variable, ini key, or file and line that it comes from, for error messages
    folder: Path | None = None  # where a relative path in it starts; None: in the working directory

    def path(self) -> Path:
        """Return the path that the value names, relative only to the working directory."""
        return (self.folder or Path()) / Path(self.text).expanduser()


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A resolved option."""

    text: str
    origin: str  # the option, variable or ini key that it comes from, for error messages
    given: bool  # False for a default
    folder: Path | None = None  # where a relative path in it starts; None: in the working directory

    def values(self, *, many: bool) -> list[SettingValue]:
        """Return the values in the text, stripped and in order.

        Args:
            many: Whether commas or line ends separate several values. Otherwise the whole text is one value.

        Raises:
            InputError: There is no value in the text.
        """
        texts = [text.strip() for text in (re.split(r"[,\n]", self.text) if many else [self.text]) if text.strip()]
        if not texts:
            raise InputError(f"{self.origin}: is empty; give at least one value")
        return [SettingValue(text, self.origin, self.folder) for text in texts]


def parse_size(setting: Setting) -> float:
    """Return a size such as 500MB or 20GB in bytes.

    Units are powers of 1024, with or without an `i`: MB and MiB are the same.

    Raises:
        InputError: The text is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(k|M|G|T)i?B", setting.text.strip(), re.IGNORECASE)
    if match is None:
        raise InputError(f"{setting.origin}: {setting.text!r} is no size; write 500MB or 20GB")
    return float(match[1]) * 1024.0 ** (" kMGT".lower().index(match[2].lower()))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a run, one for each of `OPTIONS`."""

    suite: Setting
    models: Setting
    quantizers: Setting
    bits: Setting
    scopes: Setting
    benchmarks: Setting
    thresholds: Setting
    controls: Setting
    figures: Setting
    device: Setting
    compile: Setting
    deterministic: Setting
    cache_dir: Setting
    cache_size: Setting
    shard: Setting
    snapshot: Setting
    update: Setting
    json: Setting
    html: Setting

    def __iter__(self) -> Iterator[Setting]:
        return (getattr(self, option.name) for option in OPTIONS)

    @property
    def given(self) -> bool:
        """True if the user set any option that changes what is measured."""
        return any(getattr(self, option.name).given for option in OPTIONS if option.plan)


def _resolve(option: Option, cli: str | None, ini: object, folder: Path | None) -> Setting:
    # An empty variable is how CI systems write an absent one, and an absent ini setting reads as "".
    if cli is not None:
        return Setting(text=cli, origin=option.flag, given=True)
    if environment := os.environ.get(option.env):
        return Setting(text=environment, origin=option.env, given=True)
    if ini is None or ini == "":
        return Setting(text=option.default, origin=option.flag, given=False)
    origin = f"ini {option.ini}"
    return Setting(text=_ini_text(ini, origin), origin=origin, given=True, folder=folder)


def _ini_text(value: object, origin: str) -> str:
    """Return the text of an ini value, which TOML users may write as a list, a truth value or a whole number."""
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | int) for item in items):
        raise InputError(f'{origin}: {value!r} is no text; write "w4,w8" or ["w4", "w8"], in TOML also true or false')
    return ",".join(str(item) if not isinstance(item, bool) else "yes" if item else "no" for item in items)


def resolve(
    getoption: Callable[[str], str | None], getini: Callable[[str], object], folder: Path | None = None
) -> Settings:
    """Resolve each setting from the first source that has it.

    Args:
        getoption: Returns the value of a command-line option by its ini name; None if it is not given.
        getini: Returns the value of an ini key, as a TOML file may have it; None or "" if it is not given.
        folder: The folder of the ini file.

    Raises:
        InputError: The value of an ini key is neither text nor a list of texts.
    """
    return Settings(**{o.name: _resolve(o, getoption(o.ini), getini(o.ini), folder) for o in OPTIONS})
