import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.config.cases import Bits, Build, Case
from pytest_qreliab.config.document import shipped
from pytest_qreliab.config.suite import Suite
from pytest_qreliab.config.thresholds import Thresholds
from pytest_qreliab.errors import InputError


def case(bits: Bits = Bits(4, 8), model: str = "m", scope: str = "both", benchmark: str = "b") -> Case:  # noqa: B008
    return Case(Build(model, "q", bits, scope, None), benchmark)


def thresholds(tmp_path, text: str) -> Thresholds:
    path = tmp_path / "t.yaml"
    path.write_text(text)
    return Thresholds.load(str(path))


def test_shipped_files_are_valid():
    assert Thresholds.load("default").gates(case())
    for name in shipped("benchmarks"):
        assert Benchmark.load(name).definition.description
    for path in shipped("suites").values():
        assert Suite.load(path).definition.benchmarks


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
    [(Bits(8), "x", 0.01), (Bits(4), "x", 0.03), (Bits(4, 8), "x", 0.04), (Bits(8), "m1", 0.05)],
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
    assert loaded.gates(case(Bits(8)))
    with pytest.raises(InputError, match=r"t\.yaml:5: two overrides of equal rank .*t\.yaml:4"):
        loaded.gates(case(Bits(4)))


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
        ("version: 1\ngates:\n  ece: {min: 1, max: 0}\n", r":3: .*nothing can pass"),
        ("version: 1\ngates: {}\n", r":2: gates: .*at least 1"),
        ("version: 2\ngates: {ece: {max: 1}}\n", r":1: version: .*1"),
        ("version: 1\nconfidence: 95\ngates: {ece: {max: 1}}\n", r":2: confidence: .*less than 1"),
        (
            "version: 1\ninconclusive: ignore\ngates: {ece: {max: 1}}\n",
            r":2: inconclusive: unknown value .*valid: estimate",
        ),
        ("version: 1\ngates: {ece: {max: 1}}\ngates: {}\n", r":3: .*'gates' is given twice, first on line 2"),
        ("version: 1\ngates: [\n", r":3: not valid YAML"),
        ("version: 1\ngates: !!python/object/apply:os.system ['true']\n", r":2: not valid YAML"),
        ("version: 1\ngates: &a {ece: *a}\n", r":1: an alias refers to itself"),
        ("version: 1\ngates: 2020-99-99\n", r":2: not valid YAML: month must be"),
        ("? [a]\n: 1\n", r":1: not valid YAML: the key \['a'\] is no plain word"),
        ("", r":1: expected a mapping of keys, found nothing"),
        ("- 1\n", r":1: expected a mapping of keys, found list"),
    ],
)
def test_mistakes_in_thresholds_are_told_with_their_line(tmp_path, text, message):
    with pytest.raises(InputError, match=rf"t\.yaml{message}"):
        thresholds(tmp_path, text)


@given(st.text() | st.text(st.sampled_from("abgates:{}[]-?&*!|>'\"#%@ \n\t0189.~<"), max_size=40))
@example("version: 1\ngates: {? {a: 1} : 2}")
@example("0: 1\n0: 2")
@example("a: 0b2\nb: 1e999\nc: 0o9")
def test_no_text_makes_a_traceback(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogateescape" if text.isascii() else "replace")
    for load in (Thresholds.load, Benchmark.load):
        with pytest.raises(InputError, match=r"any\.yaml"):
            load(str(path))


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(InputError, match=r"unknown thresholds file 'defaults'; did you mean 'default'"):
        Thresholds.load("defaults")
    (tmp_path / "t.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        Thresholds.load(str(tmp_path / "t.yaml"))


ID = "in_distribution: {source: digits, part: test}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 1\n", r":1: in_distribution: is missing"),
        ("version: 1\nin_distribution: {source: digit, part: test}\n", r":2: in_distribution: .*'digits'"),
        ("version: 1\nin_distribution: {source: letters}\n", r":2: in_distribution: .*image-folder"),
        (f"version: 1\n{ID}ood:\n  near:\n    x: {{source: flat-folder, pth: a}}\n", r":5: .*did you mean 'path'"),
        (f"version: 1\n{ID}ood:\n  near:\n    x: {{source: letters, limit: 0}}\n", r":5: .*greater than or equal"),
        (f"version: 1\n{ID}ood:\n  near: {{a.b: {{source: letters}}}}\n", r":4: .*pattern"),
        (f"version: 1\n{ID}templates: [a photo]\n", r":3: templates: .*needs {} once"),
        (f"version: 1\n{ID}classes: [a, b, a]\n", r":3: classes: .*given twice: a"),
        (f"version: 1\n{ID}classes: [a]\n", r":3: classes: .*two classes"),
        (
            f"version: 1\n{ID}ood:\n  near: {{x: {{source: letters}}}}\n  far: {{x: {{source: letters}}}}\n",
            r":5: the OOD set 'x' is also in 'near'",
        ),
        (
            f"version: 1\n{ID}ood:\n  far:\n    near: {{source: letters}}\n",
            r":5: 'near' stands for the mean .*near sets",
        ),
        (f"version: 1\n{ID}ood:\n  near:\n    near: {{source: letters}}\n", r":5: 'near' stands for the mean"),
        (f"version: 1\n{ID}ood:\n  near: {{x: {{source: letters}}, far: {{source: letters}}}}\n", r":4: 'far' stands"),
        ("version: 1\nin_distribution: {path: x}\n", r":2: in_distribution: `source:` is missing"),
        (
            f"version: 1\n{ID}corruptions:\n  kinds: [fog, sonw]\n",
            r":4: corruptions\.kinds\.1: unknown value 'sonw'; did you mean 'snow'\?; valid: .*\(19 in all\)$",
        ),
        (
            f"version: 1\n{ID}corruptions: {{kinds: 5}}\n",
            r":3: corruptions\.kinds: unknown value '5'; valid: all, standard; or Input should be a valid list$",
        ),
        (f"version: 1\n{ID}ood: {{far: {{x: {{source: lettrs}}}}}}\n", r":3: ood\.far\.x: .*did you mean 'letters'"),
        (f"version: 1\n{ID}calibration: {{source: held-out}}\n", r":3: calibration\.limit: Field required$"),
        (f"version: 1\n{ID}negatives: []\n", r":3: negatives: .*at least 1"),
        (f"version: 1\n{ID}negatives:\n  - apple\n  - ' '\n", r":5: negatives.*pattern"),
        (f"version: 1\n{ID}negatives:\n  - apple\n  - no\n", r":5: negatives.*valid string"),
        (f"version: 1\n{ID}negatives: apple\n", r":3: negatives: .*valid list"),
    ],
)
def test_mistakes_in_benchmarks_are_told_with_their_line(tmp_path, text, message):
    path = tmp_path / "b.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"b\.yaml{message}"):
        Benchmark.load(str(path))
