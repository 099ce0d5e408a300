"""Benchmarks that extend others, the shipped catalogue, and what `qreliab check` says of data."""

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from pytest_qreliab import cli
from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.config.cases import Case
from pytest_qreliab.config.document import shipped
from pytest_qreliab.data import class_names, loading
from pytest_qreliab.data import labels as data_labels
from pytest_qreliab.data.batches import batches
from pytest_qreliab.data.sources import folders
from pytest_qreliab.errors import InputError
from pytest_qreliab.models import hub, openclip

BASE = """\
version: 1
templates: ["a {}."]
in_distribution: {source: image-folder, path: images, limit: 9}
ood:
  near: {a: {source: flat-folder, path: ood}}
  far: {b: {source: flat-folder, path: ood, limit: 3}, c: {source: letters}}
"""


def write(path, text: str):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


def test_a_benchmark_is_laid_over_those_that_it_extends(image_folders):
    write(image_folders / "base.yaml", BASE)
    more = "version: 1\nextends: ../base.yaml\ntemplates: ['{}']\nood: {near: null, far: {b: {limit: 2}, c: null}}\n"
    found = Benchmark.load(write(image_folders / "sub" / "mine.yaml", more))
    assert found.name == "mine"
    assert found.definition.templates == ["{}"]
    loaded = loading.load(found)
    assert (len(loaded.in_distribution), {name: len(images) for name, images in loaded.ood.items()}) == (9, {"b": 2})
    assert found.where(("ood", "far", "b", "limit")).endswith("mine.yaml:4")
    assert found.where(("ood", "far", "b", "path")).endswith("base.yaml:6")
    replaced = Benchmark.load(
        write(image_folders / "r.yaml", "version: 1\nextends: base.yaml\nood: {far: {b: {source: letters}}}\n")
    )
    assert replaced.definition.ood.far["b"].limit is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: mine.yaml\n", r"mine.yaml:2: mine.yaml extends itself|extends itself"),
        ("extends: nothing.yaml\n", r"mine.yaml:2: unknown benchmark 'nothing.yaml'"),
        (
            "extends: base.yaml\nood: {fra: null}\n",
            r"mine.yaml:3: unknown key 'fra'; did you mean 'far'\?.* null takes out",
        ),
        ("extends: base.yaml\nood: {far: {b: {limit: 0}}}\n", r"mine.yaml:3: ood.far.b.limit: .*greater"),
        ("extends: base.yaml\nin_distribution: null\n", r"in_distribution: is missing"),
    ],
)
def test_extensions_that_cannot_be_are_told(image_folders, text, message):
    write(image_folders / "base.yaml", BASE)
    with pytest.raises(InputError, match=message):
        Benchmark.load(write(image_folders / "mine.yaml", "version: 1\n" + text))


# The catalogue


@pytest.mark.parametrize("name", shipped("benchmarks"))
def test_every_entry_has_classes_prompts_sources_and_terms(name, monkeypatch, tmp_path):
    monkeypatch.setenv("QRELIAB_DATA", str(tmp_path))
    found = Benchmark.load(name)
    assert len(data_labels.load_classes(found).names) >= 10
    for full_name, source, at in found.sources():
        if hasattr(source, "path") or hasattr(source, "root"):
            for part in ("size", "origin", "layout", "licence"):
                assert getattr(source, part), (name, full_name, part)
            assert str(tmp_path) in str(found.path(getattr(source, "path", None) or source.root, at))


def test_the_study_is_a_grid_of_its_models_methods_and_widths(make_plan, monkeypatch):
    monkeypatch.setattr(openclip, "check_packages", lambda *given: None)  # SigLIP's tokenizer needs transformers
    with hub.access(hub.Access(network=False)):
        plan = make_plan(suite="study", thresholds="default", benchmarks="digits")
    assert len(plan.cases) == 10 * 16 * 3 * 2


