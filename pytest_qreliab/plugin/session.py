"""The state of one pytest run: its plan, its shard, the order of its tests, and its evaluator."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from pytest_qreliab.config.cases import Build, Case
from pytest_qreliab.config.settings import OPTIONS, RUN_ONLY, SELF_CHECK, Setting, Settings, parse_size
from pytest_qreliab.errors import InputError, describe_exception, unknown, user_code_location
from pytest_qreliab.evaluation.planning import make_plan, shards
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.metrics.definitions import ASPECTS
from pytest_qreliab.models import hub
from pytest_qreliab.models.hub import Access
from pytest_qreliab.plugin.options import runs_tests
from pytest_qreliab.report import downloads, files, snapshot_settings

if TYPE_CHECKING:
    from pytest_qreliab.embedding.store import Store
    from pytest_qreliab.evaluation.evaluator import Evaluator
    from pytest_qreliab.evaluation.planning.plan import Plan
    from pytest_qreliab.evaluation.result import Result
    from pytest_qreliab.report.records import CaseRecord

T = TypeVar("T")


@dataclass(frozen=True)
class RepeatCommand:
    """The command that runs tests again with the same plan, and so with the same verdicts."""

    settings: Settings
    self_check: bool  # whether the self-check takes the place of the other tests

    def command(self, *tests: str) -> str:
        """Return the command line for tests, given by id or by options that select them."""
        flags = [SELF_CHECK] if self.self_check else []
        for option in OPTIONS:
            setting: Setting = getattr(self.settings, option.name)
            # An ini file is there for the next run as well.
            if option.name not in RUN_ONLY and setting.given and setting.origin in (option.flag, option.env):
                flags.append(f"{option.flag}={setting.text}")
        return shlex.join(["pytest", *tests, *flags])


class Session:
    """One pytest run.

    The plan is made at once, so that input that cannot be used ends the run early. torch is imported when it is first
    needed. Files of earlier runs stay until it is known that a reliability test is selected.
    """

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self.snapshot = snapshot_settings.select_snapshot(settings.snapshot, settings.update)
        catalog = _register_all(config)
        # Nothing is downloaded to list tests. Workers of pytest-xdist take the commits that their controller found.
        self.hub = Access(network=runs_tests(config), show=downloads.show, commits=_known_commits(config))
        self._cache_size = parse_size(settings.cache_size)
        _check_cache_dir(settings.cache_dir)
        with hub.access(self.hub), _terminal(config):
            self.plan = make_plan.make_plan(settings, catalog, with_drift=self.snapshot is not None)
        if runs_tests(config):
            self.plan = _with_digests(self.plan, self.store)
        self.shard = shards.select(settings.shard, self.plan.cases)
        self.repeat = RepeatCommand(settings, bool(config.getoption("qreliab_aa")))
        if self.repeat.self_check:
            _refuse_outputs(settings)
        self.writes_files = not hasattr(config, "workerinput") and runs_tests(config)
        self.json_file, self.html_file = (
            files.prepare(setting.values(many=False)[0]) if self.writes_files else None
            for setting in (settings.json, settings.html)
        )
        self.begun = False  # whether a reliability test is selected, so that the run has results
        self._order = _plan_order(self.plan.cases)
        self._recorded: set[Case] = set()

    @cached_property
    def store(self) -> Store | None:
        """The store that keeps embeddings for later runs; None if nothing is kept."""
        return _open_store(self._config, self._settings.cache_dir, self._cache_size)

    @cached_property
    def evaluator(self) -> Evaluator:
        """The evaluator of the plan, which imports torch."""
        from pytest_qreliab import workers
        from pytest_qreliab.evaluation.evaluator import Evaluator
        from pytest_qreliab.plugin import progress

        draw = build_curves = None
        if self.plan.records_curves:
            from pytest_qreliab.report.figures import curves

            build_curves = curves.build_curves
        if self.plan.figures is not None:
            from pytest_qreliab.report.figures import case_figures  # imports matplotlib

            draw = partial(case_figures.draw, self.plan.figures)
        evaluator = Evaluator(
            self.plan,
            progress=progress.for_config(self._config),
            store=self.store,
            draw=draw,
            curves=build_curves,
            accepted=self.snapshot,
        )
        workers.limit_to_share(evaluator.device)
        return evaluator

    def begin(self) -> None:
        """Remove the files of earlier runs, as a reliability test is selected."""
        if not self.begun:
            for path in filter(None, (self.json_file, self.html_file)):
                files.remove_old(path)
        self.begun = True

    def cases(self, aspect: str | None) -> list[Case]:
        """Return the plan's cases, or those with a gate of an aspect.

        Raises:
            InputError: There is no such aspect.
        """
        if aspect is None:
            return list(self.plan.cases)
        if aspect not in ASPECTS:
            raise unknown("aspect", aspect, ASPECTS)
        return [case for case in self.plan.cases if self.plan.tested(case, aspect)]

    def position(self, subject: Case | Build | str) -> float:
        """Return the rank of a case, a build or a model in the plan; unknown ones come last."""
        return self._order.get(subject, float("inf"))

    def in_shard(self, subject: Case | Build | str) -> bool:
        """Return whether this shard runs the tests of a case, a build or a model."""
        return self.shard is None or subject in self.shard.parts

    def in_order(self, records: Mapping[str, T]) -> list[T]:
        """Return records, given by the ids of their cases, in the plan's order."""
        return [records[case.id] for case in self.plan.cases if case.id in records]

    def new_record(self, result: Result) -> CaseRecord | None:
        """Return a result as reports hold it, or None if it was returned before."""
        from pytest_qreliab.report import to_record

        if result.case in self._recorded:
            return None
        self._recorded.add(result.case)
        parameters = self.plan.recipes[result.case.build.quantizer].parameters.model_dump(mode="json")
        words = ", ".join(f"{name}={value}" for name, value in parameters.items() if value != {})
        return to_record.to_record(result, words, self.repeat.command("qreliab", "-k", f"[{result.case.id}]"))


