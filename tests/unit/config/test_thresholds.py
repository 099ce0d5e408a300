import pytest

from pytest_qreliab.config.cases import Build, Case
from pytest_qreliab.config.formats import Format
from pytest_qreliab.config.thresholds import Thresholds
from pytest_qreliab.errors import InputError


def case(bits: Format = Format.integers(4, 8), model: str = "m", scope: str = "both", benchmark: str = "b") -> Case:  # noqa: B008
    return Case(Build(model=model, quantizer="q", bits=bits, scope=scope, calibration=None), benchmark)


def thresholds(tmp_path, text: str) -> Thresholds:
    path = tmp_path / "t.yaml"
    path.write_text(text)
    return Thresholds.load(str(path))


def test_the_shipped_thresholds_gate_every_case():
    assert Thresholds.load("default").gates(case())


def test_a_gate_knows_its_line(tmp_path):
    loaded = thresholds(
        tmp_path, "version: 1\ngates:\n  accuracy:\n    max_drop: 0.1\n    min: 0.5\n  ece: {max: 0.2}\n"
    )
    gates = loaded.gates(case())
    assert [(g.metric, g.limit, g.value, g.where.rpartition(":")[2]) for g in gates] == [
        ("accuracy", "max_drop", 0.1, "4"),
        ("accuracy", "min", 0.5, "5"),
        ("ece", "max", 0.2, "6"),
    ]


def test_a_gate_may_be_skipped_where_its_own_limits_say_so(tmp_path):
    text = (
        "version: 1\ngates: {accuracy: {max_drop: 1}, ece: {max: 1, max_rise: 1, where_missing: skip}}\n"
        "overrides: [{match: {bits: w4a8}, gates: {ece: {max: 2}}}]\n"
    )
    gates = thresholds(tmp_path, text).gates(case(Format.integers(8)))
    assert {(g.metric, g.limit, g.skippable) for g in gates} == {
        ("accuracy", "max_drop", False), ("ece", "max", True), ("ece", "max_rise", True),
    }  # fmt: skip
    assert [g.skippable for g in thresholds(tmp_path, text).gates(case())] == [False, False]


OVERRIDES = """\
version: 1
gates: {accuracy: {max_drop: 0.01}, ece: {max_rise: 0.02}}
overrides:
  - match: {bits: "w4*"}
    gates: {accuracy: {max_drop: 0.03}}
  - match: {bits: w4a8}
    gates: {accuracy: {max_drop: 0.04}}
  - match: {bits: "w*", model: "m*"}
    gates: {accuracy: {max_drop: 0.05}}
"""


@pytest.mark.parametrize(
    ("bits", "model", "limit"),
    [
        (Format.integers(8), "x", 0.01),
        (Format.integers(4), "x", 0.03),
        (Format.integers(4, 8), "x", 0.04),
        (Format.integers(8), "m1", 0.05),
    ],
)
def test_the_most_specific_override_wins_and_leaves_other_metrics_alone(tmp_path, bits, model, limit):
    gates = thresholds(tmp_path, OVERRIDES).gates(case(bits, model))
    assert [(g.metric, g.value) for g in gates] == [("accuracy", limit), ("ece", 0.02)]


def test_overrides_of_equal_rank_are_an_error_with_both_lines(tmp_path):
    loaded = thresholds(
        tmp_path,
        "version: 1\ngates: {accuracy: {max_drop: 1}}\noverrides:\n"
        "  - {match: {bits: 'w4*'}, gates: {accuracy: {max_drop: 1}}}\n"
        "  - {match: {model: 'm*'}, gates: {accuracy: {max_drop: 1}}}\n",
    )
    assert loaded.gates(case(Format.integers(8)))
    with pytest.raises(InputError, match=r"t\.yaml:5: two overrides of equal rank .*t\.yaml:4"):
        loaded.gates(case(Format.integers(4)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 1\ngates:\n  acuracy: {max_drop: 1}\n", r":3: .*unknown metric 'acuracy'; did you mean 'accuracy'"),
        ("version: 1\ngate: {}\n", r":2: unknown key 'gate'; did you mean 'gates'"),
        ("version: 1\ngates:\n  ece: {max_rice: 1}\n", r":3: .*unknown key 'max_rice'; did you mean 'max_rise'"),
        ("version: 1\ngates:\n  ece: {max_drop: 1}\n", r":3: .*write max_rise"),
        ("version: 1\ngates:\n  accuracy: {max_rise: 1}\n", r":3: .*write max_drop"),
        ("version: 1\ngates:\n  confidence_gap: {max_drop: 1}\n", r":3: .*write max_change"),
        ("version: 1\ngates:\n  ece:\n    max_rise: .nan\n", r":4: gates.ece.max_rise: .*finite"),
        ("version: 1\ngates:\n  ece: {max_rise: -1}\n", r":3: .*greater than or equal to 0"),
        ("version: 1\ngates:\n  ece: {max_rise: '1'}\n", r":3: .*valid number"),
        ("version: 1\ngates:\n  ece: {}\n", r":3: .*at least one of"),
        ("version: 1\ngates:\n  ece: {where_missing: skip}\n", r":3: .*at least one of max_drop, .*, max_drift$"),
        ("version: 1\ngates:\n  ece: {max: 1, where_missing: pass}\n", r":3: gates.ece.where_missing: .*valid: skip"),
        ("version: 1\ngates:\n  ece: {min: 1, max: 0}\n", r":3: .*nothing can pass"),
        ("version: 1\ngates: {}\n", r":2: gates: .*at least 1"),
        ("version: 2\ngates: {ece: {max: 1}}\n", r":1: version: .*1"),
        ("version: 1\nconfidence: 95\ngates: {ece: {max: 1}}\n", r":2: confidence: .*less than 1"),
        (
            "version: 1\ninconclusive: ignore\ngates: {ece: {max: 1}}\n",
            r":2: inconclusive: unknown value .*valid: estimate",
        ),
    ],
)
def test_mistakes_in_thresholds_are_told_with_their_line(tmp_path, text, message):
    with pytest.raises(InputError, match=rf"t\.yaml{message}"):
        thresholds(tmp_path, text)
