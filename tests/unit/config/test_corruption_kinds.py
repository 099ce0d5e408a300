import json
import subprocess
import sys

from pytest_qreliab.config import benchmark as config
from pytest_qreliab.config.corruption_kinds import EXTRA_KINDS, SEVERITIES, STANDARD_KINDS
from pytest_qreliab.config.document import PACKAGE

ALL = (*STANDARD_KINDS, *EXTRA_KINDS)


def test_kinds_are_those_that_a_benchmark_may_name():
    standard, extra = read_schema_enums()
    assert config.STANDARD == tuple(STANDARD_KINDS) == tuple(standard)
    assert config.KINDS == ALL == (*standard, *extra)


def read_schema_enums() -> list[list[str]]:
    """The names that the shipped schema lists, the standard ones first."""
    schema = json.loads((PACKAGE / "schemas" / "benchmark.json").read_text(encoding="utf-8"))
    return [
        names["enum"] for names in schema["$defs"]["Corruptions"]["properties"]["kinds"]["anyOf"][0]["items"]["anyOf"]
    ]


def test_no_image_library_is_loaded_before_the_first_image():
    code = "import sys; import pytest_qreliab.config.benchmark; print({'numpy', 'scipy', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_kind_has_constants_for_every_severity():
    for kind in {**STANDARD_KINDS, **EXTRA_KINDS}.values():
        assert len(kind.constants) == len(SEVERITIES)
