"""The options: one table, and their precedence: command line, environment, ini, default."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_qreliab.errors import InputError


@dataclass(frozen=True)
class Option:
    """One setting, known as `--qreliab-NAME`, `QRELIAB_NAME` and ini `qreliab_NAME`.

    One that is not of the `plan` changes nothing of what is measured, and makes no plan where it alone is set.
    """

    name: str
    default: str
    metavar: str
    help: str
    plan: bool = True

    @property
    def flag(self) -> str:
        return f"--qreliab-{self.name.replace('_', '-')}"

    @property
    def env(self) -> str:
        return f"QRELIAB_{self.name.upper()}"

    @property
    def ini(self) -> str:
        return f"qreliab_{self.name}"


NO_SUITE = "none"

OPTIONS = (
    Option("suite", NO_SUITE, "FILE", "a YAML file with values for the options below, where they are not given"),
    Option(
        "models",
        "tiny-digits",
        "A,B",
        "models: tiny-digits (embedded), ARCH/TAG or ARCH/CHECKPOINT of open_clip, hf-hub:ID, local-dir:PATH",
    ),
    Option("quantizers", "minmax", "A,B", "quantizers, as `qreliab list quantizers` shows them; NAME+rescale"),
    Option("bits", "4,8", "A,B", "bit widths: 4 (the quantizer's own default), w4 or w4a8; 2 to 8 each"),
    Option("scopes", "both", "A,B", "towers to quantize: vision, text, both"),
    Option("benchmarks", "digits", "A,B", "benchmarks: shipped names, or paths of YAML files"),
    Option("thresholds", "default", "NAME", "gate policy: a shipped name, or the path of a YAML file"),
    Option(
        "controls",
        "none",
        "MATCH",
        "beside every case a low-rank and a noise control that match its weights' error (weights) or its features' "
        "SQNR (features), and what they say of why it moved; none",
    ),
    Option("figures", "none", "DIR", "a folder for figures of every case, which needs pytest-qreliab[report]; none"),
    Option("device", "auto", "DEVICE", "auto (a GPU where there is one), cpu, cuda, cuda:N or mps"),
    Option("compile", "no", "yes|no", "compile the blocks of open_clip's towers by torch.compile: slower at first"),
    Option(
        "cache_dir",
        "auto",
        "DIR",
        "where embeddings and decoded images are kept for later runs: auto (in pytest's cache), a folder, or none",
        plan=False,
    ),
    Option("cache_size", "20GB", "SIZE", "what is kept at most; those unused for longest go first", plan=False),
    Option("shard", "none", "K/N", "run part K of N of the quantized models, as one of N machines; none"),
    Option("snapshot", "none", "DIR", "a folder of accepted results that this run's are held against; none"),
    Option(
        "update",
        "none",
        "new|all",
        "accept results into the snapshot: those that it has not (new), or all; in CI new,ci or all,ci; none",
    ),
    Option("json", "none", "FILE", "a file for the results, which the command `qreliab` reads; none"),
    Option("html", "none", "FILE", "a file for a report to look at; none"),
)

# Of one run on one machine, and not of what is repeated elsewhere.
OF_A_RUN = ("shard", "update", "json", "html")
SELF_CHECK = "--qreliab-aa"
TESTPATHS_INI = "qreliab_testpaths"
IN_PYTESTS_CACHE = ".pytest_cache/d/qreliab"  # what `cache_dir` auto is, where pytest's own cache is not moved


@dataclass(frozen=True)
class SettingValue:
    """One value of a setting, where it was written, and the folder that a relative path in it starts in."""

    text: str
    origin: str
    folder: Path | None = None


@dataclass(frozen=True)
class Setting:
    """A resolved option: its text and where it came from, for error messages."""

    text: str
    origin: str
    given: bool

    def values(self, *, many: bool) -> list[SettingValue]:
        """The text, or its comma-separated items, stripped, in the order given. Raises InputError for none."""
        texts = [text.strip() for text in (self.text.split(",") if many else [self.text]) if text.strip()]
        if not texts:
            raise InputError(f"{self.origin}: is empty; give at least one value")
        return [SettingValue(text, self.origin) for text in texts]


def size_of(setting: Setting) -> float:
    """Bytes of a size such as 500MB or 20GB. Raises InputError for another text."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(k|M|G|T)i?B", setting.text.strip(), re.IGNORECASE)
    if found is None:
        raise InputError(f"{setting.origin}: {setting.text!r} is no size; write 500MB or 20GB")
    return float(found[1]) * 1024.0 ** (" kMGT".lower().index(found[2].lower()))


@dataclass(frozen=True)
class Settings:
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
        """Whether the user set any of the plan, anywhere."""
        return any(getattr(self, option.name).given for option in OPTIONS if option.plan)


def _resolve(option: Option, cli: str | None, ini: str | None) -> Setting:
    # An empty variable is how CI systems write an absent one, and an absent ini setting reads as "".
    environment = os.environ.get(option.env) or None
    candidates = ((cli, option.flag), (environment, option.env), (ini or None, f"ini {option.ini}"))
    for text, origin in candidates:
        if text is not None:
            return Setting(text, origin, given=True)
    return Setting(option.default, option.flag, given=False)


def resolve(getoption: Callable[[str], str | None], getini: Callable[[str], str | None]) -> Settings:
    """Settings of this run, each from its first source that is set: command line, environment, ini, default."""
    return Settings(**{o.name: _resolve(o, getoption(o.ini), getini(o.ini)) for o in OPTIONS})
