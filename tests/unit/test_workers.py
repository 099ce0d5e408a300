"""What a worker of pytest-xdist takes of the machine."""

import os

import pytest
import torch

from pytest_qreliab import workers


@pytest.mark.parametrize(
    ("worker", "omp", "cores", "threads"),
    [("gw1", "", 12, [4]), ("gw0", "", 2, [1]), ("gw0", "5", 12, []), ("", "", 12, [])],
)
def test_workers_share_the_cores(monkeypatch, worker, omp, cores, threads):
    monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "3")
    monkeypatch.setenv("OMP_NUM_THREADS", omp)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    taken = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    workers.limit_to_share(torch.device("cpu"))
    assert taken == threads


@pytest.mark.parametrize(("worker", "current"), [("gw1", [torch.device("cuda:1")]), ("", [])])
def test_the_gpu_of_a_worker_is_the_current_one(monkeypatch, worker, current):
    monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    workers.limit_to_share(torch.device("cuda:1"))
    assert chosen == current
