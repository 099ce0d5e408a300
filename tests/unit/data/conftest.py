"""What the tests of recorded outputs share: a small recording, files of it, and what is said of bad ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pytest_qreliab.data.recording import Recording
from pytest_qreliab.errors import InputError

CLASSES = ["cat", "dog", "owl"]
LOGITS = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 0.0]], dtype=np.float32)


@pytest.fixture(params=[".npz", ".safetensors", ".parquet"])
def suffix(request):
    if request.param == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'pytest-qreliab[parquet]'")
    return request.param


@pytest.fixture(scope="session")
def small():
    """Makes a recording of one set of two samples."""

    def make(**settings) -> Recording:
        recording = Recording(classes=CLASSES, **settings)
        recording.add("in_distribution", ["a", "b"], logits=LOGITS, labels=[2, 0])
        return recording

    return make


@pytest.fixture(scope="session")
def refusal():
    """Returns the one line that a call is refused with."""

    def refuse(call, *args, **kwargs) -> str:
        with pytest.raises(InputError) as caught:
            call(*args, **kwargs)
        text = str(caught.value)
        assert "\n" not in text
        return text

    return refuse


@pytest.fixture(scope="session")
def npz_of():
    """Writes an .npz as another program may write it; a value of None leaves that array out."""

    def write(path: Path, **changes) -> Path:
        arrays = {
            "classes": np.array(CLASSES),
            "in_distribution/ids": np.array(["a", "b"]),
            "in_distribution/logits": LOGITS,
            "in_distribution/labels": np.array([2, 0]),
            **changes,
        }
        np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
        return path

    return write
