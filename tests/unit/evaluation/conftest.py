"""Builders of what is measured and judged. They live as long as the session, so that Hypothesis may use them."""

from __future__ import annotations

import dataclasses
import functools
from fnmatch import fnmatch
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_qreliab.config.thresholds import Gate, Policy
from pytest_qreliab.embedding.records import (
    CalibrationEmbeddings,
    FeatureEmbeddings,
    FeatureOutputs,
    LabelledEmbeddings,
)
from pytest_qreliab.evaluation.measurement.comparison import Change, compare
from pytest_qreliab.evaluation.measurement.measure import measure
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.evaluation.verdicts.gates import JudgingRule, judge
from pytest_qreliab.metrics import registry, spectral_metrics
from pytest_qreliab.statistics.interval import Interval


@pytest.fixture(scope="session")
def make_gate():
    def make(metric: str = "accuracy", limit: str = "max_drop", value: float = 0.05) -> Gate:
        return Gate(metric=metric, limit=limit, value=value, where="t.yaml:1")

    return make


@pytest.fixture(scope="session")
def make_change():
    """Makes a change, whose interval is `low` to `high` at any confidence unless `bounds` are given."""

    def make(
        metric: str = "accuracy",
        *,
        baseline: float = 0.9,
        quantized: float = 0.9,
        low: float | None = None,
        high: float | None = None,
        bounds=None,
        problem: str = "",
    ) -> Change:
        if low is not None and high is not None:
            bounds = lambda alpha: Interval(low, high)  # noqa: E731
        return Change(
            metric=metric, baseline=baseline, quantized=quantized, bounds=bounds, method="by hand", problem=problem
        )

    return make


@pytest.fixture(scope="session")
def make_rule():
    def make(
        *,
        error_probability: float = 0.05,
        inconclusive: str = "estimate",
        correction: str = "bonferroni",
        samples: int = 100,
    ) -> JudgingRule:
        policy = {"version": 1, "correction": correction, "inconclusive": inconclusive, "gates": {"ece": {"max": 1}}}
        return JudgingRule(error_probability=error_probability, policy=Policy.model_validate(policy), samples=samples)

    return make


N, DIM, CLASSES = 200, 16, ("ant", "bee", "cat", "dog", "emu")
SETS = {"letters": 80, "photos": 120}
LABELLED = {
    "shift.sketch": 90,
    "shift.print": 60,
    "corruption.fog.1": 70,
    "corruption.fog.4": 70,
    "corruption.snow.4": 70,
    "spurious.common": 90,
    "spurious.counter": 90,
    "spurious.night": 50,
}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@functools.cache
def embeddings(noise: float = 0.4, seed: int = 0, n: int = N, others: int | None = None) -> FeatureEmbeddings:
    """Features around five class vectors, and a near and a far OOD set around none; with all that is optional.

    `others` is the size of the other image sets.
    """
    fixed, rng = np.random.default_rng(99), np.random.default_rng(seed)
    classifier = unit(fixed.normal(size=(len(CLASSES), DIM)))
    labels = fixed.integers(0, len(CLASSES), 1000)

    def images(features):
        band = np.abs(features[:, 0]) / np.abs(features).sum(axis=1)
        features = features.astype(np.float32)
        return FeatureOutputs(features=features, high_band=band.astype(np.float64), local=-0.5 - band)

    inside = images(classifier[labels[:n]] + noise * rng.normal(size=(n, DIM)))
    outside = {name: images(rng.normal(size=(others or size, DIM))) for name, size in SETS.items()}
    m = others or 100

    def labelled(size: int):
        features = classifier[labels[:size]] + 1.5 * noise * rng.normal(size=(size, DIM))
        outputs = FeatureOutputs(features=features.astype(np.float32))
        return LabelledEmbeddings(images=outputs, labels=labels[:size].astype(np.int64))

    stored = (classifier[labels[-m:]] + noise * rng.normal(size=(m, DIM))).astype(np.float32)
    return FeatureEmbeddings(
        in_distribution=inside,
        labels=labels[:n].astype(np.int64),
        ood=outside,
        classifier=classifier.astype(np.float32),
        logit_scale=12.0,
        logit_bias=0.0,
        negatives=unit(fixed.normal(size=(7, DIM))).astype(np.float32),
        calibration=CalibrationEmbeddings(
            images=FeatureOutputs(features=stored),
            labels=labels[-m:].astype(np.int64),
            held_out=np.arange(m) % 4 == 0,
        ),
        near=frozenset({"letters"}),
        labelled={name: labelled(size if others is None else others) for name, size in LABELLED.items()},
    )


