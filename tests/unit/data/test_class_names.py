import pytest

from pytest_qreliab.data import class_names
from pytest_qreliab.errors import InputError


def test_built_in_names_and_names_from_a_file(tmp_path):
    imagenet = class_names.read_classes("imagenet", tmp_path)
    assert list(imagenet.items())[:2] == [("n01440764", "tench"), ("n01443537", "goldfish")]
    assert {len(class_names.read_classes(f"imagenet-{part}", tmp_path)) for part in "ar"} == {200}
    assert set(class_names.read_classes("imagenet-r", tmp_path)) < set(imagenet)
    assert len(class_names.read_templates("imagenet", tmp_path)) == 80
    (tmp_path / "names.txt").write_text("n1\ta tench\nshark\n\n")
    assert class_names.read_classes("names.txt", tmp_path / "names.txt") == {"n1": "a tench", "shark": "shark"}
    with pytest.raises(InputError, match="unknown set of classes 'imagnet'; did you mean 'imagenet'"):
        class_names.read_classes("imagnet", tmp_path / "imagnet")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"n1\ta cat\nn2\ta cat\nn1\ta dog\n", r"names\.txt:3: 'n1' is given twice"),
        (b"\n \n", r"names\.txt: is empty"),
        (b"caf\xe9\n", r"names\.txt: cannot be read: it is not UTF-8 text"),
    ],
)
def test_a_file_that_does_not_name_classes_is_told(tmp_path, content, message):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        class_names.read_classes("names.txt", tmp_path / "names.txt")


def test_templates_are_the_lines_of_a_file_without_its_byte_order_mark(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbfa photo of a {}.\n\n  a sketch of a {}.  \n")
    assert class_names.read_templates("t.txt", tmp_path / "t.txt") == ["a photo of a {}.", "a sketch of a {}."]
