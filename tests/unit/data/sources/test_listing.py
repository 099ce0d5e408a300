"""Each source, on real files: the same images and labels, whatever they are kept in."""

import json
import subprocess
import sys

import numpy as np
import pytest

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.data import dataset, loading
from pytest_qreliab.errors import InputError

CLASSES = ("cat", "dog", "owl")
LABELS = np.array([0, 2, 1, 0, 2, 2])
SOURCES = {
    "folders": "{source: image-folder, path: images}",
    "csv": "{source: table, path: t.csv}",
    "list": "{source: table, path: list.txt, columns: [image, label], delimiter: ' ', labelled_by: index}",
    "parquet": "{source: table, path: t.parquet, image: file, label: y, labelled_by: index}",
    "images in parquet": "{source: table, path: inside.parquet}",
    "torchvision folder": "{source: torchvision, dataset: ImageFolder, root: images}",
    "shards": "{source: webdataset, path: .}",
    "shards by number": "{source: webdataset, path: '{0..1}.tar'}",
    "shards by pattern": "{source: webdataset, path: '*.tar'}",
    "hugging face": "{source: huggingface, path: hf}",
    "hugging face names": "{source: huggingface, path: splits, split: test, labelled_by: name}",
    "npy": "{source: arrays, path: x.npy, labels: y.npy}",
    "npz": "{source: arrays, path: xy.npz, labels: y}",
    "second half": "{source: arrays, path: twice.npy, labels: labels.npy, part: 2/2}",
}


def opened(folder, source: str, more: str = "") -> dataset.Dataset:
    path = folder / "b.yaml"
    path.write_text(f"version: 1\nclasses: [cat, dog, owl]\nin_distribution: {source}\n{more}")
    return loading.load(Benchmark.load(str(path)))


@pytest.mark.parametrize("name", SOURCES)
def test_all_sources_give_the_same_images_and_labels(everything, pixels, name):
    found = opened(everything, SOURCES[name]).in_distribution
    order = [next(k for k in range(6) if np.array_equal(np.asarray(found.load(i)), pixels[k])) for i in range(6)]
    assert sorted(order) == list(range(6))
    assert len(set(found.ids)) == 6
    np.testing.assert_array_equal(found.labels, LABELS[order])


@pytest.mark.parametrize("name", [name for name in SOURCES if "folder" not in name])
def test_the_same_without_labels_as_ood_sets_and_for_calibration(everything, pixels, name):
    more = f"ood: {{far: {{x: {SOURCES[name]}}}}}\ncalibration: {SOURCES[name]}\n"
    found = opened(everything, SOURCES["npy"], more)
    assert found.ood["x"].labels is None
    np.testing.assert_array_equal(np.asarray(found.ood["x"].load(1)), pixels[1])
    np.testing.assert_array_equal(np.asarray(found.calibration.load(1)), pixels[1])


def test_calibration_images_have_labels_where_their_source_says_which(everything):
    for source, labelled in (("csv", False), ("parquet", True), ("shards", False), ("npy", True), ("folders", True)):
        found = opened(everything, SOURCES["npy"], f"calibration: {SOURCES[source]}\n").calibration
        assert (found.labels is not None) == labelled, source


