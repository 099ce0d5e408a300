"""The files of recordings: what cannot be read or written is told in one line, and leaves nothing behind."""

import contextlib
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pytest_qreliab.data.recording import Recording
from pytest_qreliab.errors import InputError

CLASSES = ["cat", "dog", "owl"]
LOGITS = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 0.0]], dtype=np.float32)


def arrow():
    return pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'pytest-qreliab[parquet]'")


def test_a_save_that_fails_leaves_the_old_file(suffix, tmp_path, monkeypatch, small, refusal):
    path = small().save(tmp_path / f"r{suffix}")
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    assert refusal(small(model="other").save, path) == f"{path}: cannot be written: No space left on device"
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_where_nothing_can_be_saved(tmp_path, small, refusal):
    assert refusal(small().save, tmp_path / "no" / "r.npz").endswith("cannot be written: No such file or directory")
    (tmp_path / "folder.npz").mkdir()
    assert refusal(small().save, tmp_path / "folder.npz").endswith("cannot be written: Is a directory")


@pytest.mark.parametrize("name", ["r.npy", "r", "r.parqet"])
def test_an_unknown_suffix(name, tmp_path, small, refusal):
    for call in (small().save, Recording.load):
        text = refusal(call, tmp_path / name)
        assert text.startswith(f"{tmp_path / name}: unknown suffix")
        assert "valid: .npz, .parquet, .safetensors" in text


def test_a_file_that_is_none(suffix, tmp_path, refusal):
    path = tmp_path / f"r{suffix}"
    assert refusal(Recording.load, path) == f"{path}: there is no such file"
    path.mkdir()
    assert refusal(Recording.load, path) == f"{path}: is not a file"


def test_damaged_files(suffix, tmp_path, small, refusal):
    path = small().save(tmp_path / f"r{suffix}")
    whole = path.read_bytes()
    for size in (0, 1, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert refusal(Recording.load, path).startswith(f"{path}: ")
    for i in range(0, len(whole), 5):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 255]) + whole[i + 1 :])
        # A flipped bit of a value, which has no checksum in .safetensors, may go unseen; nothing else is raised.
        with contextlib.suppress(InputError):
            Recording.load(path)


def test_npz_files_that_are_none(tmp_path, refusal, npz_of):
    path = tmp_path / "r.npz"
    with path.open("wb") as file:
        np.save(file, LOGITS)
    assert refusal(Recording.load, path) == f"{path}: is not an .npz archive, as np.savez writes it"
    with zipfile.ZipFile(npz_of(path, classes=None), "a") as archive:
        archive.writestr("classes", "cat, dog")
    assert refusal(Recording.load, path).startswith(f"{path}: classes must be ")


def test_safetensors_by_hand(tmp_path, refusal):
    from safetensors.numpy import save_file

    path = tmp_path / "r.safetensors"
    tensors = {
        "in_distribution/ids": np.array([7, 8]),
        "in_distribution/logits": LOGITS,
        "in_distribution/labels": np.array([2, 0], dtype=np.int32),
    }
    save_file(tensors, path, {"classes": json.dumps(CLASSES), "format": "np"})
    assert Recording.load(path).sets["in_distribution"].ids == ("7", "8")
    save_file(tensors, path, {"classes": "cat, dog"})
    assert refusal(Recording.load, path).startswith(f"{path}: metadata 'classes' are not JSON: ")
    save_file(tensors, path)
    assert refusal(Recording.load, path) == f"{path}: lacks 'classes'"
    save_file(tensors, path, {"classes": json.dumps(CLASSES), "version": "2"})
    assert "is of format version 2" in refusal(Recording.load, path)


def parquet_of(path: Path, head: object = None, **changes) -> Path:
    """A table as another program may write it, with lists of variable length; None leaves a column out."""
    pa = arrow()
    import pyarrow.parquet as pq

    columns = {
        "set": ["in_distribution", "ood.far.x", "in_distribution"],
        "id": ["a", "a", "b"],
        "label": pa.array([2, None, 0]),
        "logits": pa.array([LOGITS[0], [0.0, 0.0, 9.0], LOGITS[1]], pa.list_(pa.float64())),
        **changes,
    }
    table = pa.table({name: column for name, column in columns.items() if column is not None})
    head = json.dumps({"classes": CLASSES, "among": {"in_distribution": [0, 2]}} if head is None else head)
    pq.write_table(table.replace_schema_metadata({"qreliab": head} if head != '""' else {}), path, row_group_size=2)
    return path


