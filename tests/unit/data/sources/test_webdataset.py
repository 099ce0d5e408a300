import io
import tarfile
import unicodedata

import pytest

from pytest_qreliab.data.sources import webdataset
from pytest_qreliab.errors import InputError


def texts(items, on_request=False):
    return [left.text for left in items.left_out if left.on_request == on_request]


def test_a_dot_in_the_name_of_an_image_is_an_error_with_number_and_name(tmp_path, pixels, png, write_shard):
    mixed = {}
    for i in range(6):
        name = f"000{i}" if i < 4 else f"000{i}.v2"
        mixed |= {f"{name}.png": png(pixels[i]), f"{name}.cls": b"0"}
    write_shard(tmp_path / "mixed.tar", mixed)
    write_shard(tmp_path / "dots.tar", {f"img.000{i}.png": png(pixels[i]) for i in range(6)})
    for name, count, first in (("mixed", 2, r"0004\.v2"), ("dots", 6, r"img\.0000")):
        for label in ("cls", None):
            with pytest.raises(InputError, match=rf"{count} files .* no sample, the first: {name}\.tar/{first}\.png;"):
                webdataset.list_items(tmp_path / f"{name}.tar", label)


def test_other_images_of_a_sample_are_left_out_if_the_suffix_of_its_image_is_given(tmp_path, pixels, png, write_shard):
    files = {"1.png": png(pixels[0]), "1.mask.png": png(pixels[1]), "2.png": png(pixels[2]), "2.gif": png(pixels[3])}
    write_shard(tmp_path / "0.tar", files)
    with pytest.raises(InputError, match=r"1 file with .* the first: 0\.tar/1\.mask\.png; .*, as in `image: jpg`"):
        webdataset.list_items(tmp_path / "0.tar", None)
    found = webdataset.list_items(tmp_path / "0.tar", None, "png")
    assert found.ids == ["0.tar/1", "0.tar/2"]
    assert texts(found, on_request=True) == ["2 images that `image` leaves out"]
    assert webdataset.list_items(tmp_path / "0.tar", None, ".PNG").ids == found.ids
    masks = webdataset.list_items(tmp_path / "0.tar", None, "mask.png")
    assert masks.ids == ["0.tar/1"]
    assert (masks.load(0).size, texts(masks, on_request=True)) == ((10, 12), ["3 images that `image` leaves out"])


def test_links_in_a_shard_are_no_files(tmp_path, pixels, png, write_shard):
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        content = png(pixels[0])
        member = tarfile.TarInfo("1.png")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
        for name, kind in (("2.png", tarfile.LNKTYPE), ("3.png", tarfile.SYMTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "1.png"
            archive.addfile(link)
    with pytest.raises(InputError, match=r"2 files with .* the first: 0\.tar/2\.png; .* a link is no file"):
        webdataset.list_items(tmp_path / "0.tar", None)


def test_names_without_an_image_are_said(tmp_path, pixels, png, write_shard):
    files = {"1.png": png(pixels[0]), "1.json": b"{}", "2.heic": b"", "2.json": b"{}", "README": b"", "._1.png": b""}
    write_shard(tmp_path / "0.tar", {**files, ".DS_Store": b"", "a/._1.png": b""})
    found = webdataset.list_items(tmp_path / "0.tar", None)
    assert found.ids == ["0.tar/1"]
    assert texts(found) == ["2 names without an image left out: 0.tar/2, 0.tar/README"]


def test_all_suffixes_that_pillow_reads_are_images(tmp_path, pixels, png, write_shard):
    names = ["1.jfif", "2.JPG", "3.tga", "4.apng", "5.jpe"]
    write_shard(tmp_path / "0.tar", {name: png(pixels[0]) for name in names})
    assert len(webdataset.list_items(tmp_path / "0.tar", None)) == 5


def test_the_files_of_a_sample_may_have_names_in_two_unicode_forms(tmp_path, pixels, png, write_shard):
    names = [unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.cls")]
    write_shard(tmp_path / "0.tar", dict(zip(names, (png(pixels[0]), b"1"), strict=True)))
    found = webdataset.list_items(tmp_path / "0.tar", "cls")
    assert (found.ids, found.labels) == ([unicodedata.normalize("NFC", "0.tar/é")], ["1"])


def test_packed_shards_in_a_folder_are_named_and_hidden_files_are_apart(tmp_path, pixels, png, write_shard):
    write_shard(tmp_path / "0.tar", {"a.png": png(pixels[0])})
    (tmp_path / "._0.tar").write_bytes(b"Mac OS X")
    for path in (tmp_path, tmp_path / "*.tar"):
        assert webdataset.list_items(path, None).ids == ["0.tar/a"]
    (tmp_path / "1.tar.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 shard to be unpacked first: 1\.tar\.gz"):
        webdataset.list_items(tmp_path, None)


def test_damaged_shards(tmp_path, pixels, png, write_shard):
    write_shard(tmp_path / "0.tar", {"a.png": png(pixels[0]), "a.jpg": png(pixels[0])})
    with pytest.raises(InputError, match=r"have no one image alone; the first: 0.tar/a"):
        webdataset.list_items(tmp_path / "0.tar", None)
    write_shard(tmp_path / "0.tar", {"a.png": png(pixels[0]), "b.png": png(pixels[0]) * 100})
    whole = (tmp_path / "0.tar").read_bytes()
    for cut in (600, len(whole) // 2):
        (tmp_path / "0.tar").write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"0\.tar: the shard cannot be read"):
            webdataset.list_items(tmp_path, None)
    write_shard(tmp_path / "0.tar", {"a.txt": b"no image"})
    with pytest.raises(InputError, match="hold no samples"):
        webdataset.list_items(tmp_path, None)
