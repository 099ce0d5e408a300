from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pytest_qreliab.quantizers.training import losses
from pytest_qreliab.quantizers.training.losses import Features, TowerFeatures


@pytest.fixture(scope="module")
def features():
    generator = torch.Generator().manual_seed(0)
    rows = [F.normalize(torch.randn(6, 5, generator=generator), dim=1) for _ in range(4)]
    return Features(
        image=TowerFeatures(student=rows[0], teacher=rows[2]),
        text=TowerFeatures(student=rows[1], teacher=rows[3]),
        labels=torch.tensor([0, 1, 0, 2, 2, 0]),
        logit_scale=7.0,
    )


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def test_feature_mse_is_numpys(features):
    image, text = (
        ((tower.student.numpy() - tower.teacher.numpy()) ** 2).sum(1).mean()
        for tower in (features.image, features.text)
    )
    assert float(losses.feature_mse(features)) == pytest.approx(image + text, rel=1e-5)
    alone = replace(features, text=None)
    assert float(losses.feature_mse(alone)) == pytest.approx(image, rel=1e-5)


def test_the_contrastive_loss_is_numpys(features):
    logits = 7 * features.image.student.numpy() @ features.text.student.numpy().T
    labels = features.labels.numpy()
    expected = 0.0
    for way in (log_softmax(logits), log_softmax(logits.T)):
        for row in range(6):
            expected -= way[row, labels == labels[row]].mean() / 12
    assert float(losses.contrastive(features)) == pytest.approx(expected, rel=1e-5)
    both = float(losses.contrastive_and_mse(features))
    assert both == pytest.approx(expected + float(losses.feature_mse(features)), rel=1e-5)


def test_the_contrastive_loss_of_distinct_classes_is_clips(features):
    distinct = replace(features, labels=torch.arange(6))
    expected = (
        F.cross_entropy(features.logits(), torch.arange(6)) + F.cross_entropy(features.logits().T, torch.arange(6))
    ) / 2
    torch.testing.assert_close(losses.contrastive(distinct), expected)


def test_the_distillation_loss_is_numpys(features):
    ours = 7 * features.image.student.numpy() @ features.text.student.numpy().T
    theirs = 7 * features.image.teacher.numpy() @ features.text.teacher.numpy().T
    expected = 0.0
    for o, t in ((log_softmax(ours), log_softmax(theirs)), (log_softmax(ours.T), log_softmax(theirs.T))):
        expected += (np.exp(t) * (t - o)).sum() / 12
    assert float(losses.distillation_loss(features)) == pytest.approx(expected, rel=1e-4)
    image, text = (TowerFeatures(tower.teacher, tower.teacher) for tower in (features.image, features.text))
    itself = replace(features, image=image, text=text)
    assert float(losses.distillation_loss(itself)) == pytest.approx(0, abs=1e-6)


def test_losses_of_pairs_refuse_what_is_no_pair(features):
    for loss in (losses.contrastive, losses.distillation_loss):
        with pytest.raises(ValueError, match="need images and captions"):
            loss(replace(features, text=None))
    with pytest.raises(ValueError, match="needs pairs"):
        losses.contrastive(replace(features, labels=None))
