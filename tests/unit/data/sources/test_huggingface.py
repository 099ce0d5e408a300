import sys

import pytest

from pytest_qreliab.data.sources import huggingface
from pytest_qreliab.errors import InputError


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'pytest-qreliab\[datasets\]'"):
        huggingface.list_items(huggingface.HubDataset(path=tmp_path))
