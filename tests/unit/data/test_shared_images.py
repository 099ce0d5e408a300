"""Images in two sets: which pairs of sets are looked at, and what is said of them."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.data import loading, shared_images
from pytest_qreliab.data.images import Corruption, ImageSet
from pytest_qreliab.errors import InputError


def image_set(name, ids, **given):
    return ImageSet(name=name, ids=ids, load=lambda i: Image.new("L", (8, 8)), content=lambda i: Path(ids[i]), **given)


def shared(*sets):
    found = shared_images.find({images.name: images for images in sets}, lambda images: images.ids)
    return {(images.name, images.other): (images.count, images.size) for images in found}


def test_calibration_ood_and_shifted_images_are_looked_for_among_the_others():
    inside = image_set("in_distribution", list("abcdef"))
    assert shared(inside, image_set("calibration", list("efgh"))) == {("in_distribution", "calibration"): (2, 6)}
    assert shared(inside, image_set("ood.far.same", list("fgh"))) == {("ood.far.same", "in_distribution"): (1, 3)}
    assert shared(inside, image_set("shift.sketch", list("abz"))) == {("shift.sketch", "in_distribution"): (2, 3)}
    assert shared(image_set("ood.near.a", list("xy")), image_set("ood.far.b", list("yz"))) == {
        ("ood.far.b", "ood.near.a"): (1, 2)
    }
    assert shared(image_set("calibration", list("yz")), image_set("ood.far.b", list("yz"))) == {
        ("ood.far.b", "calibration"): (2, 2)
    }
    assert shared(inside, image_set("calibration", list("xyz")), image_set("ood.far.b", list("uvw"))) == {}


def test_captioned_images_are_looked_for_among_those_that_are_measured():
    inside, pairs = image_set("in_distribution", list("abc")), image_set("captions", list("cde"))
    assert shared(inside, pairs) == {("in_distribution", "captions"): (1, 3)}
    assert shared(inside, pairs, image_set("calibration", list("de"))) == {("in_distribution", "captions"): (1, 3)}
    found = shared_images.find({"in_distribution": inside, "captions": pairs}, lambda images: images.ids)
    with pytest.raises(InputError, match=r"lsq w4 trains on the images of captions; 1 of the 3 .* calibrate on other"):
        shared_images.check_training("lsq w4", found)


def test_sets_that_are_made_of_the_in_distribution_images_may_share_them():
    inside = image_set("in_distribution", list("abc"))
    spoiled = image_set("corruption.fog.3", list("abc"), corruption=Corruption("fog", 3, 0))
    assert shared(inside, spoiled, image_set("spurious.common", list("abc"))) == {}
    assert shared(image_set("spurious.common", list("abc")), image_set("ood.far.x", list("ab"))) == {}


def test_an_image_that_is_twice_in_a_set_counts_twice():
    inside = image_set("in_distribution", list("aab"))
    assert shared(inside, image_set("calibration", ["a"])) == {("in_distribution", "calibration"): (2, 3)}


@pytest.mark.parametrize(
    ("name", "other", "says"),
    [
        ("in_distribution", "calibration", "3 of the 5 images of in_distribution .* calibrate on other images"),
        ("ood.far.x", "in_distribution", "these are not out of distribution"),
        ("shift.x", "in_distribution", "these count twice"),
    ],
)
def test_the_text_says_how_many_what_follows_and_what_to_do(name, other, says):
    text = str(shared_images.SharedImages(name=name, other=other, count=3, size=5))
    assert re.search(says, text)


@pytest.mark.parametrize(
    ("name", "other", "count", "refused"),
    [
        ("in_distribution", "calibration", 2, True),
        ("shift.sketch", "calibration", 2, True),
        ("in_distribution", "calibration", 1, False),  # 1 in 1,000: as public sets have
        ("ood.far.x", "calibration", 1000, False),
        ("ood.far.x", "in_distribution", 1000, False),
    ],
)
def test_training_on_more_than_one_in_a_thousand_of_the_labelled_images_is_refused(name, other, count, refused):
    found = [shared_images.SharedImages(name=name, other=other, count=count, size=1000)]
    if refused:
        with pytest.raises(InputError, match="lsq w4 trains on the calibration images; 2 of the 1000 images"):
            shared_images.check_training("lsq w4", found)
    else:
        shared_images.check_training("lsq w4", found)


def test_files_are_told_by_their_paths_and_parts_of_files_by_their_ids(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside = image_set("in_distribution", ["a.png", "b.png"])
    here = ImageSet(name="x", ids=["1"], load=inside.load, content=lambda i: tmp_path / "a.png")
    assert shared_images.by_file(inside)[0] == shared_images.by_file(here)[0]
    rows = ImageSet(name="x", ids=["0", "1"], load=inside.load, content=lambda i: tmp_path / "rows.npz")
    assert len(set(shared_images.by_file(rows))) == 2
    pixels = ImageSet(name="x", ids=["0"], load=inside.load)
    assert shared_images.by_file(pixels) == []


def test_a_benchmark_says_before_the_run_what_its_sets_share(image_folders):
    path = image_folders / "leak.yaml"
    path.write_text(
        "version: 1\n"
        "in_distribution: {source: image-folder, path: images}\n"
        "calibration: {source: image-folder, path: ./images, limit: 9}\n"
        "ood: {far: {same: {source: flat-folder, path: images/cat}}}\n"
    )
    data = loading.load(Benchmark.load(str(path)))
    assert [(images.name, images.other, images.count) for images in data.shared] == [
        ("ood.far.same", "in_distribution", 6),
        ("in_distribution", "calibration", 9),
        ("ood.far.same", "calibration", 3),
    ]
    assert data.warnings == tuple(f"leak: {images}" for images in data.shared)


def test_the_shipped_benchmarks_share_nothing():
    data = loading.load(Benchmark.load("digits"))
    found = shared_images.find(data.sets, lambda images: [images.identify(i) for i in range(len(images))])
    assert found == []


def test_images_held_out_for_calibration_are_no_longer_measured(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", images=rng.integers(0, 255, (40, 8, 8), dtype=np.uint8), labels=np.arange(40) % 2)
    path = tmp_path / "b.yaml"
    path.write_text(
        "version: 1\nclasses: [a, b]\n"
        "in_distribution: {source: arrays, path: a.npz, labels: labels}\n"
        "calibration: {source: held-out, limit: 10}\n"
    )
    assert loading.load(Benchmark.load(str(path))).shared == ()
