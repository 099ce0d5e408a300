"""The schema of a record, which holds a case as plain scalars.

Records travel between processes. Every report is made from them.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BeforeValidator, WithJsonSchema
from typing_extensions import TypedDict  # which pydantic can check before Python 3.12

# A number that may be NaN, in JSON null, or infinite, in JSON a string.
Number = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "null"}, {"enum": ["Infinity", "-Infinity"]}]}),
]


class MetricRecord(TypedDict):
    """One metric in both models. `low` and `high` bound the change, of gated metrics that have an interval; `problem`
    says why a value is not a number.
    """

    metric: str
    aspect: str
    better: str
    baseline: Number
    quantized: Number
    change: Number
    low: Number | None
    high: Number | None
    problem: str


class GateRecord(TypedDict):
    """The verdict of one gate; see `Verdict`. `low` and `high` bound the harm, `where` is the line of its limit.

    `kernel_spread`, of a drift that fails, is how far another attention kernel moves the quantized value.
    """

    metric: str
    aspect: str
    limit: str
    value: float
    where: str
    outcome: Literal["pass", "fail", "inconclusive"]
    passed: bool
    baseline: Number
    quantized: Number
    accepted: Number | None
    kernel_spread: Number | None
    harm: Number
    low: Number | None
    high: Number | None
    method: str
    settling_n: int | None
    problem: str


class ControlsRecord(TypedDict):
    """What the matched controls of a case show. The changes of each metric, (change, low, high), are those of the
    quantized model and of the controls, by name, in the order of `residuals`.
    """

    matched: str
    problem: str
    residuals: dict[str, Number]
    changes: dict[str, list[tuple[Number, Number, Number]]]
    conclusions: dict[str, str]


class Size(TypedDict):
    """Bytes of all weights, each counted by the bits that it takes."""

    quantized: int
    full: int


class Bin(TypedDict):
    """One of 15 bins of equal width over the confidence: its mean, the accuracy, and the share of all samples."""

    confidence: float
    accuracy: float
    share: float


Points = list[tuple[float, float]]


class Curves(TypedDict):
    """What is drawn of a case. Lists of two are of the baseline and of the quantized model.

    `reliability`: the bins that hold samples. `roc`: by OOD set, (false positive rate, true positive rate).
    `corruptions`: accuracies by kind and severity. `spectra`: by block, (frequency in cycles per patch, mean power).
    `singular_values`: (rank, value) of the centred image features. `sqnr`: (rank, dB) of the quantized model alone.
    """

    reliability: list[list[Bin]]
    roc: dict[str, list[Points]]
    corruptions: dict[str, dict[str, tuple[float, float]]]
    spectra: dict[str, list[Points]]
    singular_values: list[Points]
    sqnr: Points


class CaseRecord(TypedDict):
    """A case, measured and judged.

    `confidence` is that of each bound. `coverage` is the quantized share of the weights, `product_coverage` that of
    the FLOPs of all matrix products, those of two activations too. `data` and `environment` describe what it was
    measured on and with, and `curves` is what is drawn of it, where a report or a snapshot asked for them. `baseline`
    is what is known of the full-precision model. `trained_on` says what the quantizer was trained on, empty if it
    does not train, and `skipped` why gates were not judged, by metric. `warnings` are what a reader should know.
    """

    case: str
    model: str
    quantizer: str
    bits: str
    scope: str
    benchmark: str
    quantization: str
    rescaled: bool
    parameters: str
    trained_on: str
    samples: int
    device: str
    confidence: float
    coverage: float | None
    product_coverage: float | None
    size: Size | None
    metrics: list[MetricRecord]
    gates: list[GateRecord]
    controls: ControlsRecord | None
    curves: Curves | None
    data: dict[str, str]
    environment: dict[str, str]
    baseline: dict[str, str]
    skipped: dict[str, str]
    warnings: list[str]
    repeat: str
    encoded: int
    known: int
    peak_memory: int
    peak_device_memory: int
