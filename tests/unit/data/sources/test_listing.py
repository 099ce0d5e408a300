"""Each source, on real files: the same images and labels, whatever they are kept in."""

import csv
import io
import json
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.data import dataset, loading
from pytest_qreliab.data.sources import arrays, huggingface, tables, torchvision_sets, webdataset
from pytest_qreliab.errors import InputError

CLASSES = ("cat", "dog", "owl")
LABELS = np.array([0, 2, 1, 0, 2, 2])


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 12, 10, 3), dtype=np.uint8)


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


def write_shard(path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_table(path, head, rows, delimiter=",") -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        if head:
            writer.writerow(head)
        writer.writerows(rows)


@pytest.fixture
def everything(tmp_path, pixels):
    """The same six images in every source that holds any; returns the folder and what a benchmark writes for each."""
    datasets = pytest.importorskip("datasets")
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    names = [f"{i}.png" for i in range(6)]
    for i, label in enumerate(LABELS):
        folder = tmp_path / "images" / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / names[i]).write_bytes(png(pixels[i]))
    paths = [f"images/{CLASSES[label]}/{names[i]}" for i, label in enumerate(LABELS)]
    keys = [CLASSES[label] for label in LABELS]
    write_table(tmp_path / "t.csv", ["image", "label"], zip(paths, keys, strict=True))
    write_table(tmp_path / "list.txt", None, zip(paths, LABELS, strict=True), " ")
    parquet.write_table(pyarrow.table({"file": paths, "y": LABELS.tolist()}), tmp_path / "t.parquet")
    inside = [{"bytes": png(image), "path": None} for image in pixels]
    parquet.write_table(pyarrow.table({"image": inside, "label": keys}), tmp_path / "inside.parquet")
    for shard in range(2):
        members = {}
        for i in range(3 * shard, 3 * shard + 3):
            members |= {
                f"s{i:07d}.png": png(pixels[i]),
                f"s{i:07d}.cls": str(LABELS[i]).encode(),
                f"s{i:07d}.json": json.dumps({"i": i}).encode(),
            }
        write_shard(tmp_path / f"{shard}.tar", members)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    rows = {"image": [{"bytes": png(image), "path": None} for image in pixels], "label": LABELS.tolist()}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "hf"))
    split = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"test": split}).save_to_disk(str(tmp_path / "splits"))
    np.save(tmp_path / "x.npy", pixels)
    np.save(tmp_path / "y.npy", LABELS)
    np.savez(tmp_path / "xy.npz", images=pixels, y=LABELS)
    np.save(tmp_path / "twice.npy", np.concatenate([255 - pixels, pixels]))
    np.save(tmp_path / "labels.npy", np.concatenate([LABELS, LABELS]))
    return tmp_path


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


def test_rows_are_chosen_by_the_values_of_columns(everything):
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


def test_tables_with_holes_and_repeats(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    write_table(tmp_path / "t.csv", ["image", "label"], [("a.png", "cat"), ("a.png", "")])

    def rows(label):
        return tables.items(tmp_path / "t.csv", "image", label, None, None, ",", {})

    with pytest.raises(InputError, match=r"t.csv: row 3 has nothing in the column 'label'"):
        rows("label")
    with pytest.raises(InputError, match=r"the image 'a.png' is in 2 rows"):
        rows(None)
    write_table(tmp_path / "t.csv", ["image"], [])
    with pytest.raises(InputError, match="holds no rows"):
        rows(None)


def test_damaged_shards(tmp_path, pixels):
    write_shard(tmp_path / "0.tar", {"a.png": png(pixels[0]), "a.jpg": png(pixels[0])})
    with pytest.raises(InputError, match=r"have no one image alone; the first: 0.tar/a"):
        webdataset.items(tmp_path / "0.tar", None)
    write_shard(tmp_path / "0.tar", {"a.png": png(pixels[0]), "b.png": png(pixels[0]) * 100})
    whole = (tmp_path / "0.tar").read_bytes()
    for cut in (600, len(whole) // 2):
        (tmp_path / "0.tar").write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"0\.tar: the shard cannot be read"):
            webdataset.items(tmp_path, None)
    write_shard(tmp_path / "0.tar", {"a.txt": b"no image"})
    with pytest.raises(InputError, match="hold no samples"):
        webdataset.items(tmp_path, None)


def test_torchvision_sets_in_their_own_files(tmp_path):
    """MNIST's files as they are published, and its labels without a look at the images."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (5, 28, 28), dtype=np.uint8), np.arange(5, dtype=np.uint8)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(
            np.array([0x803, 5, 28, 28], ">i4").tobytes() + images.tobytes()
        )
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(np.array([0x801, 5], ">i4").tobytes() + labels.tobytes())
    found = torchvision_sets.items("MNIST", tmp_path, {"train": False}, False, True)
    assert found.labels == ["0", "1", "2", "3", "4"]
    np.testing.assert_array_equal(np.asarray(found.load(3)), images[3])
    fake = torchvision_sets.items("FakeData", tmp_path, {"size": 4, "num_classes": 3}, False, True)
    assert len(fake.labels) == 4
    assert fake.load(0).mode == "RGB"


def test_torchvisions_folders_are_decoded_as_ours(tmp_path):
    (tmp_path / "a").mkdir()
    deep = np.array([[0, 65535], [32768, 257]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "a" / "x.png")
    found = torchvision_sets.items("ImageFolder", tmp_path, {}, False, True)
    assert np.asarray(found.load(0)).tolist() == [[0, 255], [128, 1]]
    (tmp_path / "a" / "x.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"image 0 of ImageFolder .*x\.png cannot be decoded"):
        found.load(0)


def test_arrays_are_mapped_and_not_read(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((7, 4, 4), np.uint8))
    found = arrays.items(tmp_path / "x.npy", "images", None, None)
    values = next(cell.cell_contents for cell in found.load.__closure__ if isinstance(cell.cell_contents, np.ndarray))
    assert isinstance(values, np.memmap)
    np.save(tmp_path / "x.npy", np.zeros((7, 3, 4, 4), np.uint8))
    with pytest.raises(InputError, match=r"array.transpose\(0, 2, 3, 1\)"):
        arrays.items(tmp_path / "x.npy", "images", None, None)
    np.save(tmp_path / "x.npy", np.array([{}]))
    with pytest.raises(InputError, match="cannot be read: Array can't be memory-mapped"):
        arrays.items(tmp_path / "x.npy", "images", None, None)


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'pytest-qreliab\[datasets\]'"):
        huggingface.items(tmp_path, None, None, None, "image", None, names=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'pytest-qreliab\[parquet\]'"):
        tables.items(tmp_path / "t.parquet", "image", None, None, None, ",", {})


def test_nothing_heavy_is_imported_until_it_is_needed():
    code = (
        "import sys; from pytest_qreliab.data.sources import arrays, huggingface, listing, tables, torchvision_sets, webdataset;"
        "print(sorted({'torch', 'datasets', 'pyarrow', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
