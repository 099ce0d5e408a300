"""The results as one long table."""

import csv
import io

import pytest

from pytest_qreliab.report import export


def test_csv_and_parquet_are_the_same_long_table(results, tmp_path):
    rows = list(csv.DictReader(io.StringIO(export.to_csv(results))))
    assert tuple(rows[0]) == export.COLUMNS
    assert len(rows) == sum(len(record["metrics"]) for record in results.cases)
    gated = [row for row in rows if row["limit"]]
    assert {row["metric"] for row in gated if row["bits"] == "w2a8"} >= {"accuracy", "ood.auroc.mcm"}
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "r.parquet"
    path.write_bytes(export.to_parquet(results))
    table = parquet.read_table(path)
    assert tuple(table.column_names) == export.COLUMNS
    for row, other in zip(rows, table.to_pylist(), strict=True):
        assert row["metric"] == other["metric"]
        assert float(row["quantized"]) == other["quantized"]
        assert row["harm"] == ("" if other["harm"] is None else str(other["harm"]))
