"""Turn recorded outputs into embeddings."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from pytest_qreliab.config.set_names import CALIBRATION, IN_DISTRIBUTION, OOD
from pytest_qreliab.data.dataset import Dataset, measured_sets
from pytest_qreliab.data.output_checks import probability_floor
from pytest_qreliab.data.recorded import match_rows
from pytest_qreliab.data.recording import Recording
from pytest_qreliab.embedding.records import (
    CalibrationEmbeddings,
    EmbeddedSets,
    Embeddings,
    FeatureEmbeddings,
    FeatureOutputs,
    LabelledEmbeddings,
    LogitEmbeddings,
    LogitOutputs,
    OutputsT,
)
from pytest_qreliab.metrics.definitions import Need
from pytest_qreliab.metrics.names import SetName
from pytest_qreliab.quantizers.calibration import held_out

Values = npt.NDArray[np.float32]


def recorded(recording: Recording, name: str, data: Dataset, needs: Collection[Need] = ()) -> Embeddings:
    """Return the embeddings of a benchmark from recorded outputs, as `embed` does from a model.

    Args:
        recording: The outputs.
        name: The model or quantizer that made them, for messages.
        data: The benchmark.
        needs: The optional parts to return as well, as far as they are recorded.

    Raises:
        InputError: Samples are missing, or have other labels.
    """
    values = {
        of: recording.sets[of].values[match_rows(name, recording.sets[of], images)]
        for of, images in measured_sets(data, needs).items()
        if of in recording.sets  # what a gate needs is known to be there
    }
    bias = recording.logit_bias or 0.0
    if recording.kind == "image_features" and recording.logit_scale is not None:
        text_features = torch.from_numpy(recording.text_features).double()
        return FeatureEmbeddings(
            **vars(_sets({of: FeatureOutputs(features=features) for of, features in values.items()}, data)),
            classifier=F.normalize(text_features, dim=-1).float().numpy(),
            logit_scale=recording.logit_scale,
            logit_bias=bias,
        )
    floors = {of: None if recording.kind == "logits" else probability_floor(part) for of, part in values.items()}
    return LogitEmbeddings(
        **vars(_sets({of: LogitOutputs(part, floors[of]) for of, part in values.items()}, data)),
        logit_scale=recording.logit_scale,
        logit_bias=bias,
    )


def _sets(outputs: Mapping[str, OutputsT], data: Dataset) -> EmbeddedSets[OutputsT]:
    """Return the outputs with what the benchmark says of their samples."""
    calibration = None
    if CALIBRATION in outputs and data.calibration is not None:
        calibration = CalibrationEmbeddings(
            images=outputs[CALIBRATION], labels=data.calibration.labels, held_out=held_out(data.calibration)
        )
    return EmbeddedSets(
        in_distribution=outputs[IN_DISTRIBUTION],
        labels=data.in_distribution.known_labels,
        ood={SetName.parse(of).name: of_set for of, of_set in outputs.items() if of.startswith(OOD)},
        near=data.near,
        calibration=calibration,
        labelled={
            of: LabelledEmbeddings(images=outputs[of], labels=images.known_labels, candidates=images.classes)
            for of, images in data.labelled.items()
            if of in outputs
        },
    )
