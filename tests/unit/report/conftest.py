"""What the tests of reports share: the results of a small run, and the command `qreliab`."""

import pytest


@pytest.fixture(scope="session")
def results_path(tmp_path_factory, make_plan, small_benchmark, everything_imported, kept):
    """The results of a case that fails and one that passes, from a file."""
    from pytest_qreliab.embedding.store import Store
    from pytest_qreliab.evaluation.evaluator import Evaluator
    from pytest_qreliab.report import results_file, to_record
    from pytest_qreliab.report.figures import curves

    path = tmp_path_factory.mktemp("results") / "r.json"
    plan = make_plan(benchmarks=str(small_benchmark), bits="w2a8,w8a8", json=str(path), controls="weights")
    evaluator = Evaluator(plan, store=Store(kept), curves=curves.build_curves)
    cases = [
        to_record.to_record(evaluator.result(case), "granularity=channel", f"pytest -k '{case.id}'")
        for case in plan.cases
    ]
    results_file.write(
        path,
        results_file.Results(
            qreliab="0.1.0",
            created="2026-01-01T00:00:00+00:00",
            shard=None,
            plan=results_file.identify_plan(plan),
            cases=cases,
            errors={},
            exitstatus=1,
        ),
    )
    return path


@pytest.fixture
def results(results_path):
    """The results in that file, to be changed."""
    from pytest_qreliab.report import results_file

    return results_file.read(results_path)


@pytest.fixture
def command(capsys, monkeypatch):
    """Runs `qreliab`; gives its exit status and the lines of both streams."""
    from pytest_qreliab import cli

    monkeypatch.setenv("COLUMNS", "100")

    def command(*args: object) -> tuple[int, list[str]]:
        capsys.readouterr()
        code = cli.main([*map(str, args)])
        captured = capsys.readouterr()
        return code, (captured.out + captured.err).splitlines()

    return command
