"""Make the plan: turn the settings into cases and gates, and check all before any model is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pytest_qreliab.config.cases import Case, expand
from pytest_qreliab.config.settings import Setting, Settings
from pytest_qreliab.config.thresholds import Gate, Thresholds
from pytest_qreliab.data import loading
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.planning import recorded_checks
from pytest_qreliab.evaluation.planning.case_gates import resolve_gates
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.evaluation.planning.checks import check_calibration
from pytest_qreliab.evaluation.planning.parse_settings import ParsedSettings, parse_settings
from pytest_qreliab.evaluation.planning.plan import Plan
from pytest_qreliab.evaluation.planning.training_data import describe_training


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
    gates = resolve_gates(thresholds, parsed, data, with_drift=with_drift)
    drift = {case: tuple(gate for gate in found.judged if gate.is_drift) for case, found in gates.items()}
    if with_drift:
        _check_drift(drift, thresholds, settings.snapshot)
    # Last, as it may download: whatever else is wrong is known by now.
    models = {name: loader.fetched() for name, loader in parsed.models.items()}
    return Plan(
        cases=tuple(cases),
        models=models,
        descriptions={name: loader.describe() for name, loader in models.items()},
        recipes=parsed.recipes,
        recordings=parsed.recordings,
        gates={case: tuple(gate for gate in found.judged if not gate.is_drift) for case, found in gates.items()},
        drift=drift,
        skipped={case: found.skipped for case, found in gates.items()},
        thresholds=thresholds,
        data=data,
        training={
            case: describe_training(
                case, parsed.recipes[case.build.quantizer], parsed.benchmarks[case.benchmark], data[case.benchmark]
            )
            for case in cases
        },
        controls=parsed.controls,
        figures=parsed.figures,
        device=parsed.device,
        compiled=parsed.compiled,
        deterministic=parsed.deterministic,
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


def _check_drift(
    drift: Mapping[Case, tuple[Gate, ...]], thresholds: Mapping[Case, Thresholds], snapshot: Setting
) -> None:
    """Raise InputError if no case has a gate on the drift."""
    if not any(drift.values()):
        (value,) = snapshot.values(many=False)
        where = next(iter(thresholds.values())).document.where(("gates",))
        raise InputError(f"{value.origin}: nothing is held against the snapshot: {where} has no gate with max_drift")
