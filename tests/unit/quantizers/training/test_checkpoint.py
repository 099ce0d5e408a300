import warnings
from dataclasses import replace

import pytest
import torch

from pytest_qreliab.config.formats import Format
from pytest_qreliab.embedding import kernels
from pytest_qreliab.quantizers.training import loop
from pytest_qreliab.quantizers.training.checkpoint import Checkpoint, CheckpointWarning, TrainingState


@pytest.fixture
def clip(architecture_of):
    return architecture_of("vit")


class KilledError(Exception):
    pass


def killed_after(steps: int):
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        if done >= steps:
            raise KilledError

    return advance


@pytest.mark.parametrize("method", ["lsq+contrastive", "dsq"])
def test_a_killed_run_goes_on_to_the_same_result(clip, calibration, tmp_path, method, train, same):
    bits = Format.integers(3, 8)
    whole = train(clip, calibration, method, bits, steps=6)
    with pytest.raises(KilledError):
        train(clip, calibration, method, bits, steps=6, checkpoints=tmp_path, advance=killed_after(4))
    advances = []
    resumed = train(clip, calibration, method, bits, steps=6, checkpoints=tmp_path, advance=advances.append)
    assert advances == [4, 1, 1]
    assert same(resumed, whole)


def test_a_finished_run_is_not_trained_again(clip, calibration, tmp_path, monkeypatch, train, same):
    first = train(clip, calibration, bits=Format.integers(3, 8), checkpoints=tmp_path)
    (path,) = tmp_path.iterdir()
    assert torch.load(path, weights_only=True)["optimizer"] is None
    monkeypatch.delattr(loop, "train")
    advances = []
    second = train(clip, calibration, bits=Format.integers(3, 8), checkpoints=tmp_path, advance=advances.append)
    assert advances == [4]
    assert same(first, second)


def test_a_checkpoint_is_of_one_run_only(clip, calibration, tmp_path, train):
    def files(model=clip, data=calibration, **given) -> int:
        train(model, data, **({"steps": 1} | given), checkpoints=tmp_path / "new" / "folder")
        return len(list((tmp_path / "new" / "folder").iterdir()))

    assert files() == files() == 1
    assert files(steps=2) == 2
    assert files(method="lsq+contrastive") == 3
    assert files(bits=Format.integers(4)) == 4
    assert files(scope="vision") == 5
    assert files(data=replace(calibration, templates=["a {}."])) == 6
    assert files(data=replace(calibration, images=calibration.images.first_evenly(39))) == 7
    other = clip.copy()
    with torch.no_grad():
        other.module.visual.conv1.weight[0, 0, 0, 0] += 1e-6
    assert files(other) == 8
    with kernels.deterministic():
        assert files() == 9


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "other"])
def test_a_damaged_checkpoint_is_ignored_with_a_warning(clip, calibration, tmp_path, damage, train, same):
    first = train(clip, calibration, steps=2, checkpoints=tmp_path)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
    elif damage == "empty":
        content.clear()
    path.write_bytes(content)
    if damage == "other":
        torch.save({"tensors": {}, "done": 3, "optimizer": None}, path)
    with pytest.warns(CheckpointWarning, match="training starts again"):
        again = train(clip, calibration, steps=2, checkpoints=tmp_path)
    assert same(first, again)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(clip, calibration, steps=2, checkpoints=tmp_path)


def test_a_checkpoint_that_cannot_be_written_is_warned_of(clip, calibration, tmp_path, train):
    (tmp_path / "file").write_text("")
    with pytest.warns(CheckpointWarning, match="no checkpoint was written"):
        train(clip, calibration, steps=1, checkpoints=tmp_path / "file")


def test_nothing_is_left_behind_by_a_write_that_fails(tmp_path, monkeypatch):
    def full(held, path):
        path.write_bytes(b"half")
        raise RuntimeError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(CheckpointWarning, match="no space left"):
        Checkpoint(tmp_path / "run.pt").save({}, TrainingState(1))
    assert list(tmp_path.iterdir()) == []
