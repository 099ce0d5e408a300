"""Make the plan: turn the settings into cases and gates, and check all before any model is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pytest_qreliab.config.cases import Case, expand
from pytest_qreliab.config.settings import Setting, Settings
from pytest_qreliab.config.thresholds import Gate, Thresholds
from pytest_qreliab.data import loading
from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.planning import recorded_checks
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.evaluation.planning.checks import check_calibration, check_needs
from pytest_qreliab.evaluation.planning.parse_settings import ParsedSettings, parse_settings
from pytest_qreliab.evaluation.planning.plan import Plan
from pytest_qreliab.metrics import registry
from pytest_qreliab.metrics.names import MetricName, SetName


def make_plan(settings: Settings, catalog: Catalog, *, with_drift: bool = False) -> Plan:
    """Make the plan of the settings.

    Args:
        settings: The settings of the run.
        catalog: The names of quantizers and models.
        with_drift: Whether there are accepted values, so that the plan has the gates on the drift from them.

    Raises:
        InputError: The settings cannot be used. The message names the option, or the file and line, at fault.
    """
    parsed = parse_settings(settings, catalog)
    data = {name: loading.load(benchmark) for name, benchmark in parsed.benchmarks.items()}
    cases = _make_cases(parsed)
    for case in cases:
        recipe, images = parsed.recipes[case.build.quantizer], data[case.benchmark]
        check_calibration(case, recipe, parsed.benchmarks[case.benchmark], images)
        recorded_checks.check_case(case, parsed.recordings, images, recipe.rescale)
    thresholds = {case: parsed.thresholds[case] for case in cases}
    all_gates, unmeasurable = _resolve_gates(thresholds, parsed, data, with_drift=with_drift)
    drift = {case: tuple(gate for gate in gates if gate.is_drift) for case, gates in all_gates.items()}
    if with_drift:
        _check_drift(drift, thresholds, settings.snapshot)
    return Plan(
        cases=tuple(cases),
        models=parsed.models,
        descriptions={name: loader.describe() for name, loader in parsed.models.items()},
        recipes=parsed.recipes,
        recordings=parsed.recordings,
        gates={case: tuple(gate for gate in gates if not gate.is_drift) for case, gates in all_gates.items()},
        drift=drift,
        thresholds=thresholds,
        data=data,
        unmeasurable=unmeasurable,
        controls=parsed.controls,
        figures=parsed.figures,
        device=parsed.device,
        compiled=parsed.compiled,
        records_curves=any(setting.text != "none" for setting in (settings.json, settings.html)),
    )


def _make_cases(parsed: ParsedSettings) -> list[Case]:
    cases = expand(parsed.models, parsed.quantizations, parsed.benchmarks)
    if parsed.suite is not None:
        cases = parsed.suite.without_excluded(cases)
    _check_ids(cases)
    return cases


def _check_ids(cases: Iterable[Case]) -> None:
    """Raise InputError if two cases have the same id."""
    by_id: dict[str, Case] = {}
    for case in cases:
        first, second = by_id.setdefault(case.id, case).build, case.build
        if by_id[case.id] == case:
            continue
        if first.model != second.model:
            what, names = "models", (first.model, second.model)
        else:
            what, names = "quantizers", (first.quantizer, second.quantizer)
        raise InputError(
            f"the {what} {names[0]!r} and {names[1]!r} share the test name {case.id!r}; rename one of the files"
        )


def _resolve_gates(
    thresholds: Mapping[Case, Thresholds], parsed: ParsedSettings, data: Mapping[str, Dataset], *, with_drift: bool
) -> tuple[dict[Case, tuple[Gate, ...]], dict[str, list[str]]]:
    """Return the gates of each case that can be measured, and the metrics of the others.

    The metrics are by the benchmark or recording that cannot tell them. Raises InputError if a gate cannot be measured
    anywhere in the plan, or a case has none.
    """
    resolved: dict[Case, tuple[Gate, ...]] = {}
    unmeasurable: dict[str, dict[str, None]] = {}
    first_gates: dict[str, Gate] = {}  # by metric
    for case, policy in thresholds.items():
        benchmark, images = parsed.benchmarks[case.benchmark], data[case.benchmark]
        measurable = []
        for gate in _gates_of_case(case, policy, with_drift=with_drift):
            first_gates.setdefault(gate.metric, gate)
            obstacle = recorded_checks.recording_without(gate.metric, case, parsed.recordings)
            if not registry.image_sets(gate.metric, images.sets):
                obstacle = f"benchmark {case.benchmark}"
            if obstacle is None:
                check_needs(gate, benchmark, images)
                measurable.append(gate)
            else:
                unmeasurable.setdefault(obstacle, {})[gate.metric] = None
        if not measurable:
            where = policy.document.where(("gates",))
            raise InputError(f"{where}: none of the gates is on anything that {benchmark.where()} measures")
        recorded_checks.check_sets(measurable, case, parsed.recordings, images)
        resolved[case] = tuple(measurable)
    measured = {gate.metric for gates in resolved.values() for gate in gates}
    _check_image_sets((gate for metric, gate in first_gates.items() if metric not in measured), data)
    return resolved, {obstacle: list(metrics) for obstacle, metrics in unmeasurable.items()}


def _gates_of_case(case: Case, policy: Thresholds, *, with_drift: bool) -> list[Gate]:
    gates = policy.gates(case)
    kept = [gate for gate in gates if with_drift or not gate.is_drift]
    if not kept:
        raise InputError(f"{gates[0].where}: all gates are max_drift, which need --qreliab-snapshot=DIR")
    return kept


def _check_image_sets(gates: Iterable[Gate], data: Mapping[str, Dataset]) -> None:
    """Raise InputError if a gate that no case measures is on an image set that no benchmark has."""
    for gate in gates:
        category = MetricName.parse(gate.metric).family
        names = {name for images in data.values() for name in images.sets}
        sets = sorted(name for name in names if SetName.parse(name).category == category)
        if sets and registry.names_image_set(gate.metric) and not registry.image_sets(gate.metric, sets):
            raise InputError(
                f"{gate.where}: {gate.metric} is on an image set that no benchmark of this run has; "
                f"there are {', '.join(sets)}"
            )


def _check_drift(
    drift: Mapping[Case, tuple[Gate, ...]], thresholds: Mapping[Case, Thresholds], snapshot: Setting
) -> None:
    """Raise InputError if no case has a gate on the drift."""
    if not any(drift.values()):
        (value,) = snapshot.values(many=False)
        where = next(iter(thresholds.values())).document.where(("gates",))
        raise InputError(f"{value.origin}: nothing is held against the snapshot: {where} has no gate with max_drift")
