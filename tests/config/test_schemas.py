"""The JSON Schemas for editors, which are made from the models that validate: `python tests/config/test_schemas.py`."""

import json

import pytest

from pytest_qreliab.config import benchmark, suite, thresholds
from pytest_qreliab.config.document import PACKAGE, read, shipped
from pytest_qreliab.report import results_file, snapshot

MODELS = {
    "benchmark": benchmark.Definition,
    "results": results_file.Results,
    "snapshot": snapshot.ModelSnapshot,
    "suite": suite.Definition,
    "thresholds": thresholds.Policy,
}


def schema(name: str) -> dict:
    made = MODELS[name].model_json_schema()
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
