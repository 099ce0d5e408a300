from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.data import dataset, loading


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
