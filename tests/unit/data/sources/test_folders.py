import unicodedata

import pytest
from PIL import Image

from pytest_qreliab.data.sources import folders
from pytest_qreliab.errors import InputError


def save(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(folder / name, "jpeg")


def texts(items, on_request=False):
    return [left.text for left in items.left_out if left.on_request == on_request]


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
    assert texts(found, on_request=True) == ["1 image that the pattern leaves out"]
    assert texts(found) == [
        "1 file left out, without the suffix of an image that Pillow reads: 2 owl/common-sky/notes.txt"
    ]
    assert folders.list_labelled(tmp_path, "* {label}/*/d.png").labels == ["owl"]
    with pytest.raises(InputError, match=r"holds no images that lie as \{label\}/\*; there is 10 black swan/common"):
        folders.list_labelled(tmp_path, "{label}/*")
    with pytest.raises(InputError, match="nowhere: the folder cannot be read"):
        folders.list_labelled(tmp_path / "nowhere", "{label}/*")


def test_two_stars_stand_for_any_folders_or_none(tmp_path):
    save(tmp_path, "cat/1.jpg", "cat/part/2.jpg", "cat/part/more/3.jpg", "dog/4.jpg")
    found = folders.list_labelled(tmp_path, "{label}/**/*")
    assert (found.labels, found.left_out) == (["cat", "cat", "cat", "dog"], ())
    assert folders.list_labelled(tmp_path, "{label}/**/part/*").ids == ["cat/part/2.jpg"]
    assert folders.list_labelled(tmp_path, "**/more/{label}.jpg").labels == ["3"]


def test_images_in_folders_of_a_class_are_an_error_with_the_pattern_that_takes_them(tmp_path):
    save(tmp_path, "cat/0.jpg", "cat/part/1.jpg", "cat/part/2.jpg", "dog/0.jpg")
    with pytest.raises(InputError, match=r"2 images in folders within .* the first: cat/part/1\.jpg; .*") as caught:
        folders.list_labelled(tmp_path)
    assert str(caught.value).endswith('pattern: "{label}/**/*"; to leave them out, pattern: "{label}/*"')
    assert len(folders.list_labelled(tmp_path, "{label}/**/*")) == 4
    left = folders.list_labelled(tmp_path, "{label}/*")
    assert (len(left), texts(left, on_request=True)) == (2, ["2 images that the pattern leaves out"])
    (tmp_path / "cat" / "0.jpg").unlink()
    (tmp_path / "dog" / "0.jpg").rename(tmp_path / "cat" / "part" / "3.jpg")
    with pytest.raises(InputError, match=r'to take them, add pattern: "\{label\}/\*/\*"$'):
        folders.list_labelled(tmp_path)


def test_all_that_pillow_reads_is_taken_and_the_rest_is_said(tmp_path):
    save(tmp_path, "cat/0.jpg", "cat/1.jfif", "cat/2.JPG", "cat/3.jpe", "loose.jpg", "cat/.hidden.jpg", "cat/._0.jpg")
    for name in ("cat/notes.txt", "cat/5.heic", "cat/.DS_Store", "README.md"):
        (tmp_path / name).write_text("x")
    save(tmp_path, ".git/annex/1.jpg", "__MACOSX/cat/._0.jpg", "cat/@eaDir/0.jpg")
    for name in ("Thumbs.db", "cat/Thumbs.db", "cat/desktop.ini"):
        (tmp_path / name).write_text("x")
    found = folders.list_labelled(tmp_path)
    assert found.ids == ["cat/0.jpg", "cat/1.jfif", "cat/2.JPG", "cat/3.jpe"]
    assert texts(found) == [
        "1 image left out, beside the class folders: loose.jpg",
        "2 files left out, without the suffix of an image that Pillow reads: cat/5.heic, cat/notes.txt",
    ]
    assert texts(found, on_request=True) == []
    assert folders.list_labelled(tmp_path, "{label}/**/*").ids == found.ids


def test_a_flat_folder_says_what_it_does_not_take(tmp_path):
    save(tmp_path, "1.jpg", "part/2.jpg", "part/deep/3.jpg", ".git/4.jpg")
    (tmp_path / "notes.txt").write_text("x")
    found = folders.list_unlabelled(tmp_path)
    assert found.ids == ["1.jpg"]
    assert texts(found) == [
        "2 images left out, in folders within the folder: part/2.jpg, part/deep/3.jpg",
        "1 file left out, without the suffix of an image that Pillow reads: notes.txt",
    ]


@pytest.mark.parametrize("listed", [folders.list_labelled, lambda folder: folders.list_labelled(folder, "{label}/*")])
def test_links_to_nothing_are_an_error(tmp_path, listed):
    save(tmp_path, "cat/0.jpg", "dog/0.jpg")
    (tmp_path / "dog" / "1.jpg").symlink_to("../.git/annex/objects/1.jpg")
    (tmp_path / "dog" / "2.jpg").symlink_to("2.jpg")  # to itself
    with pytest.raises(InputError, match=r"2 files not there, but only links to nothing, the first: dog/1\.jpg; fetch"):
        listed(tmp_path)
    with pytest.raises(InputError, match=r"2 files not there"):
        folders.list_unlabelled(tmp_path / "dog")
    (tmp_path / "dog" / "1.jpg").unlink()
    (tmp_path / "dog" / "2.jpg").unlink()
    assert len(listed(tmp_path)) == 2


def test_a_class_folder_that_is_a_link_to_nothing_is_an_error(tmp_path):
    save(tmp_path, "cat/0.jpg", "dog/0.jpg")
    (tmp_path / "owl").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"1 file not there, but only links to nothing, the first: owl"):
        folders.list_labelled(tmp_path)


