"""The plan: the settings turned into cases and gates, all checked before any model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from pytest_qreliab.config import suite as suites
from pytest_qreliab.config.benchmark import RECORDED, Benchmark
from pytest_qreliab.config.cases import Bits, Case, expand, parse_scope
from pytest_qreliab.config.document import Location
from pytest_qreliab.config.settings import NO_SUITE, Setting, Settings, SettingValue
from pytest_qreliab.config.suite import Suite, Variant
from pytest_qreliab.config.thresholds import Gate, Match, Thresholds
from pytest_qreliab.data import dataset, loading, recorded
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.data.recording import Recording
from pytest_qreliab.errors import InputError, unknown
from pytest_qreliab.evaluation.planning import recorded_checks
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.evaluation.planning.plan import Plan
from pytest_qreliab.metrics import registry
from pytest_qreliab.models.loading import Loader
from pytest_qreliab.quantizers.recipe import Recipe

FEWEST_HELD_OUT = 25  # images that one number can be fitted on
LABELLED = "give a source of the benchmark's classes: digits, or an image-folder with the same folder names"


def make_plan(settings: Settings, catalog: Catalog, *, with_drift: bool = False) -> Plan:
    """Return the plan of the settings, with the gates on drift if `with_drift`.

    Raises InputError that names the option, or the file and line, at fault.
    """
    suite = _suite(settings.suite)
    if suite is not None:
        catalog = catalog.with_variants(suite_variants(suite, catalog))

    def values(axis: str) -> list[SettingValue]:
        setting: Setting = getattr(settings, axis)
        of_suite = [] if suite is None or setting.given else suite.values(axis)
        found = of_suite or setting.values(many=axis not in ("thresholds", "controls", "figures", "device"))
        return list({value.text: value for value in found}.values())

    recordings = {
        v.text: _checked(v, recorded.load, v.text, v.folder)
        for v in [*values("models"), *values("quantizers")]
        if v.text.startswith(RECORDED)
    }
    loaders = {v.text: _loader(v, catalog, recordings.get(v.text)) for v in values("models")}
    chosen = [(v, _recipe(v, catalog, recordings.get(v.text))) for v in values("quantizers")]
    recipes = {recipe.name: recipe for _, recipe in chosen}
    parsed = [(v, _checked(v, Bits.parse, v.text)) for v in values("bits")]
    scopes = [_checked(v, parse_scope, v.text) for v in values("scopes")]
    benchmarks = _benchmarks(values("benchmarks"))
    policies = _Policies(values("thresholds")[0], [] if suite is None or settings.thresholds.given else suite.groups())
    (controls,) = (_checked(v, check_controls, v.text) for v in values("controls"))
    (figures,) = (_checked(v, check_figures, v) for v in values("figures"))
    (device,) = (_checked(v, check_device, v.text) for v in values("device"))
    (compiled,) = (_checked(v, check_yes, v.text) for v in settings.compile.values(many=False))
    quantizations = dict.fromkeys(
        (recipe.name, bits, scope, recipe.needs(bits) != "nothing")
        for named, recipe in chosen
        for value, width in parsed
        for scope in scopes
        for bits in [_checked(named if recipe.quantizer.read_bits else value, recipe.bits, width, scope)]
    )
    image_sets = {name: loading.load(benchmark) for name, benchmark in benchmarks.items()}
    cases = expand(loaders, quantizations, benchmarks)
    if suite is not None:
        cases = suite.excluded(cases)
    by_id: dict[str, Case] = {}
    for case in cases:
        if by_id.setdefault(case.id, case) != case:
            one, other = by_id[case.id].build, case.build
            what, pair = (
                ("models", (one.model, other.model))
                if one.model != other.model
                else ("quantizers", (one.quantizer, other.quantizer))
            )
            raise InputError(
                f"the {what} {pair[0]!r} and {pair[1]!r} share the test name {case.id!r}; rename one of the files"
            )
    for case in cases:
        _check_calibration(case, recipes[case.build.quantizer], benchmarks[case.benchmark], image_sets[case.benchmark])
        recorded_checks.check(case, recordings, image_sets[case.benchmark], recipes[case.build.quantizer].rescale)
    thresholds = {case: policies.thresholds_for(case) for case in cases}
    every, untested = _gates(thresholds, benchmarks, image_sets, recordings, drift=with_drift)
    gates = {case: tuple(gate for gate in of_case if not gate.is_drift) for case, of_case in every.items()}
    drift = {case: tuple(gate for gate in of_case if gate.is_drift) for case, of_case in every.items()}
    if with_drift and not any(drift.values()):
        (value,) = settings.snapshot.values(many=False)
        where = next(iter(thresholds.values())).document.where(("gates",))
        raise InputError(f"{value.origin}: nothing is held against the snapshot: {where} has no gate with max_drift")
    return Plan(
        tuple(cases),
        loaders,
        recipes,
        recordings,
        gates,
        thresholds,
        image_sets,
        untested,
        controls,
        figures,
        device,
        compiled,
        drift,
        records_curves=any(setting.text != "none" for setting in (settings.json, settings.html)),
    )


def suite_variants(suite: Suite, catalog: Catalog) -> list[Recipe]:
    """Return the quantizers that a suite defines. Raises InputError with file and line."""
    found: dict[str, tuple[Recipe, Location]] = {}
    for index, entry in enumerate(suite.definition.quantizers or ()):
        if not isinstance(entry, Variant):
            continue
        at: Location = ("quantizers", index)
        if entry.name in catalog.quantizers:
            raise InputError(
                f"{suite.document.where((*at, 'name'))}: {entry.name!r} is a quantizer's own name; give the variant "
                f"another, as in {entry.name}-2"
            )
        if entry.name in found:
            first = suite.document.where((*found[entry.name][1], "name"))
            raise InputError(
                f"{suite.document.where((*at, 'name'))}: there is a variant {entry.name!r} already, at {first}"
            )
        try:
            quantizer = catalog.quantizer(entry.quantizer)
        except InputError as error:
            raise InputError(f"{suite.document.where((*at, 'quantizer'))}: {error}") from None
        extra: Mapping[str, Any] = entry.model_extra or {}
        parameters = suite.document.validate(quantizer.parameters, dict(extra), at)
        found[entry.name] = Recipe(entry.name, quantizer, parameters), at
    return [recipe for recipe, _ in found.values()]


class _Policies:
    """The thresholds of each case: the run's, or those of the first group that matches."""

    def __init__(self, of_run: SettingValue, groups: Sequence[tuple[Match, SettingValue]]) -> None:
        def load(value: SettingValue) -> Thresholds:
            return _checked(value, Thresholds.load, value.text, value.folder)

        self._of_run, self._groups = load(of_run), [(match, load(value)) for match, value in groups]

    def thresholds_for(self, case: Case) -> Thresholds:
        return next((thresholds for match, thresholds in self._groups if match.matches(case)), self._of_run)