def test_parquet_by_hand(tmp_path):
    loaded = Recording.load(parquet_of(tmp_path / "r.parquet"))
    assert list(loaded.sets) == ["in_distribution", "ood.far.x"]
    recorded = loaded.sets["in_distribution"]
    assert recorded.ids == ("a", "b")
    assert recorded.among.tolist() == [0, 2]
    assert recorded.labels.tolist() == [2, 0]
    np.testing.assert_array_equal(recorded.values, LOGITS)
    assert loaded.sets["ood.far.x"].labels is None


@pytest.mark.parametrize(
    ("head", "changes", "message"),
    [
        ("", {}, "the metadata of its schema lack the key 'qreliab'"),
        ([], {}, "metadata 'qreliab': expected a JSON object"),
        ({"classes": CLASSES, "logitscale": 3}, {}, "unknown array 'logitscale'; did you mean 'logit_scale'?"),
        ({"classes": CLASSES, "version": 9}, {}, "is of format version 9"),
        (None, {"set": None}, "lacks the column 'set'"),
        (None, {"id": None}, "lacks the column 'id'"),
        (None, {"logits": None}, "in_distribution: give one of"),
        (None, {"labels": [1, 2, 3]}, "unknown column 'labels'; did you mean 'label'?"),
        (None, {"label": [2.0, None, 0.0]}, "the column 'label' must be int64"),
        (None, {"label": [2, None, None]}, "in_distribution: 1 of 2 labels are null, the first is of id 'b'"),
        (None, {"label": None}, "in_distribution: needs labels"),
        (None, {"set": ["in_distribution", None, "in_distribution"]}, "unknown set 'None'"),
        (None, {"id": ["a", None, "b"]}, "ood.far.x: ids must be strings or integers, number 0 is of type NoneType"),
        (None, {"logits": [1.0, 2.0, 3.0]}, "the column 'logits' must be of lists of float32, found double"),
        (
            None,
            {"logits": [[1.0], [1.0, 2.0], [3.0]]},
            "of one length: 0 are null, the others have from 1 to 2 ele",
        ),
        (None, {"logits": [[1.0], None, [3.0]]}, "1 are null"),
        (None, {"logits": [[1.0], [2.0], [3.0]]}, "in_distribution: logits must have the shape (2, 3)"),
    ],
)
def test_what_parquet_by_hand_may_have_wrong(head, changes, message, tmp_path, refusal):
    path = parquet_of(tmp_path / "r.parquet", head, **changes)
    text = refusal(Recording.load, path)
    assert text.startswith(f"{path}: ")
    assert message in text


def test_an_empty_table(tmp_path, refusal):
    arrow()
    import pyarrow as pa

    empty = {"set": pa.array([], pa.string()), "id": pa.array([], pa.string()), "label": pa.array([], pa.int64())}
    path = parquet_of(tmp_path / "r.parquet", **empty, logits=pa.array([], pa.list_(pa.float32())))
    assert refusal(Recording.load, path).startswith(f"{path}: lacks ")


def test_the_columns_of_parquet_are_as_documented(tmp_path, small):
    pa = arrow()
    import pyarrow.parquet as pq

    schema = pq.read_schema(small().save(tmp_path / "r.parquet"))
    assert schema.names == ["set", "id", "label", "logits"]
    assert schema.types[:3] == [pa.string(), pa.string(), pa.int64()]
    assert pa.types.is_fixed_size_list(schema.types[3])
    assert schema.types[3].value_type == pa.float32()
    assert json.loads(schema.metadata[b"qreliab"])["classes"] == CLASSES


def test_without_pyarrow(tmp_path, monkeypatch, small, refusal):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "r.parquet").write_bytes(b"PAR1")
    for call in (small().save, Recording.load):
        text = refusal(call, tmp_path / "r.parquet")
        assert text.startswith(f"{tmp_path / 'r.parquet'}: needs pyarrow: pip install 'pytest-qreliab[parquet]'")
