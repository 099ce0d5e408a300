"""The results file."""

import json

import pytest

from pytest_qreliab.config.document import PACKAGE


def test_the_file_is_what_its_schema_says_and_a_table_in_pandas(results_path):
    jsonschema = pytest.importorskip("jsonschema")
    pandas = pytest.importorskip("pandas")
    data = json.loads(results_path.read_text())
    jsonschema.validate(data, json.loads((PACKAGE / "schemas" / "results.json").read_text()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**data, "more": 1}, json.loads((PACKAGE / "schemas" / "results.json").read_text()))
    table = pandas.json_normalize(
        json.loads(results_path.read_text())["cases"],
        "metrics",
        ["case", "model", "quantizer", "bits", "scope", "benchmark"],
    )
    assert len(table) == sum(len(case["metrics"]) for case in data["cases"])
    assert (table.dtypes[["baseline", "quantized", "change", "low", "high"]] == "float64").all()
    accuracy = table[table.metric == "accuracy"].set_index("bits")
    assert accuracy.change["w2a8"] < -0.02 < accuracy.change["w8a8"]
    assert (accuracy.low <= accuracy.change).all()
