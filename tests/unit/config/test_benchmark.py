import pytest

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.config.document import shipped
from pytest_qreliab.errors import InputError


def test_shipped_benchmarks_are_valid():
    for name in shipped("benchmarks"):
        assert Benchmark.load(name).definition.description


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