def test_rows_are_chosen_by_the_values_of_columns(everything, write_table):
    rows = [(f"images/{CLASSES[label]}/{i}.png", CLASSES[label], i % 2, "True") for i, label in enumerate(LABELS)]
    write_table(everything / "g.csv", ["image", "label", "water", "ok"], rows)
    table = "source: table, path: g.csv, where: {water: %d, ok: true}"
    more = f"spurious: {{groups: {{land: {{{table % 0}}}, water: {{{table % 1}}}}}}}\n"
    found = opened(everything, SOURCES["npy"], more).labelled
    assert found["spurious.land"].ids == ["images/cat/0.png", "images/dog/2.png", "images/owl/4.png"]
    assert found["spurious.water"].labels.tolist() == LABELS[1::2].tolist()
    with pytest.raises(InputError, match="no row has all the values of `where`; there water is 0, 1; ok is true"):
        opened(everything, f"{{{table % 7}}}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{source: table, path: t.csv, image: img}", r"b.yaml:3: .*t.csv: unknown column 'img'; did you mean 'image'"),
        ("{source: table, path: no.csv}", r"no.csv: the table cannot be read: No such file"),
        ("{source: table, path: x.npy}", r"x.npy: the table cannot be read"),
        (
            "{source: table, path: t.csv, root: images}",
            r"t.csv: 6 of 6 images are not there; the first: .*images/images",
        ),
        ("{source: table, path: t.csv, columns: [image]}", r"t.csv:1: 2 cells for the columns image"),
        ("{source: table, path: t.parquet, image: y, label: file}", r"row 0 holds int: neither a path nor"),
        ("{source: table, path: t.csv, labelled_by: index}", r"6 of 6 images have a label of no class: .* index 'owl'"),
        ("{source: webdataset, path: images}", r"images: there are no shards"),
        ("{source: webdataset, path: '{0..2}.tar'}", r"1 of 3 shards are not there; the first: .*2.tar"),
        (
            "{source: webdataset, path: 0.tar, label: txt}",
            r"3 of 3 samples have no file .txt; the first: 0.tar/s0000000",
        ),
        ("{source: webdataset, path: t.csv}", r"t.csv: the shard cannot be read"),
        ("{source: huggingface, path: splits}", r"splits: say which `split:`: test"),
        ("{source: huggingface, path: splits, split: tst}", r"unknown split 'tst'; did you mean 'test'"),
        ("{source: huggingface, path: hf, image: img}", r"unknown column 'img'"),
        ("{source: huggingface, path: hf, image: label}", r"column 'label' holds no images"),
        ("{source: huggingface, path: images}", r"images cannot be loaded"),
        ("{source: huggingface}", r"give either the path .* or the name"),
        ("{source: arrays, path: x.npy, labels: x.npy}", r"x.npy: the labels are uint8 .*6 integers are needed"),
        ("{source: arrays, path: xy.npz, images: x, labels: y}", r"xy.npz: unknown array 'x'; valid: images, y"),
        ("{source: arrays, path: y.npy, labels: y.npy}", r"the images are int64 of shape \(6,\); uint8"),
        ("{source: arrays, path: x.npy, labels: y.npy, part: 2/5}", r"6 images have no part 2/5 of equal size"),
        ("{source: arrays, path: t.csv, labels: y.npy}", r"t.csv: the array cannot be read"),
        (
            "{source: torchvision, dataset: CIFAR1, root: .}",
            r"unknown torchvision data set 'CIFAR1'; did you mean 'CIFAR10'",
        ),
        ("{source: torchvision, dataset: CIFAR10, root: .}", r"CIFAR10 in .* not found.*to get it, `download: true`"),
        ("{source: torchvision, dataset: CIFAR10, root: ., arguments: {trin: false}}", r"unexpected keyword .*trin"),
        ("{source: torchvision, dataset: ImageFolder, root: images, download: true}", r"cannot download ImageFolder"),
        ("{source: image-folder, path: images, classes: [cat, dog]}", r"is said by the benchmark's own `classes:`"),
    ],
)
def test_what_is_not_there_or_does_not_fit_is_told(everything, source, message):
    with pytest.raises(InputError, match=message):
        opened(everything, source)


