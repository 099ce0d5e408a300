import sys

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
