"""The plan: the settings turned into cases and gates, all checked before any model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pytest_qreliab import models
from pytest_qreliab.cases import Bits, Case, expand, parse_scope
from pytest_qreliab.catalog import Catalog
from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.config.thresholds import Gate, Thresholds
from pytest_qreliab.data import benchmark as data
from pytest_qreliab.errors import InputError
from pytest_qreliab.options import Setting, Settings
from pytest_qreliab.quantizers import Recipe


@dataclass(frozen=True)
class Plan:
    """What a run may do: its cases in order, the recipes of their quantizers, the gates of each case, and each
    benchmark's data, not yet decoded."""

    cases: tuple[Case, ...]
    recipes: Mapping[str, Recipe]
    gates: Mapping[Case, tuple[Gate, ...]]
    data: Mapping[str, data.Data]
    thresholds: Thresholds
    device: str

    @property
    def alpha(self) -> float:
        """One-sided error probability of each interval: Bonferroni's share over all gates of the plan.

        The plan counts, not what -k or --lf leave of it, so that repeating one test repeats its verdict.
        """
        total = sum(len(gates) for gates in self.gates.values())
        return (1 - self.thresholds.policy.confidence) / total

    def tested(self, case: Case, aspect: str) -> bool:
        """Whether any gate of the case is of that aspect."""
        return any(gate.aspect == aspect for gate in self.gates[case])

    def untested(self) -> dict[str, list[str]]:
        """For each benchmark, the metrics that the thresholds gate and that it has no images for."""
        left_out: dict[str, list[str]] = {}
        for case in self.cases:
            kept = {gate.metric for gate in self.gates[case]}
            gated = {gate.metric for gate in self.thresholds.gates(case)}
            if gated - kept:
                left_out[case.benchmark] = sorted(gated - kept)
        return left_out


def make(settings: Settings, catalog: Catalog) -> Plan:
    """The plan of the settings. Raises InputError that names the option or the file and line at fault."""
    model_names = _checked(settings.models, _check_model)
    recipes = {recipe.name: recipe for recipe in _checked(settings.quantizers, catalog.recipe)}
    parsed = _checked(settings.bits, Bits.parse)
    scopes = _checked(settings.scopes, parse_scope)
    benchmarks = _benchmarks(settings.benchmarks)
    (thresholds,) = _checked(settings.thresholds, Thresholds.load, many=False)
    (device,) = _checked(settings.device, check_device, many=False)
    quantizations = dict.fromkeys(
        (recipe.name, bits, recipe.needs(bits) != "nothing")
        for recipe in recipes.values()
        for bits in _named(settings.bits, recipe.bits, parsed)
    )
    image_sets = {name: data.load(benchmark) for name, benchmark in benchmarks.items()}
    cases = expand(model_names, quantizations, scopes, benchmarks)
    by_id: dict[str, Case] = {}
    for case in cases:
        if by_id.setdefault(case.id, case) != case:
            one, other = by_id[case.id].build.model, case.build.model
            raise InputError(
                f"the models {one!r} and {other!r} share the test name {case.id!r}; rename one of the files"
            )
    gates = {}
    for case in cases:
        benchmark = benchmarks[case.benchmark]
        _check_calibration(case, recipes[case.build.quantizer], benchmark, image_sets[case.benchmark])
        gates[case] = tuple(gate for gate in thresholds.gates(case) if gate.aspect in benchmark.aspects)
        if not gates[case]:
            raise InputError(
                f"{thresholds.document.where(('gates',))}: none of the gates is on anything that "
                f"{benchmark.where(())} measures ({', '.join(sorted(benchmark.aspects))})"
            )
    return Plan(tuple(cases), recipes, gates, image_sets, thresholds, device)


def _check_calibration(case: Case, recipe: Recipe, benchmark: Benchmark, images: data.Data) -> None:
    """Raise InputError if the benchmark has not the calibration data that the case's quantizer needs."""
    bits = case.build.bits
    needs = recipe.needs(bits)
    if needs == "images" and case.build.scope == "text":  # the text tower's ranges come from the prompts alone
        return
    if needs != "nothing" and images.calibration is None:
        mend = f"add `calibration:` to {benchmark.where(())}"
        if recipe.needs(Bits(bits.weights)) == "nothing":
            mend += f", or quantize weights only, as in --qreliab-bits=w{bits.weights}"
        raise InputError(f"{case.id}: {case.quantization} needs calibration images; {mend}")
    if needs == "pairs" and (images.calibration is None or images.calibration.labels is None):
        raise InputError(
            f"{case.id}: {case.quantization} needs calibration images with labels; at "
            f"{benchmark.where(('calibration',))} give a source of the benchmark's classes: digits, or an "
            "image-folder with the same folder names"
        )


Item = TypeVar("Item")
Value = TypeVar("Value")


def _checked(setting: Setting, parse: Callable[[str], Value], *, many: bool = True) -> list[Value]:
    """Every item of a setting, parsed; an error is put behind the setting's name."""
    items = setting.items() if many else [setting.text.strip()] * bool(setting.text.strip())
    if not items:
        raise InputError(f"{setting.origin}: is empty; give at least one value")
    return _named(setting, parse, items)


def _named(setting: Setting, parse: Callable[[Item], Value], items: list[Item]) -> list[Value]:
    """Every item of a setting, parsed; an error is put behind the setting's name."""
    try:
        return [parse(item) for item in items]
    except InputError as error:
        raise InputError(f"{setting.origin}: {error}") from None


def _check_model(name: str) -> str:
    models.check(name)
    return name


def _benchmarks(setting: Setting) -> dict[str, Benchmark]:
    found: dict[str, Benchmark] = {}
    for benchmark in _checked(setting, Benchmark.load):
        if benchmark.name in found:
            raise InputError(f"{setting.origin}: two benchmarks are called {benchmark.name!r}; rename one file")
        found[benchmark.name] = benchmark
    return found


def check_device(text: str) -> str:
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`; raises InputError for another, or for one this machine lacks."""
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
