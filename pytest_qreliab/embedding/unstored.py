"""Forward passes whose features are used once, and not kept."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.embedding import forward
from pytest_qreliab.embedding.forward import Advance, BatchSize, full_precision
from pytest_qreliab.embedding.preprocess_override import with_preprocessing
from pytest_qreliab.embedding.reader import Reader
from pytest_qreliab.errors import InputError
from pytest_qreliab.metrics.calibration import fit_logit_scale
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.calibration import Calibration


def image_features(
    reader: Reader, clip: Clip, data: Dataset, images: ImageSet, advance: Advance = lambda done: None
) -> npt.NDArray[np.float32]:
    """Return features of some images of a benchmark.

    Args:
        reader: Reads the images.
        clip: The model.
        data: The benchmark, which may change the model's preprocessing.
        images: The images.
        advance: Called with the number of images of every pass.

    Returns:
        float32 (n, dim), not normalised.
    """
    clip = with_preprocessing(clip, data)
    with full_precision():
        size = BatchSize.for_device(clip.device)
        batches = reader.batches(images, clip.preprocess, size.value, clip.device)
        found = forward.images(clip, batches, ["features"], size, advance=advance)
    features: npt.NDArray[np.float32] = found["features"]["features"]
    return features


def class_features(clip: Clip, data: Dataset) -> npt.NDArray[np.float32]:
    """Return text features of a benchmark's classes: float32 (classes, dim), unit rows."""
    with full_precision():
        return forward.classifier(clip, data.class_captions, BatchSize.for_device(clip.device))


def fitted_logit_scale(reader: Reader, clip: Clip, data: Dataset) -> float:
    """Return the logit scale that fits the held-out calibration images best, by NLL.

    Raises:
        InputError: The features hold NaN or infinity.
    """
    images = split_calibration(reader, data).held_out
    assert images is not None
    assert images.labels is not None
    unit = F.normalize(torch.from_numpy(image_features(reader, clip, data, images)).double(), dim=-1)
    cosines = unit @ torch.from_numpy(class_features(clip, data)).double().T
    if not bool(cosines.isfinite().all()):
        raise InputError(f"{clip.name}: NaN or infinity in the features, so that no logit scale can be fitted")
    return fit_logit_scale(cosines.numpy(), images.labels)


def split_calibration(reader: Reader, data: Dataset) -> Calibration:
    """Return a benchmark's calibration images, split, with its classes, templates and image-caption pairs."""
    return Calibration.split(data.calibration, data.classes, data.templates, reader.batches, data.captions)