@pytest.mark.parametrize("pattern", [None, "{label}/*", "{label}/**/*"])
def test_links_are_followed_and_circles_end(tmp_path, pattern):
    save(tmp_path, "elsewhere/a/0.jpg", "elsewhere/a/1.jpg", "set/dog/0.jpg")
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "elsewhere" / "a")
    (tmp_path / "set" / "dog" / "9.jpg").symlink_to(tmp_path / "elsewhere" / "a" / "0.jpg")
    (tmp_path / "set" / "dog" / "up").symlink_to(tmp_path / "set" / "dog")
    found = folders.list_labelled(tmp_path / "set", pattern)
    assert found.ids == ["cat/0.jpg", "cat/1.jpg", "dog/0.jpg", "dog/9.jpg"]
    assert found.load(3).size == (4, 4)


def test_ids_and_order_are_the_same_in_either_unicode_form(tmp_path):
    names = ["cafz/1.jpg", "café/é.jpg", "café/f.jpg", "ube/1.jpg", "über/1.jpg"]
    for form in ("NFC", "NFD"):
        save(tmp_path / form, *(unicodedata.normalize(form, name) for name in names))
    composed, decomposed = (folders.list_labelled(tmp_path / form) for form in ("NFC", "NFD"))
    assert composed.ids == decomposed.ids
    assert set(composed.ids) == {unicodedata.normalize("NFC", name) for name in names}
    assert decomposed.load(0).size == (4, 4)
    matched = folders.list_labelled(tmp_path / "NFD", unicodedata.normalize("NFC", "{label}/é*"))
    assert matched.ids == ["café/é.jpg"]


def test_two_files_that_differ_in_their_unicode_form_alone_are_an_error(tmp_path):
    save(tmp_path, unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "é.jpg"))
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("the file system takes both forms as one")
    with pytest.raises(InputError, match=r"two files are called é\.jpg, in two Unicode forms"):
        folders.list_unlabelled(tmp_path)


def test_empty_class_folders_may_be_where_some_classes_have_no_images(tmp_path):
    save(tmp_path, "cat/0.jpg")
    (tmp_path / "yak").mkdir()
    (tmp_path / "yak" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"yak holds no images; it holds notes\.txt; to .*, add partial: true"):
        folders.list_labelled(tmp_path)
    found = folders.list_labelled(tmp_path, partial=True)
    assert (found.labels, texts(found, on_request=True)) == (["cat"], ["1 class folder without images"])


def test_a_file_name_with_a_line_end_is_a_name(tmp_path):
    save(tmp_path, "cat/a\nb.jpg")
    (tmp_path / "cat" / "c\nd.txt").write_text("x")
    found = folders.list_labelled(tmp_path)
    assert found.ids == ["cat/a\nb.jpg"]
    assert texts(found)[0].endswith(r"reads: cat/c\nd.txt")


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_an_image_that_cannot_be_decoded_is_named(image_folders, content):
    path = image_folders / "ood" / "0.jpg"
    path.write_bytes(path.read_bytes()[:150] if content is None else content)
    with pytest.raises(InputError, match=r"image .*0\.jpg cannot be decoded"):
        folders.load_image(path)


def test_real_images_of_every_kind_decode_and_preprocess(realdata, tiny):
    found = folders.list_labelled(realdata / "caltech101")
    assert (len(found), len(set(found.labels)), found.left_out) == (1640, 101, ())
    modes = set()
    for i in range(0, len(found), 5):
        image = found.load(i)
        modes.add(image.mode)
        assert tiny.preprocess(image).shape == (3, 32, 32)
    assert {"L", "RGB"} <= modes
