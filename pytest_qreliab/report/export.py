"""The results as a table of cases and metrics."""

from __future__ import annotations

import csv
import io
from importlib.util import find_spec
from typing import Any

from pytest_qreliab.errors import InputError
from pytest_qreliab.metrics import registry
from pytest_qreliab.report.queries import drift_failures, worst_gates
from pytest_qreliab.report.results_file import Results

CASE_COLUMNS = (
    "case",
    "model",
    "quantizer",
    "bits",
    "scope",
    "benchmark",
    "rescaled",
    "samples",
    "device",
    "coverage",
    "product_coverage",
)
METRIC_COLUMNS = ("metric", "aspect", "better", "baseline", "quantized", "change", "low", "high", "problem")
GATE_COLUMNS = ("limit", "value", "harm", "outcome", "passed", "where")  # of the worst gate of a metric
COLUMNS = (*CASE_COLUMNS, "size", "full_size", *METRIC_COLUMNS, *GATE_COLUMNS)
FLAGS = ("rescaled", "passed")
COUNTS = ("samples", "size", "full_size")
NUMBERS = ("coverage", "product_coverage", "baseline", "quantized", "change", "low", "high", "value", "harm")


def rows(results: Results) -> list[dict[str, Any]]:
    """Return the rows of the table.

    Each row has all `COLUMNS`. A value that is missing is None.
    """
    table = []
    for record in results.cases:
        size = record["size"]
        case: dict[str, Any] = {name: record[name] for name in CASE_COLUMNS}  # type: ignore[literal-required]
        case["size"] = None if size is None else size["quantized"]
        case["full_size"] = None if size is None else size["full"]
        worst = {**worst_gates(record), **drift_failures(record)}
        gate_records = {registry.canonical(metric): gate_record for metric, gate_record in worst.items()}
        for metric_record in record["metrics"]:
            gate_record: Any = gate_records.get(metric_record["metric"], {})
            row = {**case, **metric_record, **{name: gate_record.get(name) for name in GATE_COLUMNS}}
            table.append({name: _as_utf8(value) for name, value in row.items()})
    return table


def _as_utf8(value: object) -> object:
    """Return text without what UTF-8 cannot hold, as file names may have it; anything else as it is."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def to_csv(results: Results) -> str:
    """Return the table as comma-separated values with a header.

    A value that is missing is empty.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(results))
    return text.getvalue()


def to_parquet(results: Results) -> bytes:
    """Return the table as the content of a Parquet file.

    Raises:
        InputError: pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        raise InputError("writing Parquet needs pip install 'pytest-qreliab[parquet]'")
    import pyarrow
    from pyarrow import parquet

    # The type of a column cannot be seen if all its values are None.
    types = {
        **dict.fromkeys(FLAGS, pyarrow.bool_()),
        **dict.fromkeys(COUNTS, pyarrow.int64()),
        **dict.fromkeys(NUMBERS, pyarrow.float64()),
    }
    schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in COLUMNS])
    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows(results), schema=schema), sink)
    return sink.getvalue()