def test_nothing_heavy_is_imported_until_it_is_needed():
    code = (
        "import sys; from pytest_qreliab.data.sources import arrays, huggingface, listing, tables;"
        "from pytest_qreliab.data.sources import torchvision_sets, webdataset;"
        "print(sorted({'torch', 'datasets', 'pyarrow', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


CAPTIONS = ["a cat on a mat.", "an owl, asleep", "a dog", "a cat", "an owl", "an owl at night"]
PAIRS = {
    "csv": "{source: table, path: pairs.csv}",
    "json lines": "{source: table, path: pairs.jsonl, image: file, caption: text}",
    "parquet": "{source: table, path: pairs.parquet, image: file}",
    "images in parquet": "{source: table, path: within.parquet}",
    "shards": "{source: webdataset, path: '*-pairs.tar'}",
}


@pytest.fixture
def captioned(everything, pixels, png, write_table, write_shard):
    """The six images with captions in every source that holds some; all but shards have further captions of them."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    paths = [f"images/{CLASSES[label]}/{i}.png" for i, label in enumerate(LABELS)]
    write_table(everything / "pairs.csv", ["image", "caption"], zip(paths * 2, [*CAPTIONS, *["no"] * 6], strict=True))
    lines = [json.dumps({"file": path, "text": [text, "no"]}) for path, text in zip(paths, CAPTIONS, strict=True)]
    (everything / "pairs.jsonl").write_text("\n".join(lines))
    parquet.write_table(pyarrow.table({"file": paths, "caption": CAPTIONS}), everything / "pairs.parquet")
    inside = [{"bytes": png(image), "path": None} for image in pixels]
    rows = pyarrow.table({"image": inside * 2, "caption": [*CAPTIONS, *["no"] * 6]})
    parquet.write_table(rows, everything / "within.parquet")
    files = {f"{i}.png": png(pixels[i]) for i in range(6)} | {f"{i}.txt": CAPTIONS[i].encode() for i in range(6)}
    for shard in range(2):
        some = {name: content for name, content in files.items() if int(name[0]) // 3 == shard}
        write_shard(everything / f"{shard}-pairs.tar", some)
    return everything


@pytest.mark.parametrize("name", PAIRS)
def test_all_sources_give_the_same_images_and_captions(captioned, pixels, name):
    found = opened(captioned, SOURCES["npy"], f"calibration: {{captions: {PAIRS[name]}}}\n")
    assert found.calibration is None
    assert list(found.captions.captions) == CAPTIONS
    assert len(set(found.captions.ids)) == 6
    for i in range(6):
        np.testing.assert_array_equal(np.asarray(found.captions.load(i)), pixels[i])


def test_of_captions_some_are_drawn_beside_calibration_images(captioned):
    source = PAIRS["csv"].replace("}", ", limit: 4}")
    found = opened(captioned, SOURCES["npy"], f"calibration: {{source: table, path: t.csv, captions: {source}}}\n")
    assert len(found.calibration) == 6
    expected = [CAPTIONS[int(path.rpartition("/")[2][0])] for path in found.captions.ids]
    assert (len(expected), list(found.captions.captions)) == (4, expected)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{source: table, path: nowhere.csv}", r"nowhere\.csv: the table cannot be read: No such file"),
        ("{source: table, path: pairs.csv, caption: text}", r"unknown column 'text'; .*valid: caption, image"),
        ("{source: table, path: pairs.csv, image: images}", r"unknown column 'images'; did you mean 'image'"),
        ("{source: table, path: empty.csv}", r"empty\.csv holds no rows"),
        ("{source: table, path: holes.csv}", r"row 3 has nothing in the column 'caption'"),
        ("{source: table, path: blank.csv}", r"1 of 2 captions are empty; the first: that of images/dog/2\.png; write"),
        ("{source: table, path: lost.csv}", r"1 of 1 images are not there; the first: .*lost\.png \(row 2\)"),
        ("{source: table, path: none.jsonl}", r"row 1 has nothing in the column 'caption'"),
        ("{source: webdataset, path: 0.tar}", r"3 of 3 samples have no file \.txt; the first: 0\.tar/s0000000"),
        ("{source: webdataset, path: nowhere.tar}", r"nowhere\.tar: the shard cannot be read: No such file"),
    ],
)
def test_what_is_wrong_with_captions_is_one_message_with_its_line(captioned, write_table, source, message):
    head, cat, dog = ["image", "caption"], "images/cat/0.png", "images/dog/2.png"
    write_table(captioned / "empty.csv", head, [])
    write_table(captioned / "holes.csv", head, [(cat, "a cat"), (dog, "")])
    write_table(captioned / "blank.csv", head, [(cat, "a cat"), (dog, " ")])
    write_table(captioned / "lost.csv", head, [("images/lost.png", "a cat")])
    (captioned / "none.jsonl").write_text(json.dumps({"image": cat, "caption": []}))
    with pytest.raises(InputError, match=rf"b\.yaml:5: .*{message}") as caught:
        opened(captioned, SOURCES["npy"], f"calibration:\n  captions: {source}\n")
    assert "\n" not in str(caught.value)
