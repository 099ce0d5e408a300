import numpy as np
import pytest
from PIL import Image

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.data import availability, loading
from pytest_qreliab.errors import InputError


def check(folder, text):
    path = folder / "b.yaml"
    path.write_text(f"version: 1\n{text}")
    return availability.check(Benchmark.load(str(path)))


def counts(found):
    return {one.name: (one.images, one.found, list(one.left_out)) for one in found.sets}


IMAGES = "in_distribution: {source: image-folder, path: images%s}\n"


def test_what_is_measured_is_counted_after_limits_and_without_what_is_held_out(image_folders):
    text = IMAGES % ", limit: 9, size: 20"
    text += (
        "calibration: {source: held-out, limit: 6}\ncorruptions: {kinds: [fog, snow], severities: [1, 3], limit: 4}\n"
    )
    text += "covariate_shift: {some: {source: image-folder, path: images, classes: [cat, owl], limit: 5}}\n"
    found = check(image_folders, text)
    assert counts(found) == {
        "in_distribution": (9, 18, ["6 held out for calibration", "3 over the limit"]),
        "shift.some": (5, 12, ["6 images that `classes` leaves out", "7 over the limit"]),
        "calibration": (6, 6, []),
        "corruption, each of 4 cells": (4, None, []),
    }
    assert (found.sets[0].expected, found.warnings) == (
        20,
        loading.load(Benchmark.load(str(image_folders / "b.yaml"))).warnings,
    )
    data = loading.load(Benchmark.load(str(image_folders / "b.yaml")))
    assert (len(data.in_distribution), len(data.labelled["shift.some"]), len(data.labelled["corruption.fog.3"])) == (
        9,
        5,
        4,
    )


def test_captioned_images_are_counted_and_so_are_rows_of_the_same_image(image_folders):
    (image_folders / "pairs.csv").write_text("image,caption\nood/0.jpg,a\nood/1.png,b\nood/0.jpg,c\n")
    found = check(image_folders, IMAGES % "" + "calibration: {captions: {source: table, path: pairs.csv, limit: 1}}\n")
    assert counts(found)["captions"] == (1, 2, ["1 row of images that an earlier row has", "1 over the limit"])
    assert found.warnings == ()


def test_problems_are_told_beside_what_would_be_measured(image_folders):
    (image_folders / "images" / "cat" / "notes.txt").write_text("x")
    text = IMAGES % ", limit: 5" + "ood: {far: {x: {source: flat-folder, path: nowhere}}}\n"
    found = check(image_folders, text + "calibration: {source: held-out, limit: 6}\n")
    inside, ood, _ = found.sets
    assert (inside.images, inside.found, inside.problem) == (5, 18, "")
    assert inside.left_out == ("6 held out for calibration", "7 over the limit")
    assert "nowhere: the folder cannot be read" in ood.problem
    assert found.warnings == (
        "b: in_distribution: 1 file left out, without the suffix of an image that Pillow reads: cat/notes.txt",
    )


def test_the_cells_of_a_published_grid_are_one_entry_if_they_are_alike(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 8, 8), np.uint8))
    np.save(tmp_path / "y.npy", np.array([0, 1, 0, 1]))
    for kind in ("fog", "snow", "frost"):
        np.save(tmp_path / f"{kind}.npy", np.zeros((20, 8, 8), np.uint8))
    np.save(tmp_path / "ys.npy", np.tile([0, 1, 0, 1], 5))
    text = "classes: [a, b]\nin_distribution: {source: arrays, path: x.npy, labels: y.npy}\ncorruptions:\n"
    text += "  kinds: [fog, snow, frost]\n  limit: 2\n"
    text += "  source: {source: arrays, path: '{kind}.npy', labels: ys.npy, part: '{severity}/5'}\n"
    assert counts(check(tmp_path, text))["corruption, each of 15 cells"] == (2, 4, ["2 over the limit"])
    (tmp_path / "snow.npy").unlink()
    found = check(tmp_path, text)
    assert [one.name for one in found.sets[1:]] == [
        "corruption, each of 10 cells",
        "corruption.snow.1",
        "corruption.snow.2",
        "corruption.snow.3",
        "corruption",
    ]
    assert found.sets[-1].problem == "2 cells more"


def test_an_unlabelled_array_is_no_in_distribution_set(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 8, 8), np.uint8))
    text = "classes: [a, b]\nin_distribution: {source: arrays, path: x.npz}\n"
    (inside,) = check(tmp_path, text).sets
    assert inside.problem.endswith(
        "b.yaml:3: `labels:` is missing: the path of a .npy file with the index of each image's class, or in a .npz "
        "file the name of its array"
    )
    with pytest.raises(InputError, match=r"b\.yaml:3: `labels:` is missing"):
        loading.load(Benchmark.load(str(tmp_path / "b.yaml")))
    np.save(tmp_path / "y.npy", np.array([0, 1, 0, 1]))
    labelled = text.replace("x.npz", "x.npz, labels: l")
    shift = labelled + "covariate_shift:\n  s: {source: arrays, path: x.npz}\n"
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 8, 8), np.uint8), l=np.array([0, 1, 0, 1]))
    assert [one.problem for one in check(tmp_path, shift).sets][1].startswith(f"{tmp_path / 'b.yaml'}:5: `labels:`")
    unlabelled = (
        labelled + "calibration: {source: arrays, path: x.npz}\nood: {far: {o: {source: arrays, path: x.npz}}}\n"
    )
    assert not any(one.problem for one in check(tmp_path, unlabelled).sets)


def test_a_template_that_is_no_template_is_found(image_folders):
    (image_folders / "t.txt").write_text("a photo\n")
    with pytest.raises(InputError, match=r"b\.yaml:3: .*needs {} once"):
        check(image_folders, IMAGES % "" + "templates: t.txt\n")


def test_every_image_that_goes_in_is_counted(tmp_path):
    """Sixty files, as people have them: images, links, notes and folders."""
    for label in ("cat", "dog"):
        for n in range(20):
            path = tmp_path / "images" / label / f"{n}{'.jfif' if n % 2 else '.jpg'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4)).save(path, "jpeg")
    (tmp_path / "images" / "dog" / "20.jpg").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"1 file not there, but only links to nothing"):
        check(tmp_path, IMAGES % "")
    (tmp_path / "images" / "dog" / "20.jpg").unlink()
    (tmp_path / "images" / "dog" / "deep").mkdir()
    (tmp_path / "images" / "dog" / "0.jpg").rename(tmp_path / "images" / "dog" / "deep" / "0.jpg")
    with pytest.raises(InputError, match=r"1 image in folders within class folders"):
        check(tmp_path, IMAGES % "")
    assert counts(check(tmp_path, IMAGES % ", pattern: '{label}/**/*'")) == {"in_distribution": (40, 40, [])}
    assert counts(check(tmp_path, IMAGES % ", pattern: '{label}/*'")) == {
        "in_distribution": (39, 39, ["1 image that the pattern leaves out"])
    }
