import re
import tarfile

import pytest

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.data.labels import load_classes
from pytest_qreliab.data.opening import open_sets
from pytest_qreliab.errors import InputError


def opened(folder, text):
    path = folder / "b.yaml"
    path.write_text(f"version: 1\nin_distribution: {{source: image-folder, path: images, limit: 4}}\n{text}")
    benchmark = Benchmark.load(str(path))
    return {wanted.name: images for wanted, images in open_sets(benchmark, load_classes(benchmark))}


def test_sets_come_whole_whatever_their_limit_and_what_is_wrong_with_others(image_folders):
    found = opened(
        image_folders,
        "ood: {far: {a: {source: flat-folder, path: ood, limit: 2}, b: {source: flat-folder, path: nowhere}}}\n"
        "calibration: {source: held-out, limit: 6}\n",
    )
    inside = found["in_distribution"]
    assert (len(inside), len(found["ood.far.a"]), len(found["calibration"])) == (18, 6, 6)
    assert set(found["calibration"].ids) <= set(inside.ids)
    assert isinstance(found["ood.far.b"], InputError)


def test_what_is_left_out_is_told_of_the_set_that_it_was_left_out_of(image_folders):
    (image_folders / "images" / "cat" / "notes.txt").write_text("x")
    found = opened(image_folders, "calibration: {source: held-out, limit: 6}\n")
    assert [len(found[name].left_out) for name in ("in_distribution", "calibration")] == [1, 0]


@pytest.mark.parametrize("limit", [18, 19])
def test_not_all_images_can_be_held_out(image_folders, limit):
    found = opened(image_folders, f"calibration: {{source: held-out, limit: {limit}}}\n")
    assert str(found["calibration"]).endswith(f"b.yaml:3: {limit} images to hold out of 18: none are left")


def test_a_file_name_that_is_no_utf_8_is_an_error_in_every_source(image_folders):
    with tarfile.open(image_folders / "0.tar", "w", errors="surrogateescape") as archive:
        archive.add(image_folders / "ood" / "0.jpg", "caf\udce9.jpg")
    (image_folders / "t.jsonl").write_text('{"image": "caf\\udce9.jpg"}\n')
    sources = ["{source: webdataset, path: 0.tar}", "{source: table, path: t.jsonl, missing_images: skip}"]
    message = r"b\.yaml:3: 1 file name not in UTF-8, rename: .*caf\\udce9"
    try:
        (image_folders / "ood" / "caf\udce9.jpg").write_bytes(b"")
    except (OSError, UnicodeError):
        del sources[1]  # the file system has UTF-8 names alone
    else:
        sources += ["{source: flat-folder, path: ood}", "{source: image-folder, path: ., pattern: 'ood/{label}'}"]
        sources[1] = sources[1].replace("t.jsonl", "t.jsonl, root: ood")
    for source in sources:
        found = opened(image_folders, f"ood: {{far: {{a: {source}}}}}\n")["ood.far.a"]
        assert re.search(message, str(found)), source