def _plan_order(cases: tuple[Case, ...]) -> dict[Case | Build | str, float]:
    """Rank cases, with each model and each build right before its first case."""
    order: dict[Case | Build | str, float] = {}
    for index, case in enumerate(cases):
        order.setdefault(case.build.model, index - 0.5)
        order.setdefault(case.build, index - 0.25)
        order[case] = index
    return order


def _known_commits(config: pytest.Config) -> dict[str, tuple[str, str]]:
    known = getattr(config, "workerinput", {}).get("qreliab_commits", {})
    return {reference: (commit, warning) for reference, (commit, warning) in known.items()}


def _terminal(config: pytest.Config) -> AbstractContextManager[None]:
    """Return a context in which output reaches the terminal, although pytest captures it."""
    capture = config.pluginmanager.get_plugin("capturemanager")
    return nullcontext() if capture is None else capture.global_and_fixture_disabled()


def _with_digests(plan: Plan, store: Store | None) -> Plan:
    """Return the plan with the digests of checkpoints among the facts of its models."""
    from pytest_qreliab.embedding.file_digests import sha256_digests

    known = {name: of.checkpoint for name, of in plan.descriptions.items() if of.checkpoint is not None}
    digests = dict(zip(known, sha256_digests(list(known.values()), store), strict=True))
    described = {name: of.with_digest(digests[name]) for name, of in plan.descriptions.items() if name in digests}
    return replace(plan, descriptions={**plan.descriptions, **described})


def _open_store(config: pytest.Config, cache_dir: Setting, size: float) -> Store | None:
    """Open the store that keeps embeddings for later runs; None if nothing is kept."""
    from pytest_qreliab.embedding.store import Store

    if cache_dir.text == "none":
        return None
    if cache_dir.text != "auto":
        return Store(cache_dir.values(many=False)[0].path().absolute(), size)
    cache = config.cache if hasattr(config, "cache") else None  # absent with -p no:cacheprovider
    try:
        return None if cache is None else Store(Path(cache.mkdir("qreliab")), size)
    except OSError:
        return None  # pytest itself warns of a cache that cannot be written


def _check_cache_dir(setting: Setting) -> None:
    """Raise InputError if the cache's folder is a file."""
    (value,) = setting.values(many=False)
    folder = value.path()
    if value.text not in ("auto", "none") and folder.exists() and not folder.is_dir():
        raise InputError(f"{value.origin}: {folder} is a file; give a folder, which need not exist yet")


def _refuse_outputs(settings: Settings) -> None:
    """Raise InputError if results are to be written or accepted, which the self-check has none of."""
    for setting in (settings.json, settings.html, settings.snapshot):
        if setting.text != "none":
            raise InputError(f"{setting.origin}: is for results of the gates, which {SELF_CHECK} does not try")


def _register_all(config: pytest.Config) -> Catalog:
    """Register what the package ships, what installed packages add, and what the project's plugins add."""
    catalog = Catalog()
    catalog.add_entry_points()
    try:
        config.hook.pytest_qreliab_register(catalog=catalog)
    except InputError as error:
        raise InputError(f"pytest_qreliab_register{user_code_location(error)}: {error}") from error
    except Exception as error:  # any kind: the code is the user's
        raise InputError(f"pytest_qreliab_register raised {describe_exception(error)}") from error
    return catalog