def _loader(value: SettingValue, catalog: Catalog, recording: Recording | None) -> Loader:
    """What loads a model; of recorded outputs, the model that they say they are of."""
    if recording is None:
        return _checked(value, catalog.model, value.text, value.folder)
    if recording.model is None:
        return Loader(partial(recorded_checks.no_model, value.text))
    return _checked(value, catalog.model, recording.model, value.folder)


def _recipe(value: SettingValue, catalog: Catalog, recording: Recording | None) -> Recipe:
    """The recipe of a quantizer; of recorded outputs nothing but their bits."""
    if recording is None:
        return _checked(value, catalog.recipe, value.text)
    return Recipe(value.text, recorded_checks.quantizer(recording))


def _gates(
    thresholds: Mapping[Case, Thresholds],
    benchmarks: Mapping[str, Benchmark],
    image_sets: Mapping[str, dataset.Dataset],
    recordings: Mapping[str, Recording],
    *,
    drift: bool,
) -> tuple[dict[Case, tuple[Gate, ...]], dict[str, list[str]]]:
    """The gates of each case that there are images for, and the metrics of the others, by benchmark or recording.

    Those on the drift are left out without `drift`.

    Raises InputError for gates that nothing in the plan can tell, and for cases without any.
    """
    gates: dict[Case, tuple[Gate, ...]] = {}
    untested: dict[str, dict[str, None]] = {}
    asked: dict[str, Gate] = {}
    for case, policy in thresholds.items():
        benchmark, images = benchmarks[case.benchmark], image_sets[case.benchmark]
        kept = []
        of_policy = policy.gates(case)
        wanted = [gate for gate in of_policy if drift or not gate.is_drift]
        if not wanted:
            raise InputError(f"{of_policy[0].where}: all gates are max_drift, which need --qreliab-snapshot=DIR")
        for gate in wanted:
            asked.setdefault(gate.metric, gate)
            by = recorded_checks.recording_without(gate.metric, case, recordings)
            if not registry.image_sets(gate.metric, images.sets):
                by = f"benchmark {case.benchmark}"
            if by is None:
                _check_needs(gate, benchmark, images)
                kept.append(gate)
            else:
                untested.setdefault(by, {})[gate.metric] = None
        if not kept:
            where = policy.document.where(("gates",))
            raise InputError(f"{where}: none of the gates is on anything that {benchmark.where()} measures")
        recorded_checks.check_sets(kept, case, recordings, images)
        gates[case] = tuple(kept)
    tested = {gate.metric for of_case in gates.values() for gate in of_case}
    for metric in asked.keys() - tested:
        category = metric.partition(".")[0]
        there = sorted({name for of in image_sets.values() for name in of.sets if name.partition(".")[0] == category})
        if there and registry.names_image_set(metric) and not registry.image_sets(metric, there):
            raise InputError(
                f"{asked[metric].where}: {metric} is on an image set that no benchmark of this run has; "
                f"there are {', '.join(there)}"
            )
    return gates, {by: list(metrics) for by, metrics in untested.items()}


