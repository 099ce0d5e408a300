import numpy as np
import pytest

from pytest_qreliab.data.sources import arrays
from pytest_qreliab.errors import InputError


def test_arrays_are_mapped_and_not_read(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((7, 4, 4), np.uint8))
    found = arrays.list_items(tmp_path / "x.npy", "images", None, None)
    values = next(cell.cell_contents for cell in found.load.__closure__ if isinstance(cell.cell_contents, np.ndarray))
    assert isinstance(values, np.memmap)
    np.save(tmp_path / "x.npy", np.zeros((7, 3, 4, 4), np.uint8))
    with pytest.raises(InputError, match=r"array.transpose\(0, 2, 3, 1\)"):
        arrays.list_items(tmp_path / "x.npy", "images", None, None)
    np.save(tmp_path / "x.npy", np.array([{}]))
    with pytest.raises(InputError, match="cannot be read: Array can't be memory-mapped"):
        arrays.list_items(tmp_path / "x.npy", "images", None, None)
