"""The results as one long table: a row for each case and metric."""

from __future__ import annotations

import csv
import io
from importlib.util import find_spec
from typing import Any

from pytest_qreliab.errors import InputError
from pytest_qreliab.metrics import registry
from pytest_qreliab.report.records import drift_failures, worst_gates
from pytest_qreliab.report.results_file import Results

OF_CASE = ("case", "model", "quantizer", "bits", "scope", "benchmark", "rescaled", "samples", "device", "coverage")
OF_METRIC = ("metric", "aspect", "better", "baseline", "quantized", "change", "low", "high", "problem")
OF_GATE = ("limit", "value", "harm", "outcome", "passed", "where")  # of the worst gate of a metric
NUMBERS = ("coverage", "baseline", "quantized", "change", "low", "high", "value", "harm")
COLUMNS = (*OF_CASE, "size", "full_size", *OF_METRIC, *OF_GATE)


def rows(results: Results) -> list[dict[str, Any]]:
    """The rows, each with all `COLUMNS`; None where there is nothing."""
    found = []
    for entry in results.cases:
        size = entry["size"]
        of_case: dict[str, Any] = {name: entry[name] for name in OF_CASE}  # type: ignore[literal-required]
        of_case["size"] = None if size is None else size["quantized"]
        of_case["full_size"] = None if size is None else size["full"]
        gates = {
            registry.canonical(metric): gate for metric, gate in {**worst_gates(entry), **drift_failures(entry)}.items()
        }
        for metric in entry["metrics"]:
            gate: Any = gates.get(metric["metric"], {})
            found.append({**of_case, **metric, **{name: gate.get(name) for name in OF_GATE}})
    return found


def to_csv(results: Results) -> str:
    """Comma-separated, with a head; empty where there is nothing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(results))
    return text.getvalue()


def to_parquet(results: Results) -> bytes:
    """A Parquet file. Raises InputError where pyarrow is not installed."""
    if find_spec("pyarrow") is None:
        raise InputError("writing Parquet needs pip install 'pytest-qreliab[parquet]'")
    import pyarrow
    from pyarrow import parquet

    # Of columns that are all None the types cannot be seen.
    kinds = {
        **dict.fromkeys(("rescaled", "passed"), pyarrow.bool_()),
        **dict.fromkeys(("samples", "size", "full_size"), pyarrow.int64()),
        **dict.fromkeys(NUMBERS, pyarrow.float64()),
    }
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in COLUMNS])
    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows(results), schema=schema), sink)
    return sink.getvalue()
