import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.data import dataset, loading
from pytest_qreliab.data.sampling import stratified_sample
from pytest_qreliab.data.sources import builtin, folders
from pytest_qreliab.errors import InputError


def test_digits_are_split_once_and_for_all():
    train, test = builtin.digits("train"), builtin.digits("test")
    bunch = load_digits()
    assert (len(train), len(test)) == (899, 898)
    assert len(test) >= 700
    np.testing.assert_array_equal(test.labels, bunch.target[1::2])
    pixels = {np.asarray(train.load(i)).tobytes() for i in range(len(train))}
    assert not any(np.asarray(test.load(i)).tobytes() in pixels for i in range(len(test)))
    assert np.asarray(test.load(0)).max() == 255


@pytest.mark.parametrize(
    ("make", "size", "mode"), [(builtin.letters, (8, 8), "L"), (builtin.photo_patches, (32, 32), "RGB")]
)
def test_ood_sets_are_large_and_the_same_every_time(make, size, mode):
    first, second = make(), make()
    assert len(first) >= 500
    assert first.labels is None
    images = [first.load(i) for i in range(len(first))]
    assert {(image.size, image.mode) for image in images} == {(size, mode)}
    assert all(np.array_equal(np.asarray(image), np.asarray(second.load(i))) for i, image in enumerate(images))
    assert len({np.asarray(image).tobytes() for image in images}) > 0.95 * len(images)
    assert all(np.asarray(image).std() > 1 for image in images[: len(images) // 4])


def test_patches_tile_the_photographs():
    from sklearn.datasets import load_sample_images

    photo = load_sample_images().images[0]
    patches = builtin.photo_patches()
    np.testing.assert_array_equal(np.asarray(patches.load(21)), photo[32:64, 32:64])


def test_a_limit_draws_of_every_class_its_share_and_keeps_labels_with_their_images():
    digits = builtin.digits("test")
    few = digits.sampled(100, seed=3)
    assert len(few) == len(few.labels) == len(set(few.ids)) == 100
    places = [int(known) for known in few.ids]
    assert places == sorted(places)
    np.testing.assert_array_equal(few.labels, digits.labels[places])
    np.testing.assert_array_equal(np.asarray(few.load(7)), np.asarray(digits.load(places[7])))
    shares = 100 * np.bincount(digits.labels) / len(digits)
    assert np.abs(np.bincount(few.labels) - shares).max() < 1
    assert few.ids == digits.sampled(100, seed=3).ids != digits.sampled(100, seed=4).ids
    assert digits.sampled(None, 0) is digits
    assert digits.sampled(5000, 0) is digits


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_any_draw_is_without_repeats_and_proportional(labels, size, seed):
    labels, size = np.array(labels), min(size, len(labels))
    for given_labels in (labels, None):
        drawn = stratified_sample(len(labels), given_labels, size, seed)
        assert len(set(drawn.tolist())) == size
        assert (np.diff(drawn) > 0).all()
    counts = np.bincount(labels[stratified_sample(len(labels), labels, size, seed)], minlength=5)
    assert np.abs(counts - size * np.bincount(labels, minlength=5) / len(labels)).max() < 1


def load(path) -> dataset.Dataset:
    return loading.load(Benchmark.load(str(path)))


def test_image_folders(folder_benchmark):
    loaded = load(folder_benchmark)
    assert loaded.classes == ("cat", "dog", "owl")
    assert loaded.in_distribution.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    expected = Image.open(folder_benchmark.parent / "images" / "dog" / "1.png")
    np.testing.assert_array_equal(np.asarray(loaded.in_distribution.load(7)), np.asarray(expected))
    assert loaded.captions(2) == ["a photo of a owl."]
    assert len(loaded.ood["noise"]) == 6
    assert loaded.ood["noise"].labels is None


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


def test_images_may_lie_as_a_pattern_says(tmp_path):
    for path in ("10 black swan/common-water/b.png", "10 black swan/common-water/a.png", "2 owl/common-sky/c.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / path)
    (tmp_path / "2 owl" / "common-sky" / "notes.txt").write_text("x")
    (tmp_path / "2 owl" / "counter-sea").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "2 owl" / "counter-sea" / "d.png")
    found = folders.by_class(tmp_path, "{label} */common-*/*")
    assert found.ids == [
        "10 black swan/common-water/a.png",
        "10 black swan/common-water/b.png",
        "2 owl/common-sky/c.png",
    ]
    assert found.labels == ["10", "10", "2"]
    assert found.load(0).size == (4, 4)
    assert folders.by_class(tmp_path, "* {label}/*/d.png").labels == ["owl"]
    with pytest.raises(InputError, match=r"holds no images that lie as \{label\}/\*; there is 10 black swan/common"):
        folders.by_class(tmp_path, "{label}/*")
    with pytest.raises(InputError, match="nowhere: the folder cannot be read"):
        folders.by_class(tmp_path / "nowhere", "{label}/*")


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


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_an_image_that_cannot_be_decoded_is_named(image_folders, content):
    path = image_folders / "ood" / "0.jpg"
    path.write_bytes(path.read_bytes()[:150] if content is None else content)
    with pytest.raises(InputError, match=r"image .*0\.jpg cannot be decoded"):
        folders.load(path)


def test_real_images_of_every_kind_decode_and_preprocess(realdata, tiny):
    found = folders.images_by_class(realdata / "caltech101")
    paths = [path for paths in found.values() for path in paths][::5]
    assert len(found) == 101
    modes = set()
    for path in paths:
        image = folders.load(path)
        modes.add(image.mode)
        assert tiny.preprocess(image).shape == (3, 32, 32)
    assert {"L", "RGB"} <= modes
