"""Recorded outputs in the place of a model: their sets, and the rows that hold a benchmark's samples."""

import numpy as np
import pytest

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.data import recorded
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.data.recording import Recording
from pytest_qreliab.errors import InputError


def image_set(ids, labels=None) -> ImageSet:
    return ImageSet(name="mine", ids=ids, load=None, labels=None if labels is None else np.array(labels), content=str)


def test_rows_are_those_of_the_samples_whatever_the_order(small):
    (of,) = small().sets.values()
    assert recorded.match_rows("r", of, image_set(["b", "a"], [0, 2])).tolist() == [1, 0]
    assert recorded.match_rows("r", of, image_set(["b"])).tolist() == [1]


def test_other_labels_and_missing_samples_are_counted_and_the_first_is_named(small, refusal):
    (of,) = small().sets.values()
    assert refusal(recorded.match_rows, "r.npz", of, image_set(["b", "a"], [0, 1])) == (
        "r.npz: 1 of 2 labels of mine are not the benchmark's; the first, of 'a', is 2 and should be 1"
    )
    text = refusal(recorded.match_rows, "r.npz", of, image_set(["a", "c"]))
    assert text.startswith("r.npz: in_distribution lacks 1 of 2 samples, the first is 'c'")


def test_a_relative_path_starts_in_the_folder(small, tmp_path, monkeypatch):
    small(model="there").save(tmp_path / "r.npz")
    assert recorded.load("recorded:r.npz", tmp_path).model == "there"
    monkeypatch.chdir(tmp_path)
    assert recorded.load("recorded:r.npz").model == "there"


def test_the_sets_of_a_file_are_the_data_of_a_benchmark_without_images(small, tmp_path):
    recording = small()
    for name in ("ood.near.letters", "ood.far.photos", "calibration"):
        recording.add(name, ["x", "y"], logits=np.zeros((2, 3)))
    recording.add("shift.a", ["x", "y"], logits=np.zeros((2, 3)), labels=[0, 2], among=[0, 2])
    data = recorded.load_dataset(Benchmark.load(f"recorded:{recording.save(tmp_path / 'r.npz')}"))
    assert data.recorded
    assert data.classes == ("cat", "dog", "owl")
    assert data.near == {"letters"}
    assert data.sets.keys() == recording.sets.keys()
    assert data.in_distribution.labels.tolist() == [2, 0]
    assert data.labelled["shift.a"].classes.tolist() == [0, 2]
    with pytest.raises(InputError, match=r"sample 'b' of in_distribution was recorded: there is no image"):
        data.in_distribution.load(1)


def test_recorded_samples_are_told_by_their_rows_and_no_image_is_asked_for(small):
    def contents(recording) -> list[str]:
        images = recorded.image_set(recording.sets["in_distribution"])
        return [images.identify(index) for index in range(len(images))]

    one, other = small(), Recording(["cat", "dog", "owl"])
    changed = one.sets["in_distribution"].values.copy()
    changed[1, 2] += 1
    other.add("in_distribution", ["a", "b"], logits=changed, labels=[2, 0])
    assert contents(one) == contents(small())
    assert [a == b for a, b in zip(contents(one), contents(other), strict=True)] == [True, False]
    images = recorded.image_set(one.sets["in_distribution"])
    assert images.take(np.array([1])).identify(0) == contents(one)[1]


def test_what_is_doubtful_of_a_file_is_said_with_the_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    features = np.random.default_rng(0).normal(size=(4, 3))
    recording = Recording(["cat", "dog", "owl"], text_features=np.eye(3)[[0, 0, 1]], logit_scale=2.0)
    recording.add("in_distribution", range(4), image_features=features, labels=[0, 0, 2, 2])
    recording.add("calibration", ["a", "b"], image_features=features[[3, 0]] * [[1], [2]])
    recording.add("ood.far.other", ["c"], image_features=features[:1] + 1)
    recording.save("r.npz")
    scale, equal, empty, shared = recorded.load_dataset(Benchmark.load("recorded:r.npz")).warnings
    assert scale.startswith("r.npz: logit_scale is 2, and CLIP's is about 100")
    assert equal == "r.npz: text_features: those of 'cat' and 'dog' are equal"
    assert empty == "r: in_distribution: 1 of 3 classes without samples: 'dog'"
    assert shared.startswith("r: 1 of the 4 images of in_distribution are images of calibration too: ")


def test_a_file_without_an_in_distribution_set_is_no_benchmark(tmp_path):
    recording = Recording(["cat", "dog"])
    recording.add("calibration", ["x"], logits=np.zeros((1, 2)))
    path = recording.save(tmp_path / "r.npz")
    with pytest.raises(InputError, match=r"r\.npz holds no set in_distribution; there are calibration$"):
        recorded.load_dataset(Benchmark.load(f"recorded:{path}"))
