import sys
import unicodedata

import pytest

from pytest_qreliab.data.sources import tables
from pytest_qreliab.errors import InputError


def test_tables_with_holes_and_repeats(tmp_path, write_table):
    (tmp_path / "a.png").write_bytes(b"")
    write_table(tmp_path / "t.csv", ["image", "label"], [("a.png", "cat"), ("a.png", "")])

    def rows(label):
        return tables.list_items(tmp_path / "t.csv", tables.TableColumns(label=label))

    with pytest.raises(InputError, match=r"t.csv: row 3 has nothing in the column 'label'"):
        rows("label")
    with pytest.raises(InputError, match=r"the image 'a.png' is in 2 rows"):
        rows(None)
    write_table(tmp_path / "t.csv", ["image"], [])
    with pytest.raises(InputError, match="holds no rows"):
        rows(None)


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'pytest-qreliab\[parquet\]'"):
        tables.list_items(tmp_path / "t.parquet", tables.TableColumns())


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def listed(path, **columns):
    return tables.list_items(path, tables.TableColumns(**columns))


def test_a_path_may_be_made_of_columns(tmp_path, write_table):
    touch(tmp_path, "images/a/10000.jpg", "images/b/10001.jpg")
    write_table(tmp_path / "t.csv", ["id", "kind", "label"], [("10000", "a", "x"), ("10001", "b", "y")])
    found = listed(tmp_path / "t.csv", image="images/{kind}/{id}.jpg", label="label")
    assert (found.ids, found.labels) == (["images/a/10000.jpg", "images/b/10001.jpg"], ["x", "y"])
    with pytest.raises(InputError, match="unknown column 'idd'; did you mean 'id'"):
        listed(tmp_path / "t.csv", image="images/{idd}.jpg")
    write_table(tmp_path / "t.csv", ["id", "kind"], [("10000", "")])
    with pytest.raises(InputError, match="row 2 has nothing in the column 'kind'"):
        listed(tmp_path / "t.csv", image="images/{kind}/{id}.jpg")


@pytest.mark.parametrize(
    ("files", "image", "hint"),
    [
        (["images/1.jpg", "images/2.jpg"], "id", r'there is images/1\.jpg: write image: "images/\{id\}\.jpg"$'),
        (["1.png"], "id", r'there is 1\.png: write image: "\{id\}\.png"$'),
        (["deep/images/1.png"], "id", r"`root:` says where paths start; .*makes paths of a column id$"),
        (["images/1.jpg"], "{id}.jpg", r'there is images/1\.jpg: write image: "images/\{id\}\.jpg"$'),
    ],
)
def test_ids_without_suffix_or_folder_are_told_what_to_write(tmp_path, write_table, files, image, hint):
    touch(tmp_path, *files)
    write_table(tmp_path / "t.csv", ["id"], [("1",), ("2",), ("3",)])
    with pytest.raises(InputError, match=r"3 of 3 images are not there; the first: .*1(\.jpg)? \(row 2\); " + hint):
        listed(tmp_path / "t.csv", image=image)


def test_whole_numbers_of_parquet_are_no_images_but_make_paths(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    touch(tmp_path, "7.jpg")
    parquet.write_table(pyarrow.table({"id": [7]}), tmp_path / "t.parquet")
    assert listed(tmp_path / "t.parquet", image="{id}.jpg").ids == ["7.jpg"]
    with pytest.raises(InputError, match=r'row 0 holds int: .*; if its file is called so, write image: "\{id\}\.jpg"'):
        listed(tmp_path / "t.parquet", image="id")


def test_rows_without_an_image_are_left_out_on_request_with_their_number(tmp_path, write_table):
    touch(tmp_path, "a.jpg", "c.jpg")
    write_table(tmp_path / "t.csv", ["image", "label"], [(f"{name}.jpg", name) for name in "abcd"])
    with pytest.raises(InputError, match=r"2 of 4 images are not there; the first: .*b\.jpg \(row 3\)"):
        listed(tmp_path / "t.csv", label="label")
    found = listed(tmp_path / "t.csv", label="label", skips_missing=True)
    assert (found.ids, found.labels) == (["a.jpg", "c.jpg"], ["a", "c"])
    assert [tuple(left) for left in found.left_out] == [
        ("2 rows left out, whose image is not there: b.jpg, d.jpg", False)
    ]
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "c.jpg").unlink()
    with pytest.raises(InputError, match=r"4 of 4 images are not there"):
        listed(tmp_path / "t.csv", skips_missing=True)


def test_where_may_have_several_values_each_of_which_is_there(tmp_path, write_table):
    touch(tmp_path, *(f"{n}.jpg" for n in range(4)))
    rows = [(f"{n}.jpg", split, 2000 + n) for n, split in enumerate(("train", "val", "test", "val"))]
    write_table(tmp_path / "t.csv", ["image", "split", "year"], rows)
    found = listed(tmp_path / "t.csv", where={"split": ["val", "test"], "year": [2001, 2002]})
    assert found.ids == ["1.jpg", "2.jpg"]
    assert [tuple(left) for left in found.left_out] == [("2 rows that `where` leaves out", True)]
    with pytest.raises(InputError, match=r"split is never tset; there split is test, train, val$"):
        listed(tmp_path / "t.csv", where={"split": ["val", "tset"]})
    with pytest.raises(InputError, match=r"no row has all the values of `where`; there .*year is 2000, 2001"):
        listed(tmp_path / "t.csv", where={"split": "train", "year": 2001})


def test_another_delimiter_than_the_tables_is_told(tmp_path, write_table):
    for delimiter, written in (("\t", r'"\\t"'), (";", '";"'), ("|", r'"\|"')):
        write_table(tmp_path / "t.csv", ["file", "label"], [("a.jpg", "x")], delimiter)
        with pytest.raises(InputError, match=f"with delimiter: {written} there are the columns file, label"):
            listed(tmp_path / "t.csv", image="file")


def test_paths_and_values_are_compared_in_one_unicode_form(tmp_path, write_table):
    name = unicodedata.normalize("NFD", "é.jpg")
    touch(tmp_path, name)
    row = [unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "à")]
    write_table(tmp_path / "t.csv", ["image", "kind"], [row])
    found = listed(tmp_path / "t.csv", where={"kind": unicodedata.normalize("NFC", "à")})
    assert found.ids == [unicodedata.normalize("NFC", "é.jpg")]
    assert found.content(0).read_bytes() == b""


def test_a_path_that_is_too_long_for_a_file_is_not_there(tmp_path, write_table):
    write_table(tmp_path / "t.csv", ["image"], [("a" * 5000,)])
    with pytest.raises(InputError, match="1 of 1 images are not there"):
        listed(tmp_path / "t.csv")


def test_rows_hold_paths_or_images_and_not_both(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "t.jsonl").write_text('{"image": "a.jpg"}\n{"image": 5}\n{"image": "b.jpg"}\n')
    with pytest.raises(InputError, match=r"t\.jsonl: row 2 holds int, and other rows hold paths"):
        listed(tmp_path / "t.jsonl")


def test_paths_may_be_written_as_on_windows(tmp_path, write_table):
    touch(tmp_path, "images/a.jpg", "images/b.jpg")
    write_table(tmp_path / "t.csv", ["image"], [(r"images\a.jpg",), ("images/b.jpg",)])
    found = listed(tmp_path / "t.csv")
    assert found.ids == [r"images\a.jpg", "images/b.jpg"]
    assert found.content(0) == tmp_path / "images" / "a.jpg"