@functools.cache
def measured(noise: float = 0.4, seed: int = 0, n: int = N, others: int | None = None) -> Measurement:
    return measure(embeddings(noise, seed, n, others), CLASSES)


# Every name a measurement of these embeddings has.
SUFFIXES = ("", ".near", ".far", *(f".{name}" for name in SETS))
OOD_NAMES = [
    f"ood.{statistic}.{score}{suffix}"
    for statistic in registry.OOD_STATISTICS
    for score in registry.OOD_SCORES
    for suffix in SUFFIXES
]
UNSEEN = {"weights", "blocks", "gratings"}
NAMES = [
    *(name for name in registry.names() if not (name.startswith("ood.") or registry.lookup(name).needs & UNSEEN)),
    *(f"{name}.text" for name in spectral_metrics.BY_RANK),
    *(f"recall.{name}" for name in CLASSES),
    *(f"spurious.accuracy.{name}" for name in ("common", "counter", "night")),
    *(f"shift.{statistic}.{name}" for statistic in ("accuracy", "nll", "ece") for name in ("sketch", "print")),
    *(
        f"corruption.{statistic}.{part}"
        for statistic in ("accuracy", "nll", "ece")
        for part in ("fog", "snow", "1", "4", "fog.1", "fog.4", "snow.4")
    ),
    *OOD_NAMES,
]
# What is computed when two measurements are compared, and only where it is asked for.
OF_PAIR = {name for name in NAMES if registry.is_distance(name) or name.endswith(".text")}
# Those of two OOD statistics and of a score of each kind, where gates on all would only take time.
GATED = [
    name for name in NAMES if not any(part in name for part in ("aupr", "fpr95_out", ".msp", ".maxlogit", ".energy"))
]


def verdicts(
    baseline: Measurement,
    quantized: Measurement,
    names=NAMES,
    *,
    value: float = 1e9,
    inconclusive: str = "estimate",
    correction: str = "bonferroni",
):
    """The verdicts, by metric, of gates that hold the harm of metrics to a value."""
    limits = {"higher": "max_drop", "lower": "max_rise", "neither": "max_change"}
    gates = [
        Gate(metric=name, limit=limits[registry.lookup(name).better], value=value, where="t.yaml:1") for name in names
    ]
    policy = Policy.model_validate(
        {"version": 1, "correction": correction, "inconclusive": inconclusive, "gates": {"ece": {"max": 1}}}
    )
    rule = JudgingRule(error_probability=0.05 / len(names), policy=policy, samples=baseline.samples)
    return {verdict.gate.metric: verdict for verdict in judge(compare(baseline, quantized, names), gates, rule)}


