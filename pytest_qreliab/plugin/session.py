"""One pytest run: its plan, its evaluator, and what pytest's items have to know of them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from pytest_qreliab.config.cases import Build, Case
from pytest_qreliab.config.document import shown
from pytest_qreliab.config.settings import OF_A_RUN, OPTIONS, SELF_CHECK, Setting, Settings, size_of
from pytest_qreliab.errors import InputError, describe_exception, unknown, user_code_location
from pytest_qreliab.evaluation.planning import make_plan, shards
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.metrics import registry
from pytest_qreliab.report import files
from pytest_qreliab.report import snapshot as snapshots

if TYPE_CHECKING:
    from pytest_qreliab.embedding.store import Store
    from pytest_qreliab.evaluation.evaluator import Evaluator
    from pytest_qreliab.plugin.checked_result import CheckedResult, CheckedSelfCheck
    from pytest_qreliab.report.records import CaseRecord

T = TypeVar("T")


class Session:
    """The plan is made at once, so that bad input ends the run early; torch is imported when first needed."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self.snapshot = snapshots.select(settings.snapshot, settings.update)
        self.plan = make_plan.make_plan(settings, _catalog(config), with_drift=self.snapshot is not None)
        self._cache_size = size_of(settings.cache_size)
        check_cache_dir(settings.cache_dir)
        self._told: set[Case] = set()
        self._order: dict[object, float] = {}
        for index, case in enumerate(self.plan.cases):
            self._order.setdefault(case.build.model, index - 0.5)
            self._order.setdefault(case.build, index - 0.25)
            self._order[case] = index
        self.shard = shards.select(settings.shard, self.plan.cases)
        for setting in (settings.json, settings.html, settings.snapshot):
            if setting.text != "none" and config.getoption("qreliab_aa"):
                raise InputError(f"{setting.origin}: is for results of the gates, which {SELF_CHECK} does not try")
        self.writes = not hasattr(config, "workerinput") and not config.getoption("collectonly")
        self.json, self.html = (
            files.prepare(setting.values(many=False)[0]) if self.writes else None
            for setting in (settings.json, settings.html)
        )

    @cached_property
    def evaluator(self) -> Evaluator:
        from pytest_qreliab import workers
        from pytest_qreliab.evaluation.evaluator import Evaluator
        from pytest_qreliab.plugin import progress

        draw = build_curves = None
        if self.plan.records_curves:
            from pytest_qreliab.report.figures import curves

            build_curves = curves.build_curves
        if self.plan.figures is not None:
            from pytest_qreliab.report.figures import case_figures  # which imports matplotlib

            draw = partial(case_figures.draw, self.plan.figures)
        evaluator = Evaluator(
            self.plan, progress.for_config(self._config), self.store(), draw, build_curves, self.snapshot
        )
        workers.limit_to_share(evaluator.device)
        return evaluator

    def store(self) -> Store | None:
        """Where embeddings are kept for later runs; None for nowhere."""
        from pytest_qreliab.embedding.store import Store

        where = self._settings.cache_dir.text
        if where == "none":
            return None
        if where != "auto":
            return Store(Path(where).expanduser().absolute(), self._cache_size)
        cache = self._config.cache if hasattr(self._config, "cache") else None  # absent with -p no:cacheprovider
        try:
            return None if cache is None else Store(Path(cache.mkdir("qreliab")), self._cache_size)
        except OSError:
            return None  # pytest itself warns of a cache that cannot be written

    def cases(self, aspect: str | None) -> list[Case]:
        """The plan's cases, or those with a gate of that aspect. Raises InputError for an unknown aspect."""
        if aspect is None:
            return list(self.plan.cases)
        if aspect not in registry.ASPECTS:
            raise unknown("aspect", aspect, registry.ASPECTS)
        return [case for case in self.plan.cases if self.plan.tested(case, aspect)]

    def position(self, value: Case | Build | str) -> float:
        """Where a case, a build or a model stands in the plan's order; what is not of the plan comes last."""
        return self._order.get(value, float("inf"))

    def in_order(self, found: Mapping[str, T]) -> list[T]:
        """What was found for cases, by their ids, in the plan's order, whichever worker was first."""
        return [found[case.id] for case in self.plan.cases if case.id in found]

    def here(self, value: Case | Build | str) -> bool:
        """Whether a case, a build or a model is of this shard."""
        return self.shard is None or value in self.shard.parts

    def header(self) -> list[str]:
        """What the run will do, for the head of pytest's output."""
        cases = self.plan.cases
        gates = sum(map(len, self.plan.gates.values()))
        files = {
            f"{shown(thresholds.document.path)}, {thresholds.policy.confidence:.0%} confidence over all of them": None
            for thresholds in self.plan.thresholds.values()
        }
        axes = [
            dict.fromkeys(case.build.model for case in cases),
            dict.fromkeys(case.quantization for case in cases),
            dict.fromkeys(case.benchmark for case in cases),
        ]
        lines = [
            f"qreliab: {len(cases)} case{'s' * (len(cases) > 1)}: " + " x ".join(", ".join(axis) for axis in axes),
            f"qreliab: {gates} gate{'s' * (gates != 1)} of {', '.join(files)}, device {self.plan.device}",
        ]
        if self.snapshot is not None:
            drifts = sum(map(len, self.plan.drift.values()))
            update = {"none": "", "new": "; what it has not is accepted", "all": "; all of it is accepted anew"}
            lines.append(
                f"qreliab: {drifts} gate{'s' * (drifts != 1)} on the drift from {self.snapshot.folder}"
                + update[self.snapshot.update]
            )
        if self.shard is not None:
            here = sum(map(self.here, cases))
            lines.append(f"qreliab: {self.shard}: {here} of {len(cases)} cases")
        if self.plan.figures is not None:
            lines.append(f"qreliab: figures go to {shown(self.plan.figures)}")
        for by, metrics in self.plan.unmeasurable.items():
            lines.append(f"qreliab: {by} has nothing for {', '.join(metrics)}: not tested")
        return lines + self._underpowered()

    def _underpowered(self) -> list[str]:
        """The gates that cannot show what they are for, each with the number of samples that would do."""
        from pytest_qreliab.evaluation.verdicts import power

        lines: dict[str, None] = {}
        for weak in power.find_underpowered(self.plan):
            samples = weak.samples
            enough = "no number of samples" if weak.times == float("inf") else f"about {weak.times * samples:,.0f}"
            lines[
                f"qreliab:   {weak.gate.metric} {weak.gate.limit} {weak.gate.value:g}: {samples:,.0f} samples of "
                f"{weak.case.benchmark} show {weak.detectable:.2g} at best; {enough} would do"
            ] = None
        head = "qreliab: underpowered, a harmless case may well be inconclusive (spread as of a CLIP at w4a8):"
        return [head, *lines] if lines else []

    def write(self, entries: Mapping[str, CaseRecord], errors: Mapping[str, str], exitstatus: int) -> None:
        """Write the files that are wanted of the results, and the summary of a step of GitHub's. Raises OSError."""
        summary = os.environ.get("GITHUB_STEP_SUMMARY") if self.writes and (entries or errors) else None
        if self.json is None and self.html is None and not summary:
            return
        from pytest_qreliab._version import __version__
        from pytest_qreliab.report import markdown, results_file
        from pytest_qreliab.report.html import page

        found = results_file.Results(
            qreliab=__version__,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            shard=None if self.shard is None else (self.shard.number, self.shard.count),
            plan=results_file.planned(self.plan),
            cases=self.in_order(entries),
            errors={
                case.id: errors[case.id] for case in self.plan.cases if case.id in errors and case.id not in entries
            },
            exitstatus=exitstatus,
        )
        if self.json is not None:
            results_file.write(self.json, found)
        if self.html is not None:
            files.write(self.html, page.render(found))
        if summary:
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(markdown.render(found))

    def renew(self, entries: Mapping[str, CaseRecord]) -> list[str]:
        """Accept what was measured into the snapshot, where that is asked for, and say what became of it; and what the
        snapshot holds beyond. Raises OSError."""
        snapshot = self.snapshot
        if snapshot is None or not self.writes:
            return []
        where = shown(snapshot.folder.absolute())
        lines = []
        if snapshot.update != "none":
            lines += snapshot.renew(self.in_order(entries)).lines(where)
        # Where -k or a shard left something out, what is unused is not known.
        if self.plan.cases and all(case.id in entries for case in self.plan.cases):
            unused = snapshot.unused({case.id for case in self.plan.cases})
            lines += [f"in {where} and not of this run: {case}" for case in unused]
        return lines

    def entry(self, result: CheckedResult) -> CaseRecord | None:
        """A result as reports hold it, with a command that measures the case again; None if it was given before."""
        from pytest_qreliab.report import to_record

        if result.case in self._told:
            return None
        self._told.add(result.case)
        parameters = self.plan.recipes[result.case.build.quantizer].parameters.model_dump(mode="json")
        words = ", ".join(f"{name}={value}" for name, value in parameters.items())
        return to_record.to_record(result, words, self._command("qreliab", "-k", f"[{result.case.id}]"))

    def result(self, case: Case, item: pytest.Item) -> CheckedResult:
        """The result of a case for the test that asks for it. Raises InputError for unusable input."""
        from pytest_qreliab.plugin.checked_result import CheckedResult

        return CheckedResult(**vars(self.evaluator.result(case)), repeat=self._repeat(item))

    def self_check(self, case: Case, item: pytest.Item) -> CheckedSelfCheck:
        """The self-check of a case for the test that asks for it. Raises InputError for unusable input."""
        from pytest_qreliab.plugin.checked_result import CheckedSelfCheck

        return CheckedSelfCheck(**vars(self.evaluator.self_check(case)), repeat=self._repeat(item))

    def _repeat(self, item: pytest.Item) -> str:
        """The command that repeats one test, with the same plan and so with the same verdict."""
        return self._command(item.nodeid)

    def _command(self, *tests: str) -> str:
        settings = ((option, getattr(self._settings, option.name)) for option in OPTIONS if option.name not in OF_A_RUN)
        flags = [
            f"{option.flag}={s.text}" for option, s in settings if s.given and s.origin in (option.flag, option.env)
        ]
        if self._config.getoption("qreliab_aa"):
            flags.insert(0, SELF_CHECK)
        return shlex.join(["pytest", *tests, *flags])


def check_cache_dir(setting: Setting) -> None:
    """Raise InputError for a file where a folder is needed."""
    folder = Path(setting.text).expanduser()
    if setting.text not in ("auto", "none") and folder.exists() and not folder.is_dir():
        raise InputError(f"{setting.origin}: {folder} is a file; give a folder, which need not exist yet")


def _catalog(config: pytest.Config) -> Catalog:
    """What the package ships, what installed packages register and what the project's conftest.py and plugins do."""
    catalog = Catalog()
    catalog.add_entry_points()
    try:
        config.hook.pytest_qreliab_register(catalog=catalog)
    except InputError as error:
        raise InputError(f"pytest_qreliab_register{user_code_location(error)}: {error}") from error
    except Exception as error:  # of any kind: the code is the user's
        raise InputError(f"pytest_qreliab_register raised {describe_exception(error)}") from error
    return catalog
