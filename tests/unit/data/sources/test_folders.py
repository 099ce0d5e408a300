import pytest
from PIL import Image

from pytest_qreliab.data.sources import folders
from pytest_qreliab.errors import InputError


def test_images_may_lie_as_a_pattern_says(tmp_path):
    for path in ("10 black swan/common-water/b.png", "10 black swan/common-water/a.png", "2 owl/common-sky/c.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / path)
    (tmp_path / "2 owl" / "common-sky" / "notes.txt").write_text("x")
    (tmp_path / "2 owl" / "counter-sea").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "2 owl" / "counter-sea" / "d.png")
    found = folders.list_labelled(tmp_path, "{label} */common-*/*")
    assert found.ids == [
        "10 black swan/common-water/a.png",
        "10 black swan/common-water/b.png",
        "2 owl/common-sky/c.png",
    ]
    assert found.labels == ["10", "10", "2"]
    assert found.load(0).size == (4, 4)
    assert folders.list_labelled(tmp_path, "* {label}/*/d.png").labels == ["owl"]
    with pytest.raises(InputError, match=r"holds no images that lie as \{label\}/\*; there is 10 black swan/common"):
        folders.list_labelled(tmp_path, "{label}/*")
    with pytest.raises(InputError, match="nowhere: the folder cannot be read"):
        folders.list_labelled(tmp_path / "nowhere", "{label}/*")


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_an_image_that_cannot_be_decoded_is_named(image_folders, content):
    path = image_folders / "ood" / "0.jpg"
    path.write_bytes(path.read_bytes()[:150] if content is None else content)
    with pytest.raises(InputError, match=r"image .*0\.jpg cannot be decoded"):
        folders.load_image(path)


def test_real_images_of_every_kind_decode_and_preprocess(realdata, tiny):
    found = folders.list_files_by_class(realdata / "caltech101")
    paths = [path for paths in found.values() for path in paths][::5]
    assert len(found) == 101
    modes = set()
    for path in paths:
        image = folders.load_image(path)
        modes.add(image.mode)
        assert tiny.preprocess(image).shape == (3, 32, 32)
    assert {"L", "RGB"} <= modes
