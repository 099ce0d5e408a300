import numpy as np
import pytest
from PIL import Image

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.data import dataset, loading
from pytest_qreliab.errors import InputError


def load(path) -> dataset.Dataset:
    return loading.load(Benchmark.load(str(path)))


def test_image_folders(folder_benchmark):
    loaded = load(folder_benchmark)
    assert loaded.classes == ("cat", "dog", "owl")
    assert loaded.in_distribution.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    expected = Image.open(folder_benchmark.parent / "images" / "dog" / "1.png")
    np.testing.assert_array_equal(np.asarray(loaded.in_distribution.load(7)), np.asarray(expected))
    assert loaded.class_captions[2] == ["a photo of a owl."]
    assert len(loaded.ood["noise"]) == 6
    assert loaded.ood["noise"].labels is None


def write(folder, text):
    path = folder / "b.yaml"
    path.write_text(f"version: 1\n{text}\n")
    return path


IMAGES = "in_distribution: {source: image-folder, path: images}\n"


def test_paths_expand(image_folders, monkeypatch):
    monkeypatch.setenv("QRELIAB_TEST_ROOT", str(image_folders))
    path = write(image_folders, "in_distribution: {source: image-folder, path: $QRELIAB_TEST_ROOT/images}")
    assert len(load(path).in_distribution) == 18


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (IMAGES + "classes: [cat, dog]", r"b\.yaml:3: classes and folders .* no class for the folders owl"),
        (IMAGES + "classes: [cat, dog, owl, cow]", r"b\.yaml:3: .*no folder for cow"),
        ("in_distribution: {source: image-folder, path: ood}", r"b\.yaml:2: .*holds no class folders"),
        (
            "in_distribution: {source: image-folder, path: images, pattern: '*/*'}",
            r"b\.yaml:2: .*pattern: .*should match",
        ),
        ("in_distribution: {source: image-folder, path: nowhere}", r"b\.yaml:2: .*nowhere: the folder cannot be read"),
        (IMAGES + "ood:\n  far:\n    x: {source: flat-folder, path: images}", r"b\.yaml:5: .*source: image-folder"),
        (IMAGES + "ood:\n  far:\n    x: {source: flat-folder, path: empty}", r"b\.yaml:5: .*holds no images"),
        (IMAGES + "calibration: {source: flat-folder, path: empty}", r"b\.yaml:3: .*holds no images"),
        (
            IMAGES + "negatives:\n  - hen\n  - Cat",
            r"b\.yaml:5: the negative label 'Cat' is a class of the .*; take it out",
        ),
        (IMAGES + "classes: {cat: a, dog: b, owl: c}\nnegatives: [d, b]", r"b\.yaml:4: .*'b' is a class"),
        (IMAGES + "negatives:\n  - hen\n  - Hen", r"b\.yaml:5: the negative label 'Hen' is given twice; take it out"),
        (
            "in_distribution: {source: digits, part: test}\nclasses: [a, b]",
            r"b\.yaml:2: .* have a label of no class: unk",
        ),
        ("in_distribution: {source: digits, part: test}", r"b\.yaml:1: give `classes:`, the names in label order"),
    ],
)
def test_folders_that_do_not_fit_are_told_with_their_line(image_folders, text, message):
    (image_folders / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        load(write(image_folders, text))


def test_an_empty_class_folder_is_an_error(image_folders):
    (image_folders / "images" / "yak").mkdir()
    with pytest.raises(InputError, match="yak holds no images"):
        load(write(image_folders, IMAGES))
