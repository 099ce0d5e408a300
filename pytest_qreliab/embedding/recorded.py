"""Turn recorded outputs into embeddings."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from pytest_qreliab.data.dataset import CALIBRATION, IN_DISTRIBUTION, OOD, Dataset, requested_sets
from pytest_qreliab.data.recorded import rows
from pytest_qreliab.data.recording import Recording
from pytest_qreliab.embedding.embedder import CALIBRATION_NEEDS
from pytest_qreliab.embedding.records import (
    CalibrationEmbeddings,
    Embeddings,
    ImageEmbeddings,
    LabelledEmbeddings,
)
from pytest_qreliab.metrics.registry import Need
from pytest_qreliab.quantizers.calibration import held_out


def recorded(recording: Recording, name: str, data: Dataset, needs: Collection[Need] = ()) -> Embeddings:
    """What `embed` would give, from outputs that were recorded, of the model or quantizer `name`.

    A probability of 0, which was rounded, is taken as half the smallest other one of its set. Raises InputError for
    samples that are missing, or have other labels.
    """
    wanted = {name: images for name, images in data.sets.items() if name.startswith((IN_DISTRIBUTION, OOD))}
    wanted.update(requested_sets(data, needs))
    if CALIBRATION_NEEDS & set(needs) and data.calibration is not None:
        wanted[CALIBRATION] = data.calibration
    found = {}
    for of, images in wanted.items():
        if of in recording.sets:  # what a gate needs is known to be there
            values = recording.sets[of].values[rows(name, recording.sets[of], images)]
            found[of] = _of_values(recording.kind, values)
    calibrating, labels = found.get(CALIBRATION), data.in_distribution.labels
    assert labels is not None
    classifier = None
    if recording.kind == "image_features":
        classifier = F.normalize(torch.from_numpy(recording.text_features).double(), dim=-1).float().numpy()
    return Embeddings(
        found[IN_DISTRIBUTION],
        labels,
        {of.split(".", 2)[2]: embeddings for of, embeddings in found.items() if of.startswith(OOD)},
        classifier,
        recording.logit_scale,
        recording.logit_bias or 0.0,
        calibration=None
        if calibrating is None or data.calibration is None
        else CalibrationEmbeddings(
            calibrating.features, data.calibration.labels, held_out(data.calibration), calibrating.logits
        ),
        near=data.near,
        labelled={
            of: LabelledEmbeddings(found[of], images.labels, images.classes)
            for of, images in data.labelled.items()
            if of in found and images.labels is not None
        },
        probabilities=recording.kind == "probabilities",
    )


def _of_values(kind: str, values: npt.NDArray[np.float32]) -> ImageEmbeddings:
    if kind == "image_features":
        return ImageEmbeddings(values)
    if kind == "probabilities":
        positive = values[values > 0]
        least = float(positive.min()) / 2 if positive.size else 1.0
        with np.errstate(invalid="ignore"):  # NaN stays NaN
            values = np.log(np.where(values <= 0, np.float32(least), values))
    return ImageEmbeddings(None, logits=values)
