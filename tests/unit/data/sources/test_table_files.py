import pytest

from pytest_qreliab.data.sources import table_files
from pytest_qreliab.errors import InputError


def test_csv_tsv_and_json_lines_hold_the_same_rows(tmp_path):
    (tmp_path / "t.csv").write_text('image,label\n"a,b.jpg",x\n\nc.jpg,\n')
    (tmp_path / "t.tsv").write_text("image\tlabel\na,b.jpg\tx\n\nc.jpg\t\n")
    (tmp_path / "t.jsonl").write_text('\n{"image": "a,b.jpg", "label": "x"}\n\n{"image": "c.jpg"}\n')
    (tmp_path / "t.txt").write_text("a,b.jpg\tx\nc.jpg\t\n")
    expected = [(2, {"image": "a,b.jpg", "label": "x"}), (4, {"image": "c.jpg", "label": ""})]
    assert table_files.read(tmp_path / "t.csv", None, None) == expected
    assert table_files.read(tmp_path / "t.tsv", None, None) == expected
    head = table_files.read(tmp_path / "t.txt", ["image", "label"], "\t")
    assert [row for _, row in head] == [row for _, row in expected]
    lines = table_files.read(tmp_path / "t.jsonl", None, None)
    assert lines == [expected[0], (4, {"image": "c.jpg", "label": None})]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"a,b\n1,2,3\n", r"t\.csv:2: 3 cells for the columns a, b"),
        ("t.csv", b'a,b\n"1,2\n', r"t\.csv:2: 1 cell for the columns a, b"),
        (
            "t.csv",
            "a\n1\n".encode("utf-16"),
            r"t\.csv: the table cannot be read: it is not UTF-8 text; save it as such",
        ),
        ("t.csv", b"a\n\xff\n", r"t\.csv: the table cannot be read: it is not UTF-8 text"),
        ("t.jsonl", b'{"a": 1}\n{"a": \n', r"t\.jsonl:2: not valid JSON"),
        ("t.jsonl", b"[1]\n", r"t\.jsonl:1: a list; each line is an object"),
        ("t.ndjson", b"[" * 100_000, r"t\.ndjson:1: not valid JSON"),
        ("t.jsonl", None, r"t\.jsonl: the table cannot be read: No such file"),
    ],
)
def test_damaged_tables_are_told_with_their_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        table_files.read(tmp_path / name, None, None)


def test_no_damage_of_a_parquet_file_makes_a_traceback(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"image": ["a.jpg", "b.jpg"]}), path)
    whole = path.read_bytes()
    refusals = []
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            table_files.read(path, None, None)
        except InputError as error:
            refusals.append(str(error))
    assert len(refusals) > 10
    assert all(text.startswith(f"{path}: the table cannot be read: ") for text in refusals)