def _check_calibration(case: Case, recipe: Recipe, benchmark: Benchmark, images: dataset.Dataset) -> None:
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
            f"{benchmark.where(('calibration',))} {LABELLED}"
        )
    if recipe.rescale and images.calibration is not None:
        _check_held_out(case.id, images.calibration, benchmark)


def _check_needs(gate: Gate, benchmark: Benchmark, images: dataset.Dataset) -> None:
    """Raise InputError if the benchmark has not what a gated metric is measured with."""
    needs = registry.lookup(gate.metric).needs
    if "negatives" in needs and not images.negatives:
        raise InputError(f"{gate.where}: {gate.metric} needs `negatives:`, a list of words, in {benchmark.where(())}")
    if needs & {"calibration", "labels"} and images.calibration is None:
        raise InputError(
            f"{gate.where}: {gate.metric} needs calibration images; add `calibration:` to {benchmark.where(())}"
        )
    if "labels" in needs and images.calibration is not None and images.calibration.labels is None:
        raise InputError(
            f"{gate.where}: {gate.metric} needs calibration images with labels; at "
            f"{benchmark.where(('calibration',))} {LABELLED}"
        )
    if gate.metric.startswith(registry.RESCALED) and images.calibration is not None:
        _check_held_out(f"{gate.where}: {gate.metric}", images.calibration, benchmark)


def _check_held_out(what: str, images: ImageSet, benchmark: Benchmark) -> None:
    """Raise InputError if too few calibration images are left to refit the logit scale on."""
    if len(images) < 4 * FEWEST_HELD_OUT:
        raise InputError(
            f"{what}: every fourth calibration image is held out to refit the logit scale, and of the {len(images)} at "
            f"{benchmark.where(('calibration',))} that leaves fewer than {FEWEST_HELD_OUT}; give at least "
            f"{4 * FEWEST_HELD_OUT}"
        )


Parameters = ParamSpec("Parameters")
Parsed = TypeVar("Parsed")


def _checked(
    value: SettingValue, parse: Callable[Parameters, Parsed], *args: Parameters.args, **options: Parameters.kwargs
) -> Parsed:
    """What `parse` makes of the value; an error is put behind the place that the value was written in."""
    try:
        return parse(*args, **options)
    except InputError as error:
        raise InputError(f"{value.origin}: {error}") from None


def _suite(setting: Setting) -> Suite | None:
    (value,) = setting.values(many=False)
    return None if value.text == NO_SUITE else Suite.load(_checked(value, suites.find, value.text))


def _benchmarks(values: list[SettingValue]) -> dict[str, Benchmark]:
    found: dict[str, Benchmark] = {}
    for value in values:
        benchmark = _checked(value, Benchmark.load, value.text, value.folder)
        if benchmark.name in found:
            raise InputError(f"{value.origin}: two benchmarks are called {benchmark.name!r}; rename one file")
        found[benchmark.name] = benchmark
    return found


def check_controls(text: str) -> str:
    """`none`, `weights` or `features`; raises InputError for another."""
    valid = ("none", "weights", "features")
    if text not in valid:
        raise unknown("match of controls", text, valid)
    return text


def check_figures(value: SettingValue) -> Path | None:
    """The folder for figures; raises InputError for a file, and where there is nothing to draw with."""
    if value.text == "none":
        return None
    folder = (value.folder or Path.cwd()) / Path(value.text).expanduser()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder, which need not exist yet")
    if find_spec("matplotlib") is None:
        raise InputError("drawing figures needs pip install 'pytest-qreliab[report]'")
    return folder


def check_yes(text: str) -> bool:
    """Whether it is `yes`; raises InputError for another word than `yes` and `no`."""
    if text not in ("yes", "no"):
        raise unknown("answer", text, ("yes", "no"))
    return text == "yes"


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
