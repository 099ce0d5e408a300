"""The files of a snapshot."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_qreliab.errors import InputError
from pytest_qreliab.report import snapshot
from pytest_qreliab.report.snapshot import ModelSnapshot

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.fixed_dictionaries(
    {"value": NUMBERS, "change": NUMBERS, "low": NUMBERS | st.none(), "high": NUMBERS | st.none(), "n": st.integers(0)}
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no snapshot of version 1: Invalid JSON*"),
        ('{"version": 2, "model": "m"}', "is no snapshot of version 1: version: Input should be 1*"),
        ('{"version": 1, "model": "m", "more": 1}', "is no snapshot of version 1: more: Extra inputs*"),
    ],
)
def test_files_that_are_no_snapshots(tmp_path, content, message):
    (tmp_path / "m.json").write_text(content)
    pattern = re.escape(f"{tmp_path}/m.json: {message}").replace(r"\*", ".*")
    with pytest.raises(InputError, match=pattern):
        snapshot.load(tmp_path)


def test_two_files_of_one_model(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(ModelSnapshot(model="m").text())
    with pytest.raises(InputError, match=r"b\.json: .*a\.json is of m as well; remove one of them"):
        snapshot.load(tmp_path)


@given(
    NAMES,
    st.dictionaries(
        NAMES, st.fixed_dictionaries({"data": NAMES, "environment": NAMES, "metrics": st.dictionaries(NAMES, VALUES)})
    ),
)
def test_what_is_written_comes_back_and_does_not_depend_on_the_order(model, cases):
    written = ModelSnapshot.model_validate({"model": model, "cases": cases})
    assert ModelSnapshot.model_validate_json(written.text()) == written
    turned = ModelSnapshot.model_validate({"cases": dict(reversed(cases.items())), "model": model})
    assert turned.text() == written.text()


def test_models_of_like_names_have_files_of_their_own(build, tmp_path):
    accepted = snapshot.load(tmp_path, "new")
    assert accepted.renew([build.case(0, model="a/b"), build.case(1, model="a_b")]).refused == []
    assert len(list(tmp_path.iterdir())) == 2
    assert snapshot.load(tmp_path).models.keys() == {"a/b", "a_b"}


def test_metrics_gated_later_are_added_and_others_keep_their_values(build, tmp_path):
    first, later = build.case(0), build.case(0)
    first["gates"][0]["metric"] = later["gates"][0]["metric"] = old = build.OTHERS[0]
    later["gates"][1]["metric"] = new = build.OTHERS[1]
    for metric in later["metrics"]:
        metric["quantized"] += 1
    case = first["case"]
    assert snapshot.load(tmp_path, "new").renew([first]).new == [case]
    before = snapshot.load(tmp_path).models["tiny"].cases[case].metrics
    assert snapshot.load(tmp_path, "new").renew([later]).changed == [case]
    after = snapshot.load(tmp_path).models["tiny"].cases[case].metrics
    assert before.keys() == {old}
    assert after.keys() == {old, new}
    assert after[old] == before[old]
    assert snapshot.load(tmp_path, "new").renew([later]).kept == [case]
    assert snapshot.load(tmp_path, "all").renew([later]).changed == [case]


def test_a_case_with_a_failed_gate_is_refused(build, tmp_path):
    failing = build.case(0, outcomes={"accuracy": "fail"})
    assert snapshot.load(tmp_path, "all").renew([failing]).refused == [failing["case"]]
    assert list(tmp_path.iterdir()) == []
