import unicodedata

import numpy as np
import pytest
from PIL import Image

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.data import dataset, loading
from pytest_qreliab.errors import InputError


def load(path) -> dataset.Dataset:
    return loading.load(Benchmark.load(str(path)))


def write(folder, text):
    path = folder / "b.yaml"
    path.write_text(f"version: 1\n{text}\n")
    return path


IMAGES = "in_distribution: {source: image-folder, path: images}\n"


def test_classes_may_name_the_folders_in_their_own_order(image_folders):
    loaded = load(write(image_folders, IMAGES + "classes: {owl: an owl, cat: a cat, dog: a dog}"))
    assert loaded.classes == ("an owl", "a cat", "a dog")
    first = loaded.in_distribution.ids.index("owl/0.jpg")
    assert loaded.in_distribution.labels[first] == 0
    assert load(write(image_folders, IMAGES + "classes: [owl, dog, cat]")).classes == ("owl", "dog", "cat")


def test_near_sets_and_negative_labels(image_folders):
    sets = "ood:\n  near: {a: {source: flat-folder, path: ood}}\n  far: {b: {source: flat-folder, path: ood}}\n"
    loaded = load(write(image_folders, IMAGES + sets + "negatives: [a fish, hen]\ntemplates: ['{}', 'one {}']"))
    assert list(loaded.ood) == ["a", "b"]
    assert loaded.near == {"a"}
    assert loaded.negatives == ("a fish", "hen")
    assert loaded.filled("hen") == ["hen", "one hen"]
    plain = load(write(image_folders, IMAGES))
    assert (plain.near, plain.negatives) == (frozenset(), ())


def test_the_negative_labels_of_the_digits_are_none_of_them():
    loaded = loading.load(Benchmark.load("digits"))
    assert len(loaded.negatives) == 40
    assert not set(loaded.negatives) & set(loaded.classes)
    assert loaded.near == {"letters"}


def test_images_of_other_labels_are_left_out_on_request_and_counted(image_folders):
    source = "in_distribution: {source: image-folder, path: images%s}\nclasses: {owl: an owl, cat: a cat}\n"
    with pytest.raises(InputError, match="no class for the folders dog"):
        load(write(image_folders, source % ""))
    loaded = load(write(image_folders, source % ", other_labels: skip"))
    assert loaded.in_distribution.labels.tolist() == [1] * 6 + [0] * 6
    assert loaded.warnings == ("b: in_distribution: 6 images left out, with labels of no class: dog",)
    with pytest.raises(InputError, match=r"b\.yaml:2: no image has the label of a class; there is cat, dog, owl"):
        load(
            write(
                image_folders, (source % ", other_labels: skip, partial: true").replace("owl", "x").replace("cat", "y")
            )
        )


def test_an_ood_set_has_no_labels_to_leave_out(image_folders):
    text = IMAGES + "ood: {far: {x: {source: image-folder, path: images, other_labels: skip}}}"
    with pytest.raises(InputError, match=r"b\.yaml:3: an OOD set has no classes: leave out .*`other_labels`"):
        load(write(image_folders, text))


def test_a_label_of_no_class_is_an_error_that_says_how_to_leave_it_out(image_folders):
    names = [f"images/{name}/{i}.jpg" for name in ("cat", "dog") for i in (0, 4)]
    lines = [f"{name},{label}" for name, label in zip(names, ("cat", "cat", "dgo", "dog"), strict=True)]
    (image_folders / "t.csv").write_text("image,label\n" + "\n".join(lines))
    table = "classes: [cat, dog]\nin_distribution: {source: table, path: t.csv%s}\n"
    with pytest.raises(InputError, match=r"1 of 4 images .* key 'dgo'; did you mean 'dog'.*, add other_labels: skip$"):
        load(write(image_folders, table % ""))
    assert load(write(image_folders, table % ", other_labels: skip")).in_distribution.labels.tolist() == [0, 0, 1]


def test_classes_without_images_are_said(image_folders):
    text = "classes: [yak, owl, gnu, dog, cat]\nin_distribution: {source: image-folder, path: images, partial: true}\n"
    assert load(write(image_folders, text)).warnings == (
        "b: in_distribution: 2 of 5 classes without images: 'yak', 'gnu'",
    )


def test_some_of_a_files_classes_in_the_order_of_their_keys(image_folders):
    (image_folders / "words.txt").write_text(
        "".join(f"n{i}\tname {i}\n" for i in range(1000)) + "owl\tan owl\ncat\ta cat\n"
    )
    (image_folders / "keys.txt").write_text("owl\ncat\n\n")
    text = "classes: words.txt\nclass_keys: %s\n"
    text += "in_distribution: {source: image-folder, path: images, other_labels: skip}\n"
    for keys in ("keys.txt", "[owl, cat]"):
        assert load(write(image_folders, text % keys)).classes == ("an owl", "a cat")
    for keys, message in (
        ("[owl, cta]", r"b\.yaml:3: unknown class key 'cta'; did you mean 'cat'"),
        ("[owl]", r"b\.yaml:3: give at least two classes"),
        ("kyes.txt", r"b\.yaml:3: unknown set of classes 'kyes.txt'"),
    ):
        with pytest.raises(InputError, match=message):
            load(write(image_folders, text % keys))


def test_some_of_the_folders_are_the_classes(image_folders):
    source = "in_distribution: {source: image-folder, path: images, other_labels: skip}\n"
    assert load(write(image_folders, source + "class_keys: [owl, cat]")).classes == ("owl", "cat")


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_folders_and_classes_are_compared_in_one_unicode_form(tmp_path, on_disk, written):
    for name in ("café", "bär"):
        folder = tmp_path / unicodedata.normalize(on_disk, f"Bilder-ä/{name}")
        folder.mkdir(parents=True)
        Image.new("L", (4, 4)).save(folder / "0.png")
    text = "in_distribution: {source: image-folder, path: Bilder-ä}\n"
    plain = load(write(tmp_path, unicodedata.normalize(written, text)))
    assert plain.classes == tuple(unicodedata.normalize("NFC", name) for name in ("bär", "café"))
    named = load(write(tmp_path, unicodedata.normalize(written, text + "classes: {café: ein Café, bär: ein Bär}")))
    assert named.in_distribution.labels.tolist() == [1, 0]
    shift = "classes: [café, bär]\ncovariate_shift: {x: {source: image-folder, path: Bilder-ä, classes: [bär, café]}}"
    assert load(write(tmp_path, unicodedata.normalize(written, text + shift))).labelled["shift.x"].labels.tolist() == [
        1,
        0,
    ]


def test_one_class_in_two_unicode_forms_is_an_error(image_folders):
    both = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    with pytest.raises(InputError, match=r"b\.yaml:3: a class is given twice, in two Unicode forms"):
        load(write(image_folders, IMAGES + f"classes: {{{both[0]}: a, {both[1]}: b}}"))


def test_calibration_images_of_which_some_have_a_label_of_no_class(image_folders):
    text = "classes: [cat, dog]\nin_distribution: {source: image-folder, path: images, other_labels: skip}\n"
    loaded = load(write(image_folders, text + "calibration: {source: image-folder, path: images}"))
    assert loaded.calibration.labels is None
    said = "b: calibration: 6 of 18 images with a label of no class, so that none of the labels is used: owl"
    assert said in loaded.warnings
    skipped = load(write(image_folders, text + "calibration: {source: image-folder, path: images, other_labels: skip}"))
    assert np.bincount(skipped.calibration.labels).tolist() == [6, 6]
