import sys

import pytest

from pytest_qreliab.data.sources import huggingface
from pytest_qreliab.errors import InputError


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'pytest-qreliab\[datasets\]'"):
        huggingface.list_items(huggingface.HubDataset(path=tmp_path))


def test_a_number_that_stands_for_no_label_is_not_taken_for_the_last_class(tmp_path, pixels, png):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [{"bytes": png(pixels[i]), "path": None} for i in range(3)], "label": [1, -1, None]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "hf"))
    for names, labels in ((True, ["dog", "-1", "None"]), (False, ["1", "-1", "None"])):
        found = huggingface.list_items(huggingface.HubDataset(path=tmp_path / "hf", label="label", label_names=names))
        assert found.labels == labels
