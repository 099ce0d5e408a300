"""Predictions that the tests of several metrics share."""

import numpy as np
import pytest
import torch

from pytest_qreliab.metrics.classification import predict


@pytest.fixture
def two_models():
    """Makes the predictions of two models, the second with noise, on the same random samples of four classes."""

    def make(n: int = 60):
        rng = np.random.default_rng(0)
        labels, logits = rng.integers(0, 4, n), rng.normal(size=(n, 4))
        return [predict(torch.from_numpy(logits + noise * rng.normal(size=(n, 4))), labels) for noise in (0.0, 1.0)]

    return make