def place(found: FeatureEmbeddings, where: str, value: float) -> FeatureEmbeddings:
    """The embeddings with the value in one place."""

    def put(array, at):
        changed = array.copy()
        changed[at] = value
        return changed

    def in_images(images: FeatureOutputs, part: str) -> FeatureOutputs:
        at = (7, 3) if part == "features" else 7
        return dataclasses.replace(images, **{part: put(getattr(images, part), at)})

    name, _, part = where.partition(" ")
    if name in ("logit_scale", "logit_bias"):
        return dataclasses.replace(found, **{name: value})
    if name in ("classifier", "negatives"):
        return dataclasses.replace(found, **{name: put(getattr(found, name), (2, 3))})
    if name == "calibration":
        row = 8 if part == "held out" else 7
        images = FeatureOutputs(features=put(found.calibration.images.features, (row, 3)))
        return dataclasses.replace(found, calibration=dataclasses.replace(found.calibration, images=images))
    if name in found.labelled:
        labelled = dataclasses.replace(found.labelled[name], images=in_images(found.labelled[name].images, part))
        return dataclasses.replace(found, labelled={**found.labelled, name: labelled})
    if name == "ID":
        return dataclasses.replace(found, in_distribution=in_images(found.in_distribution, part))
    return dataclasses.replace(found, ood={**found.ood, name: in_images(found.ood[name], part)})


# A text tower or logit scale that is broken fails the scores on image features alone as well.
TOUCHED = {
    "ID features": "*",  # but the high-band energy and further image sets
    "ID high_band": "spectral.high_band_energy",
    "ID local": "ood.*.gl-mcm*",
    "classifier": "[!s]*|shift.*|spurious.*|spectral.*.text|spectral.accuracy*",
    "logit_scale": "[!s]*|shift.*|spurious.*|spectral.accuracy*",
    "logit_bias": "[!s]*|shift.*|spurious.*|spectral.accuracy*",
    "shift.print features": "shift.*.print|shift.accuracy|shift.nll|shift.ece",
    "corruption.fog.4 features": "corruption.*.fog|corruption.*.fog.4|corruption.accuracy|corruption.accuracy.4|"
    "corruption.nll|corruption.nll.4|corruption.ece|corruption.ece.4",
    "spurious.counter features": "spurious.accuracy.counter|spurious.gap|spurious.vulnerability|spurious.worst_group",
    "spurious.night features": "spurious.accuracy.night|spurious.worst_group",
    "negatives": "ood.*.neglabel*",
    "letters features": "ood.*.letters|ood.*.near|ood.mean",
    "photos features": "ood.*.photos|ood.*.far|ood.mean",
    "letters local": "ood.*.gl-mcm.letters|ood.*.gl-mcm.near|ood.*.gl-mcm",
    "calibration seen": "ood.*.knn*|ood.*.mahalanobis*",
    "calibration held out": "ood.*.knn*|ood.*.mahalanobis*|rescaled.*",
}


def touched(where: str) -> set[str]:
    patterns = TOUCHED[where].split("|")
    found = {name for name in NAMES if any(fnmatch(name, pattern) for pattern in patterns)}
    if "ood.mean" in patterns:
        found |= {name for name in OOD_NAMES if name.count(".") == 2}
    if where == "ID features":
        found = {name for name in found if registry.lookup(name).aspect != "robustness" and not name.endswith(".text")}
        found -= {"spectral.high_band_energy"}
    return found


def without(part: str) -> Measurement:
    found = embeddings()

    def bare(images: FeatureOutputs) -> FeatureOutputs:
        return dataclasses.replace(images, **{part: None})

    ood = {name: bare(images) for name, images in found.ood.items()}
    return measure(dataclasses.replace(found, in_distribution=bare(found.in_distribution), ood=ood), CLASSES)


@pytest.fixture(scope="session")
def by_hand() -> SimpleNamespace:
    """Embeddings and measurements of five classes made by hand, and the names of their metrics."""
    return SimpleNamespace(
        N=N,
        CLASSES=CLASSES,
        NAMES=NAMES,
        OF_PAIR=OF_PAIR,
        GATED=GATED,
        UNSEEN=UNSEEN,
        embeddings=embeddings,
        measured=measured,
        place=place,
        touched=touched,
        without=without,
        verdicts=verdicts,
    )


@pytest.fixture(params=TOUCHED)
def broken(request) -> str:
    """Where a value of the embeddings is not finite."""
    return request.param
