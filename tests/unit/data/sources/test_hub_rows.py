import io
import shutil

import numpy as np
import pytest
from PIL import Image

from pytest_qreliab.data.images import HubOrigin
from pytest_qreliab.data.sources import huggingface
from pytest_qreliab.data.sources.huggingface import HubDataset
from pytest_qreliab.errors import InputError
from pytest_qreliab.models import hub as hubs
from pytest_qreliab.models.hub import Access, NotDownloadedError

NAME = "org/photos"


def parquet(counts):
    """Return the files of a data set of noise, a split for each count of images."""
    datasets = pytest.importorskip("datasets")
    rng = np.random.default_rng(0)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    files = {}
    for split, count in counts.items():
        images = [Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(count)]
        rows = {"image": images, "label": [index % 2 for index in range(count)]}
        content = io.BytesIO()
        datasets.Dataset.from_dict(rows, features=features).to_parquet(content)
        files[f"data/{split}-00000-of-00001.parquet"] = content.getvalue()
    return files


@pytest.fixture
def photos(hub, tmp_path, monkeypatch):
    """The stand-in with a data set, as the hub of `datasets` as well."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)
    hub.repositories[f"datasets/{NAME}"] = parquet({"train": 3, "test": 4})
    return hub


def listed(**given):
    return huggingface.list_items(HubDataset(**{"name": NAME, "split": "test", "label": "label", **given}))


@pytest.mark.parametrize("pinned", [False, True], ids=["branch", "commit"])
def test_rows_are_downloaded_once_and_tell_their_commit(photos, capfd, pinned):
    commit = photos.commit(f"datasets/{NAME}")
    revision = commit if pinned else "main"
    items = listed(revision=revision)
    assert (items.ids, items.labels) == (["0", "1", "2", "3"], ["0", "1", "0", "1"])
    assert items.origin == HubOrigin(NAME, commit)
    photos.requests.clear()
    again = listed(revision=revision)
    assert again.origin == items.origin
    assert again.load(3).tobytes() == items.load(3).tobytes()
    assert photos.requests == ([] if pinned else [f"GET /api/datasets/{NAME}/revision/main"])
    assert capfd.readouterr() == ("", "")


def test_a_branch_that_moved_has_other_rows(photos):
    before = listed()
    photos.repositories[f"datasets/{NAME}"] = parquet({"test": 6})
    after = listed()
    assert (len(before), len(after)) == (4, 6)
    with hubs.access(Access(network=False)):
        assert listed().origin == after.origin
        assert listed(revision=before.origin.commit).ids == before.ids


def test_another_commit_is_not_taken_for_one_that_cannot_be_loaded(photos):
    """As the library does: it takes what it has."""
    listed()
    photos.repositories[f"datasets/{NAME}"] = parquet({"test": 6})
    photos.faults["README"] = {"status": 403}
    with pytest.raises(InputError, match=f"^data set {NAME}@main: commit .* cannot be loaded; .*fell back to another"):
        listed()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"status": 401, "code": "RepoNotFound"}, "there is no repository org/photos at http.*spelling.*log in"),
        ({"status": 404, "code": "RevisionNotFound"}, "the repository has no revision 'v1'"),
        ({"status": 401, "code": "GatedRepo"}, "it is gated.*accept the terms at http.*/datasets/org/photos, and log"),
        ({"status": 503}, "http.* answered with HTTP 503"),
    ],
    ids=lambda value: value.get("code", "503") if isinstance(value, dict) else None,
)
def test_a_data_set_that_is_refused_is_one_message(photos, fault, message):
    photos.faults["/api/datasets"] = fault
    with pytest.raises(InputError, match=f"^data set org/photos@v1: {message}") as raised:
        listed(revision="v1")
    assert "\n" not in str(raised.value)


def test_rows_that_came_damaged_are_refused_and_not_kept(photos):
    files = photos.repositories[f"datasets/{NAME}"]
    photos.repositories[f"datasets/{NAME}"] = {name: content + b"PAR1" for name, content in files.items()}
    photos.faults["GET .*test.*parquet"] = {"flip": True}
    with pytest.raises(InputError, match=f"^data set {NAME}@main: "):
        listed()
    photos.faults.clear()
    photos.repositories[f"datasets/{NAME}"] = files
    assert len(listed()) == 4


def test_nothing_is_asked_if_the_network_is_not_allowed(photos):
    with hubs.access(Access(network=False)), pytest.raises(NotDownloadedError, match="is not downloaded yet"):
        listed()
    assert photos.requests == []


def test_offline_the_rows_of_before_are_read_with_a_warning(photos, monkeypatch):
    from huggingface_hub import constants

    listed()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with hubs.access(Access()):
        items = listed()
    assert "is still the newest commit is not known: HF_HUB_OFFLINE is set" in items.origin.warning


def test_a_folder_is_read_and_not_asked_of_the_hub(photos, tmp_path, monkeypatch):
    files = photos.repositories[f"datasets/{NAME}"]
    folder = tmp_path / "org" / "photos"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    assert len(listed()) == 4
    assert photos.requests == []
    shutil.rmtree(folder)


@pytest.mark.parametrize("revision", ["../main", "a b", "/x"])
def test_what_cannot_be_a_revision_is_refused(photos, revision):
    with pytest.raises(InputError, match="is no revision; write a branch, a tag or a commit"):
        listed(revision=revision)
    assert photos.requests == []
