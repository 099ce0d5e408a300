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
        (
            f"version: 1\n{ID}negatives:\n  - apple\n  - no\n",
            r":5: negatives\.1: YAML reads no as a number, .*: \"no\"$",
        ),
        (f"version: 1\n{ID}classes: {{a: 0, b: 1}}\n", r":3: classes: YAML reads 0, 1 as a number, .*: \"0\", \"1\"$"),
        (f"version: 1\n{ID}classes: [null, 2024-01-01]\n", r":3: classes: YAML reads null, 2024-01-01 as a number"),
        (f"version: 1\n{ID}templates: [no, '{{}}']\n", r":3: templates\.0: YAML reads no as .*quotes: \"no\"$"),
        (f"version: 1\n{ID}corruptions: {{kinds: [no]}}\n", r":3: corruptions\.kinds\.0: unknown value 'no'"),
        (
            f"version: 1\n{ID}ood: {{far: {{no: {{source: letters}}}}}}\n",
            r":3: not valid YAML: YAML reads the key no as",
        ),
        ("version: 1\nin_distribution: {source: no}\n", r":2: in_distribution: unknown source 'no'"),
        ("version: 1\nin_distribution: {source: flat-folder, path: 2024}\n", r":2: in_distribution: unknown source"),
        (
            f"version: 1\n{ID}corruptions:\n  source: {{source: arrays, path: '{{kind}}{{severity}}', limit: 3}}\n",
            r":3: corruptions: write `limit` beside `source`",
        ),
        (f"version: 1\n{ID}negatives: apple\n", r":3: negatives: .*valid list"),
        (
            f"version: 1\n{ID}calibration:\n  captions: {{source: table, pth: a.csv}}\n",
            r":4: calibration\.captions: unknown key 'pth'; did you mean 'path'",
        ),
        (
            f"version: 1\n{ID}calibration:\n  captions: {{source: image-folder, path: a}}\n",
            r":4: calibration\.captions: unknown source 'image-folder'; valid: table, webdataset$",
        ),
        (
            f"version: 1\n{ID}calibration:\n  captions: pairs.csv\n",
            r":4: calibration\.captions: write what the file is as well: {source: table, path: pairs\.csv}$",
        ),
        (
            f"version: 1\n{ID}calibration: {{captions: {{source: table, path: a.csv}}, limit: 3}}\n",
            r":3: calibration: unknown key 'limit'; valid: captions, source$",
        ),
        (
            "version: 1\nin_distribution:\n  source: digits\n  part: test\n  captions: {source: table, path: a.csv}\n",
            r":5: `captions` are for quantizers to look at: write them in `calibration:`$",
        ),
    ],
)
def test_mistakes_in_benchmarks_are_told_with_their_line(tmp_path, text, message):
    path = tmp_path / "b.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"b\.yaml{message}"):
        Benchmark.load(str(path))


def test_captions_stand_beside_calibration_images_or_alone_and_may_be_added_to_a_benchmark(tmp_path):
    captions = "captions: {source: webdataset, path: a.tar}"
    base = f"version: 1\n{ID}calibration: {{source: held-out, limit: 3}}\n"
    files = {
        "base": base,
        "alone": f"version: 1\n{ID}calibration: {{{captions}}}\n",
        "both": f"version: 1\n{ID}calibration: {{source: held-out, limit: 3, {captions}}}\n",
        "extended": f"version: 1\nextends: base.yaml\ncalibration: {{{captions}}}\n",
    }
    found = {}
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
        sources = list(Benchmark.load(str(tmp_path / f"{name}.yaml")).sources())
        found[name] = [(wanted.name, wanted.at) for wanted in sources[1:]]
    images, pairs = ("calibration", ("calibration",)), ("captions", ("calibration", "captions"))
    assert found == {"base": [images], "alone": [pairs], "both": [images, pairs], "extended": [images, pairs]}


def test_a_thousand_class_names_that_are_numbers_are_one_message(tmp_path):
    path = tmp_path / "b.yaml"
    path.write_text("version: 1\nclasses:\n" + "".join(f"  - {n}\n" for n in range(1000)) + ID)
    with pytest.raises(InputError) as caught:
        Benchmark.load(str(path))
    assert str(caught.value).endswith(
        "b.yaml:3: classes: YAML reads 0, 1, 2, 3, 4 and 995 more as a number, a date, true, false or nothing; "
        'write text in quotes: "0", "1" ...'
    )


def test_keys_of_classes_may_be_whole_numbers(tmp_path):
    path = tmp_path / "b.yaml"
    path.write_text(f"version: 1\nclasses: {{0: zero, 1: one}}\n{ID}")
    assert Benchmark.load(str(path)).definition.classes == {"0": "zero", "1": "one"}


@pytest.mark.parametrize("text", ["a" * 256, f"x/{'ä' * 128}/y"])
def test_a_name_that_no_file_can_have_is_too_long(tmp_path, text):
    path = tmp_path / "b.yaml"
    path.write_text(f"version: 1\n{ID}")
    found = Benchmark.load(str(path))
    with pytest.raises(InputError, match=r"is too long for the path of a file"):
        found.path(text, ())
    assert found.path(text[1:] if "/" not in text else "x/y", ()).parent.is_relative_to(tmp_path)
