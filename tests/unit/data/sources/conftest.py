"""Six images, and every source that can hold them."""

import csv
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

CLASSES = ("cat", "dog", "owl")
LABELS = np.array([0, 2, 1, 0, 2, 2])


@pytest.fixture(scope="module")
def pixels():
    """Six RGB images, uint8 (6, 12, 10, 3)."""
    return np.random.default_rng(0).integers(0, 256, (6, 12, 10, 3), dtype=np.uint8)


def encode_png(array: np.ndarray) -> bytes:
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


@pytest.fixture(name="png")
def png_fixture():
    """Encodes an array as PNG."""
    return encode_png


@pytest.fixture(name="write_shard")
def write_shard_fixture():
    """Writes a tar file of these files."""
    return write_shard


@pytest.fixture(name="write_table")
def write_table_fixture():
    """Writes a CSV file."""
    return write_table


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
        (folder / names[i]).write_bytes(encode_png(pixels[i]))
    paths = [f"images/{CLASSES[label]}/{names[i]}" for i, label in enumerate(LABELS)]
    keys = [CLASSES[label] for label in LABELS]
    write_table(tmp_path / "t.csv", ["image", "label"], zip(paths, keys, strict=True))
    write_table(tmp_path / "list.txt", None, zip(paths, LABELS, strict=True), " ")
    parquet.write_table(pyarrow.table({"file": paths, "y": LABELS.tolist()}), tmp_path / "t.parquet")
    inside = [{"bytes": encode_png(image), "path": None} for image in pixels]
    parquet.write_table(pyarrow.table({"image": inside, "label": keys}), tmp_path / "inside.parquet")
    for shard in range(2):
        members = {}
        for i in range(3 * shard, 3 * shard + 3):
            members |= {
                f"s{i:07d}.png": encode_png(pixels[i]),
                f"s{i:07d}.cls": str(LABELS[i]).encode(),
                f"s{i:07d}.json": json.dumps({"i": i}).encode(),
            }
        write_shard(tmp_path / f"{shard}.tar", members)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    rows = {"image": [{"bytes": encode_png(image), "path": None} for image in pixels], "label": LABELS.tolist()}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "hf"))
    split = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"test": split}).save_to_disk(str(tmp_path / "splits"))
    np.save(tmp_path / "x.npy", pixels)
    np.save(tmp_path / "y.npy", LABELS)
    np.savez(tmp_path / "xy.npz", images=pixels, y=LABELS)
    np.save(tmp_path / "twice.npy", np.concatenate([255 - pixels, pixels]))
    np.save(tmp_path / "labels.npy", np.concatenate([LABELS, LABELS]))
    return tmp_path
