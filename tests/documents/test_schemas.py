"""The JSON Schemas for editors. `python tests/documents/test_schemas.py` makes them from the models that validate."""

import json

import pytest

from pytest_qreliab.config import benchmark, suite, thresholds
from pytest_qreliab.config.document import PACKAGE, read, shipped
from pytest_qreliab.report import results_file, snapshot

MODELS = {
    "benchmark": benchmark.BenchmarkSchema,
    "results": results_file.Results,
    "snapshot": snapshot.ModelSnapshot,
    "suite": suite.SuiteSchema,
    "thresholds": thresholds.Policy,
}


# The names that the schemas were published under: classes may be renamed, a format may not.
PUBLISHED = {
    "AcceptedMetric": "Value",
    "BenchmarkSchema": "Definition",
    "CaseRecord": "Entry",
    "ControlsRecord": "ControlsEntry",
    "GateRecord": "GateEntry",
    "MetricRecord": "MetricEntry",
    "SpuriousSets": "Spurious",
    "SuiteSchema": "Definition",
}


def published(part: object) -> object:
    """Return a part of a schema under its published names."""
    if isinstance(part, dict):
        return {PUBLISHED.get(key, key): published(value) for key, value in part.items()}
    if isinstance(part, list):
        return [published(value) for value in part]
    if isinstance(part, str):
        head, slash, last = part.rpartition("/")
        return head + slash + PUBLISHED.get(last, last)
    return part


def schema(name: str) -> dict:
    made = published(MODELS[name].model_json_schema())
    if name == "benchmark":  # what is required may come from the file that it extends, or change one key of a source
        made["required"] = ["version"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def text(name: str) -> str:
    return json.dumps(schema(name), indent=1, sort_keys=True) + "\n"


@pytest.mark.parametrize("name", MODELS)
def test_the_shipped_schema_is_that_of_the_model(name):
    assert (PACKAGE / "schemas" / f"{name}.json").read_text(encoding="utf-8") == text(name)


@pytest.mark.parametrize(
    ("kind", "name"), [("benchmarks", "benchmark"), ("suites", "suite"), ("thresholds", "thresholds")]
)
def test_shipped_files_are_valid_for_it(kind, name):
    jsonschema = pytest.importorskip("jsonschema")
    for path in shipped(kind).values():
        document = read(path).data
        if "extends" not in document:
            jsonschema.validate(document, schema(name))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(
            {"version": 1, "nothing": 2, "gates": {}, "in_distribution": {"source": "letters"}}, schema(name)
        )


if __name__ == "__main__":
    for name in MODELS:
        (PACKAGE / "schemas" / f"{name}.json").write_text(text(name), encoding="utf-8")