def small_imagenet(root, classes: int = 1000) -> None:
    """The layout of imagenet-small, with an image or so in every folder."""
    keys = list(class_names.read_classes("imagenet", root))[:classes]
    image = root / "x.jpeg"
    Image.new("RGB", (16, 16)).save(image)
    names = [f"imagenet/{part}/{key}" for part in ("val", "train") for key in keys]
    names += [f"imagenetv2-matched-frequency-format-val/{index}" for index in range(classes)]
    names += ["ninco/frog", "dtd/images/banded"]
    animals = {label: name for label, name in {10: "salamander", 100: "black swan"}.items() if label < classes}
    for label, name in animals.items():
        names += [f"counteranimal/LAION-final/{label} {name}/{where}" for where in ("common-grass", "counter-snow")]
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "x.jpeg").hardlink_to(image)


def test_the_check_of_an_empty_root_a_half_copied_set_and_a_right_one_made_small(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("QRELIAB_DATA", raising=False)
    assert cli.main(["check", "imagenet-small"]) == 1
    assert (
        "the environment variable QRELIAB_DATA, in '$QRELIAB_DATA/imagenet/val', is not set" in capsys.readouterr().out
    )
    monkeypatch.setenv("QRELIAB_DATA", str(tmp_path / "empty"))
    assert cli.main(["check", "imagenet-small"]) == 1
    out = capsys.readouterr().out
    assert out.count("missing  ") == 7
    assert "from https://image-net.org; laid out as imagenet/val/n01440764/*.JPEG, 1000 folders" in out
    for folder, classes in (("half", 400), ("whole", 1000)):
        monkeypatch.setenv("QRELIAB_DATA", str(tmp_path / folder))
        (tmp_path / folder).mkdir()
        small_imagenet(tmp_path / folder, classes)
        code, out = cli.main(["check", "imagenet-small"]), capsys.readouterr().out
        if folder == "half":
            assert code == 1
            assert out.count("and 595 more") == 2  # of calibration images no class need be there
        else:
            assert code == 0
            told = "smaller  in_distribution: 1,000 images; 50,000 are published, a run measures on what is there"
            assert told in out
            loaded = loading.load(Benchmark.load("imagenet-small"))
            assert len(loaded.labelled["shift.v2"]) == 1000
            assert loaded.labelled["spurious.counter"].labels.tolist() == [10, 100]
            assert loaded.labelled["spurious.common"].ids[0] == "10 salamander/common-grass/x.jpeg"
    assert cli.main(["check", "digits"]) == 0
    out = capsys.readouterr().out
    assert "present  shift.printed: 900 images" in out
    assert "present  corruption, each of 15 cells: 250 images" in out
    assert "warning" not in out


def test_a_set_may_be_of_fewer_classes_and_is_evaluated_over_those(image_folders):
    def shifted(more: str):
        text = "version: 1\nin_distribution: {source: image-folder, path: images}\nclasses: [owl, dog, cat]\n"
        (image_folders / "some" / "cat").mkdir(parents=True, exist_ok=True)
        (image_folders / "some" / "owl").mkdir(exist_ok=True)
        for name in ("cat", "owl"):
            Image.new("L", (4, 4)).save(image_folders / "some" / name / "x.png")
        text += f"covariate_shift: {{some: {{source: image-folder, path: some{more}}}}}\n"
        return loading.load(Benchmark.load(write(image_folders / "b.yaml", text))).labelled["shift.some"]

    found = shifted(", classes: [cat, owl]")
    assert (found.labels.tolist(), found.classes.tolist()) == ([2, 0], [0, 2])
    found = shifted(", partial: true")
    assert (found.labels.tolist(), found.classes) == ([2, 0], None)
    with pytest.raises(InputError, match="no folder for dog"):
        shifted("")
    with pytest.raises(InputError, match="unknown class key 'cow'"):
        shifted(", classes: [cow, cat]")


def test_calibration_images_are_held_out_of_those_measured_on(image_folders):
    text = BASE.replace(", limit: 9", "") + "calibration: {source: held-out, limit: 6}\n"
    found = loading.load(Benchmark.load(write(image_folders / "b.yaml", text)))
    assert len(found.calibration) == 6
    assert len(found.in_distribution) == 12
    assert not set(found.calibration.ids) & set(found.in_distribution.ids)
    assert np.bincount(found.calibration.labels).tolist() == [2, 2, 2]


def test_published_corruptions_are_read_from_where_they_lie(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(10, dtype=np.int64) % 2
    for kind in ("fog", "snow"):
        np.save(tmp_path / f"{kind}.npy", rng.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8))
    np.save(tmp_path / "y.npy", np.tile(labels, 5))
    np.save(tmp_path / "x.npy", rng.integers(0, 256, (10, 8, 8, 3), dtype=np.uint8))
    np.save(tmp_path / "t.npy", labels)
    text = (
        "version: 1\nclasses: [a, b]\nin_distribution: {source: arrays, path: x.npy, labels: t.npy}\n"
        "corruptions:\n  kinds: [fog, snow]\n  severities: [2, 5]\n  limit: 4\n"
        "  source: {source: arrays, path: '{kind}.npy', labels: y.npy, part: '{severity}/5'}\n"
    )
    found = loading.load(Benchmark.load(write(tmp_path / "b.yaml", text))).labelled
    assert list(found) == ["corruption.fog.2", "corruption.fog.5", "corruption.snow.2", "corruption.snow.5"]
    cell = found["corruption.snow.5"]
    assert all(40 <= int(identity) < 50 for identity in cell.ids)
    expected = np.load(tmp_path / "snow.npy")[int(cell.ids[0])]
    np.testing.assert_array_equal(np.asarray(cell.load(0)), expected)
    with pytest.raises(InputError, match=r"the source needs \{kind\} in its path"):
        Benchmark.load(write(tmp_path / "b.yaml", text.replace("{kind}", "fog")))


# Preprocessing


def test_images_go_through_the_models_own_transform_bit_for_bit(tiny, realdata):
    paths = sorted((realdata / "caltech101" / "butterfly").iterdir())[:9]
    from pytest_qreliab.data.images import ImageSet

    batch = next(
        batches(
            ImageSet(name="b", ids=[str(i) for i in range(9)], load=lambda i: folders.load_image(paths[i])),
            tiny.preprocess,
        )
    )
    expected = image_transform_v2(PreprocessCfg(**tiny.module.visual.preprocess_cfg), is_train=False)
    for path, found in zip(paths, batch, strict=True):
        with Image.open(path) as image:
            assert torch.equal(found, expected(image))


# Suites


def test_a_suite_excludes_cases_and_holds_groups_to_thresholds_of_their_own(
    tmp_path, small_benchmark, make_plan, write_thresholds
):
    write_thresholds("accuracy: {max_drop: 0.5}", "loose.yaml")
    write_thresholds("accuracy: {max_drop: 0.1}", "strict.yaml")
    text = (
        f"version: 1\nbits: [w4, w8]\nscopes: [vision, both]\nbenchmarks: ['{small_benchmark}']\n"
        "thresholds: strict.yaml\nexclude:\n  - {bits: w4, scope: vision}\n"
        "groups:\n  - {match: {bits: w4}, thresholds: loose.yaml}\n"
    )
    suite = write(tmp_path / "s.yaml", text)
    plan = make_plan(suite=suite)

    def limits(plan) -> dict[str, float]:
        return {f"{case.build.bits} {case.build.scope}": gates[0].value for case, gates in plan.gates.items()}

    assert limits(plan) == {"w4 both": 0.5, "w8 vision": 0.1, "w8 both": 0.1}
    assert all(isinstance(case, Case) for case in plan.thresholds)
    assert limits(make_plan(suite=suite, thresholds=str(tmp_path / "strict.yaml")))["w4 both"] == 0.1
    with pytest.raises(InputError, match=r"s.yaml:7: nothing is left to run"):
        make_plan(suite=suite, bits="w4", scopes="vision")
