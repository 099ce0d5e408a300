"""What tests are about, by their ids."""

import pytest

from pytest_qreliab.config.cases import Build, Case
from pytest_qreliab.config.formats import Format
from pytest_qreliab.plugin.subjects import Subjects, may_be_of_cases


@pytest.mark.parametrize(
    ("nodeid", "may_be"),
    [
        ("qreliab::test_ood[a/minmax/w4/digits]", True),
        ("t.py::test_it[1-local-dir:/m/minmax/w4a8/vision/digits-b-2]", True),
        ("t.py::test_build[a/minmax/w8]", True),
        ("t.py::test_it[a/recorded:x/fp16/digits]", True),
        ("t.py::test_it[a/recorded:x/bf16]", True),
        ("t.py::test_it", False),
        ("w4/w4/t.py::test_it[w4]", False),
        ("t.py::test_url[http://a/b]", False),
        ("t.py::test_it[a/words/b]", False),
    ],
)
def test_ids_of_cases_are_told_without_a_plan(nodeid, may_be):
    assert may_be_of_cases(["t.py::test_other", nodeid]) == may_be


@pytest.mark.parametrize("scope", ["both", "text"])
@pytest.mark.parametrize("bits", [Format.integers(2), Format.integers(8, 4)])
def test_every_case_may_be_one(bits, scope):
    build = Build(model="ViT-B-32/openai", quantizer="minmax", bits=bits, scope=scope, calibration=None)
    assert may_be_of_cases([f"t.py::test_it[{Case(build, 'digits').id}]"])
    assert may_be_of_cases([f"t.py::test_it[{build.id}-x]"])


def test_without_a_plan_no_test_is_about_anything():
    assert Subjects(None).find("qreliab::test_ood[a/minmax/w4/digits]") is None
