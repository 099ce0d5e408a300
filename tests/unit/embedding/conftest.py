"""A store, and processes that are at work on it."""

import subprocess
import sys
import textwrap

import pytest

PRELUDE = """
import sys
import numpy as np
from pathlib import Path
from pytest_qreliab.embedding.pixel_files import PixelFiles
from pytest_qreliab.embedding.store import Store
from pytest_qreliab.hashing import digest
store = Store(Path(sys.argv[1]))
pixels = PixelFiles(store)
"""


@pytest.fixture
def store(tmp_path):
    """An empty store."""
    from pytest_qreliab.embedding.store import Store

    return Store(tmp_path / "store")


@pytest.fixture
def list_files(store):
    """Lists the files of the store by the end of their names."""

    def list_files(suffix: str = "") -> list:
        return sorted(path for path in store.folder.rglob(f"*{suffix}") if path.is_file())

    return list_files


@pytest.fixture
def start_process(store):
    """Starts Python code, in a process of its own, on the same `store` and its `pixels`."""

    def start(code: str, *args: object, **more: object) -> subprocess.Popen:
        command = [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(code), str(store.folder)]
        return subprocess.Popen([*command, *map(str, args)], stdout=subprocess.PIPE, text=True, **more)

    return start
