import numpy as np
import pytest
from PIL import Image

from pytest_qreliab.data.sources import torchvision_sets
from pytest_qreliab.errors import InputError


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
    found = torchvision_sets.list_items("MNIST", tmp_path, {"train": False})
    assert found.labels == ["0", "1", "2", "3", "4"]
    np.testing.assert_array_equal(np.asarray(found.load(3)), images[3])
    fake = torchvision_sets.list_items("FakeData", tmp_path, {"size": 4, "num_classes": 3})
    assert len(fake.labels) == 4
    assert fake.load(0).mode == "RGB"


def test_torchvisions_folders_are_decoded_as_ours(tmp_path):
    (tmp_path / "a").mkdir()
    deep = np.array([[0, 65535], [32768, 257]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "a" / "x.png")
    found = torchvision_sets.list_items("ImageFolder", tmp_path, {})
    assert np.asarray(found.load(0)).tolist() == [[0, 255], [128, 1]]
    (tmp_path / "a" / "x.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"image 0 of ImageFolder .*x\.png cannot be decoded"):
        found.load(0)


def test_torchvisions_folders_hold_all_that_pillow_reads_and_nothing_hidden(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("0.jpg", "1.jfif", "2.JPG", "3.tga", ".hidden.jpg", "._0.jpg"):
        Image.new("L", (4, 4)).save(tmp_path / "a" / name, "tga" if name.endswith("tga") else "jpeg")
    for name in ("notes.txt", "Thumbs.db"):
        (tmp_path / "a" / name).write_text("x")
    found = torchvision_sets.list_items("ImageFolder", tmp_path, {})
    assert [found.load(i).size for i in range(len(found))] == [(4, 4)] * 4
    assert [left.text for left in found.left_out] == [
        "1 file left out, without the suffix of an image that Pillow reads: notes.txt"
    ]
    (tmp_path / "a" / "4.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(InputError, match=r"4\.jpg is a link to nothing: fetch the file"):
        torchvision_sets.list_items("ImageFolder", tmp_path, {})
