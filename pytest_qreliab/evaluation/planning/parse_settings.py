"""Parse the settings of a run, one by one, before they are checked against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from pytest_qreliab.config import suite as suites
from pytest_qreliab.config.benchmark import RECORDED, Benchmark
from pytest_qreliab.config.cases import Case, Quantization, parse_scope
from pytest_qreliab.config.document import Location
from pytest_qreliab.config.formats import Format
from pytest_qreliab.config.settings import NO_SUITE, Setting, Settings, SettingValue
from pytest_qreliab.config.suite import Suite, Variant
from pytest_qreliab.config.thresholds import Match, Thresholds
from pytest_qreliab.data import recorded
from pytest_qreliab.data.recording import Recording
from pytest_qreliab.errors import InputError, unknown
from pytest_qreliab.evaluation.planning import recorded_checks
from pytest_qreliab.evaluation.planning.catalog import Catalog, anchor
from pytest_qreliab.models.loading import Loader
from pytest_qreliab.quantizers.parameters import Artifact
from pytest_qreliab.quantizers.recipe import Recipe

# Settings of one value, which may hold a comma.
SINGLE = ("thresholds", "controls", "figures", "device", "deterministic")

Arguments = ParamSpec("Arguments")
Parsed = TypeVar("Parsed")


class ThresholdsByCase:
    """The thresholds of each case: those of the first group that matches it, or those of the run."""

    def __init__(self, default: SettingValue, groups: Sequence[tuple[Match, SettingValue]]) -> None:
        def load(value: SettingValue) -> Thresholds:
            return _parse(value, Thresholds.load, value.text, value.folder)

        self._default, self._groups = load(default), [(match, load(value)) for match, value in groups]

    def __getitem__(self, case: Case) -> Thresholds:
        return next((thresholds for match, thresholds in self._groups if match.matches(case)), self._default)


@dataclass(frozen=True, kw_only=True)
class ParsedSettings:
    """The parsed settings of a run."""

    suite: Suite | None
    recordings: Mapping[str, Recording]  # by the name of the model or quantizer, `recorded:PATH`
    models: Mapping[str, Loader]
    recipes: Mapping[str, Recipe]  # by the name of the quantizer
    benchmarks: Mapping[str, Benchmark]
    thresholds: ThresholdsByCase
    controls: str
    figures: Path | None
    device: str
    compiled: bool
    deterministic: bool
    quantizations: Sequence[Quantization]  # distinct and in order


def parse_settings(settings: Settings, catalog: Catalog) -> ParsedSettings:
    """Parse the settings of a run, and those of its suite.

    Args:
        settings: The settings. Those that are given take the place of the suite's.
        catalog: The names of quantizers and models.

    Raises:
        InputError: A value cannot be used. The message names the option, or the file and line.
    """
    suite = _load_suite(settings.suite)
    if suite is not None:
        catalog = catalog.with_variants(suite_variants(suite, catalog))

    def values(axis: str) -> list[SettingValue]:
        return _axis_values(getattr(settings, axis), suite, axis)

    models, quantizers = values("models"), values("quantizers")
    recordings = {
        value.text: _parse(value, recorded.load, value.text, value.folder)
        for value in [*models, *quantizers]
        if value.text.startswith(RECORDED)
    }
    loaders = {value.text: _loader(value, catalog, recordings.get(value.text)) for value in models}
    recipes = [(value, _recipe(value, catalog, recordings.get(value.text))) for value in quantizers]
    bits = [(value, _parse(value, Format.parse, value.text)) for value in values("bits")]
    scopes = [_parse(value, parse_scope, value.text) for value in values("scopes")]
    groups = [] if suite is None or settings.thresholds.given else suite.groups()
    benchmarks = _load_benchmarks(values("benchmarks"))
    thresholds = ThresholdsByCase(values("thresholds")[0], groups)
    (controls,), (figures,), (device,) = values("controls"), values("figures"), values("device")
    (compiled,), (deterministic,) = settings.compile.values(many=False), values("deterministic")
    return ParsedSettings(
        suite=suite,
        recordings=recordings,
        models=loaders,
        recipes={recipe.name: recipe for _, recipe in recipes},
        benchmarks=benchmarks,
        thresholds=thresholds,
        controls=_parse(controls, _controls, controls.text),
        figures=_parse(figures, _figures, figures),
        device=_parse(device, _device, device.text),
        compiled=_parse(compiled, _yes, compiled.text),
        deterministic=_parse(deterministic, _yes, deterministic.text),
        quantizations=_quantizations(recipes, bits, scopes),
    )


def suite_variants(suite: Suite, catalog: Catalog) -> list[Recipe]:
    """Return the quantizers that a suite defines.

    Args:
        suite: The suite.
        catalog: The quantizers that have a name already.

    Raises:
        InputError: A variant has a name that is taken, or wrong parameters. The message has file and line.
    """
    recipes: dict[str, tuple[Recipe, Location]] = {}
    for index, entry in enumerate(suite.definition.quantizers or ()):
        if not isinstance(entry, Variant):
            continue
        at: Location = ("quantizers", index)
        if entry.name in catalog.quantizers:
            raise InputError(
                f"{suite.document.where((*at, 'name'))}: {entry.name!r} is a quantizer's own name; give the variant "
                f"another, as in {entry.name}-2"
            )
        if entry.name in recipes:
            first = suite.document.where((*recipes[entry.name][1], "name"))
            raise InputError(
                f"{suite.document.where((*at, 'name'))}: there is a variant {entry.name!r} already, at {first}"
            )
        try:
            quantizer = catalog.quantizer(entry.quantizer)
        except InputError as error:
            raise InputError(f"{suite.document.where((*at, 'quantizer'))}: {error}") from None
        extra: Mapping[str, Any] = entry.model_extra or {}
        parameters = suite.document.validate(quantizer.parameters, dict(extra), at)
        if isinstance(parameters, Artifact):
            parameters = Artifact(path=anchor(parameters.path, suite.document.path.parent))
        recipes[entry.name] = Recipe(name=entry.name, quantizer=quantizer, parameters=parameters), at
    return [recipe for recipe, _ in recipes.values()]


def _parse(
    value: SettingValue, parse: Callable[Arguments, Parsed], *args: Arguments.args, **options: Arguments.kwargs
) -> Parsed:
    """Call `parse`, and put the place that the value was written in before its errors."""
    try:
        return parse(*args, **options)
    except InputError as error:
        raise InputError(f"{value.origin}: {error}") from None


def _load_suite(setting: Setting) -> Suite | None:
    (value,) = setting.values(many=False)
    return None if value.text == NO_SUITE else Suite.load(_parse(value, suites.find, value.text, value.folder))


def _axis_values(setting: Setting, suite: Suite | None, axis: str) -> list[SettingValue]:
    """Return the distinct values of a setting, those of the suite if the setting is not given."""
    in_suite = [] if suite is None or setting.given else suite.values(axis)
    values = in_suite or setting.values(many=axis not in SINGLE)
    return list({value.text: value for value in values}.values())


def _loader(value: SettingValue, catalog: Catalog, recording: Recording | None) -> Loader:
    """Return what loads a model; for recorded outputs, the model that they name."""
    if recording is None:
        return _parse(value, catalog.model, value.text, value.folder)
    if recording.model is None:
        loader = Loader(load=partial(recorded_checks.refuse_to_load, value.text))
    else:
        loader = _parse(value, catalog.model, recording.model, value.folder)
    return replace(loader, describe=partial(recorded_checks.describe, recording, loader.describe))


def _recipe(value: SettingValue, catalog: Catalog, recording: Recording | None) -> Recipe:
    """Return the recipe of a quantizer; for recorded outputs it knows nothing but their bits."""
    if recording is None:
        return _parse(value, catalog.recipe, value.text, value.folder)
    return recorded_checks.make_recipe(value.text, recording)


def _load_benchmarks(values: Sequence[SettingValue]) -> dict[str, Benchmark]:
    benchmarks: dict[str, Benchmark] = {}
    for value in values:
        benchmark = _parse(value, Benchmark.load, value.text, value.folder)
        if benchmark.name in benchmarks:
            raise InputError(f"{value.origin}: two benchmarks are called {benchmark.name!r}; rename one file")
        benchmarks[benchmark.name] = benchmark
    return benchmarks


def _quantizations(
    recipes: Sequence[tuple[SettingValue, Recipe]],
    widths: Sequence[tuple[SettingValue, Format | int]],
    scopes: Sequence[str],
) -> list[Quantization]:
    """Return every quantizer at every bit width and scope, without duplicates."""
    return list(
        dict.fromkeys(
            Quantization(quantizer=recipe.name, bits=bits, scope=scope, needs_data=recipe.needs(bits) != "nothing")
            for named, recipe in recipes
            for value, width in widths
            for scope in scopes
            for bits in [_parse(named if recipe.quantizer.read_bits else value, recipe.bits, width, scope)]
        )
    )


def _controls(text: str) -> str:
    valid = ("none", "weights", "features")
    if text not in valid:
        raise unknown("match of controls", text, valid)
    return text


def _figures(value: SettingValue) -> Path | None:
    if value.text == "none":
        return None
    path = value.path().absolute()
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; give a folder, which need not exist yet")
    if find_spec("matplotlib") is None:
        raise InputError("drawing figures needs pip install 'pytest-qreliab[report]'")
    return path


def _yes(text: str) -> bool:
    answer = {"true": "yes", "false": "no"}.get(text.lower(), text)  # as pytest spells what TOML has
    if answer not in ("yes", "no"):
        raise unknown("answer", text, ("yes", "no"))
    return answer == "yes"


def _device(text: str) -> str:
    kind, _, index = text.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (index and (kind != "cuda" or not index.isdecimal())):
        raise InputError(f"unknown device {text!r}; valid: auto, cpu, cuda, cuda:N, mps")
    if kind in ("cuda", "mps"):
        import torch

        if kind == "mps" and not torch.backends.mps.is_available():
            raise InputError("device 'mps' is not there; use auto or cpu")
        count = torch.cuda.device_count()
        if kind == "cuda" and int(index or 0) >= count:
            there = f"this machine has cuda:0 to cuda:{count - 1}" if count else "no CUDA device was found"
            raise InputError(f"device {text!r} is not there: {there}; use auto or cpu")
    return text
