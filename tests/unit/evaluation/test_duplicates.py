"""Images that are in two sets under other names and in other files."""

import numpy as np
import pytest
from PIL import Image

from pytest_qreliab.data.sources import builtin
from pytest_qreliab.embedding.store import Store
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.evaluator import Evaluator


@pytest.fixture
def copied(tmp_path):
    """A benchmark whose calibration images, as files, are 30 of the test digits and 70 of the others."""
    test, train = builtin.digits("test"), builtin.digits("train")
    folder = tmp_path / "copies"
    for number in range(100):
        images, place = (test, number) if number < 30 else (train, number)
        target = folder / str(images.known_labels[place]) / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(images.load(place))).save(target)
    path = tmp_path / "copied.yaml"
    path.write_text(
        "version: 1\n"
        "classes: {'0': zero, '1': one, '2': two, '3': three, '4': four, '5': five, '6': six, '7': seven, "
        "'8': eight, '9': nine}\n"
        "templates: ['a handwritten {}.']\n"
        "in_distribution: {source: digits, part: test}\n"
        "calibration: {source: image-folder, path: copies}\n"
    )
    return path


@pytest.fixture
def gate(write_thresholds):
    return str(write_thresholds("accuracy: {max_drop: 0.5}\n"))


def test_copies_are_found_by_their_pixels_and_known_from_then_on(make_plan, copied, gate, tmp_path):
    plan = make_plan(bits="w8a8,w8", benchmarks=str(copied), thresholds=gate)
    assert plan.data["copied"].warnings == ()  # other files: nothing is known before the run
    static, weights = plan.cases
    store = Store(tmp_path / "store")
    results = [Evaluator(plan, store=store).result(static) for _ in range(2)]
    for result in results:
        (warning,) = result.warnings
        assert warning.startswith("copied: 30 of the 898 images of in_distribution are images of calibration too")
    assert results[1].cost.encoded == 0
    assert Evaluator(plan, store=store).result(weights).warnings == ()  # it does without calibration images


@pytest.mark.parametrize("quantizer", ["minmax+rescale", "lsq"])
def test_what_trains_on_measured_images_is_refused(make_plan, copied, gate, quantizer):
    plan = make_plan(bits="w8", quantizers=quantizer, benchmarks=str(copied), thresholds=gate)
    with pytest.raises(InputError, match=r"trains on the calibration images; 30 of the 898 images of in_distribution"):
        Evaluator(plan).result(plan.cases[0])


def test_captioned_images_that_are_measured_are_found_too(make_plan, copied, gate):
    folder = copied.parent / "copies"
    paths = sorted(path.relative_to(folder.parent) for path in folder.glob("*/*.png"))
    rows = [f"{path},caption {path.stem}" for path in paths]
    (copied.parent / "pairs.csv").write_text("\n".join(["image,caption", *rows]))
    calibration = "calibration: {source: digits, part: train, captions: {source: table, path: pairs.csv}}"
    copied.write_text("\n".join([*copied.read_text().splitlines()[:-1], calibration]))
    plan = make_plan(bits="w8a8", benchmarks=str(copied), thresholds=gate)
    (warning,) = Evaluator(plan).result(plan.cases[0]).warnings
    assert warning.startswith("copied: 30 of the 898 images of in_distribution are images of captions too")
    plan = make_plan(bits="w8", quantizers="lsq", benchmarks=str(copied), thresholds=gate)
    with pytest.raises(InputError, match=r"trains on the images of captions; 30 of the 898 images of in_distribution"):
        Evaluator(plan).result(plan.cases[0])


def test_a_file_that_is_in_both_sets_is_refused_before_the_run(make_plan, copied, gate):
    text = copied.read_text().replace("{source: digits, part: test}", "{source: image-folder, path: copies}")
    copied.write_text(text)
    with pytest.raises(
        InputError, match=r"copied.yaml:5: lsq w8 trains on .* 100 of the 100 images of in_distribution"
    ):
        make_plan(bits="w8", quantizers="lsq", benchmarks=str(copied), thresholds=gate)
    (warning,) = make_plan(bits="w8", benchmarks=str(copied), thresholds=gate).data["copied"].warnings
    assert "100 of the 100 images of in_distribution are images of calibration too" in warning
