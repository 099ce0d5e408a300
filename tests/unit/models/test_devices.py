"""The device of a run."""

import pytest
import torch

from pytest_qreliab.models.devices import resolve_device


@pytest.mark.parametrize(
    ("worker", "text", "device"),
    [
        ("", "auto", "cuda"),
        ("gw0", "auto", "cuda:0"),
        ("gw1", "cuda", "cuda:1"),
        ("gw5", "auto", "cuda:2"),
        ("gw5", "cuda:1", "cuda:1"),
        ("gw5", "cpu", "cpu"),
    ],
)
def test_workers_take_the_visible_gpus_in_turn(monkeypatch, worker, text, device):
    monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert resolve_device(text) == torch.device(device)
