"""Builders of records and results for tests, by keywords with defaults. Tests have them as the fixture `build`."""

from __future__ import annotations

import math

import numpy as np

from pytest_qreliab.metrics import registry
from pytest_qreliab.report.results_file import Planned, Results

GATED = {
    "accuracy": ("max_drop", 0.02),
    "balanced_accuracy": ("max_drop", 0.02),
    "nll": ("max_rise", 0.05),
    "ece": ("max_rise", 0.02),
    "confidence_gap": ("max_change", 0.02),
    "shift.accuracy": ("max_drop", 0.02),
    "corruption.accuracy": ("max_drop", 0.02),
    "corruption.ece": ("max_rise", 0.02),
    "spurious.gap": ("max_rise", 0.05),
    "spurious.accuracy.counter": ("max_drop", 0.02),
    "ood.auroc": ("max_drop", 0.02),
    "ood.fpr95": ("max_rise", 0.05),
    "spectral.high_band_energy": ("max_relative_change", 0.05),
    "spectral.effective_rank": ("max_relative_change", 0.05),
}
OTHERS = [
    f"ood.{statistic}.{score}{part}"
    for statistic in registry.OOD_STATISTICS
    for score in ("msp", "maxlogit", "energy", "knn", "mahalanobis")
    for part in ("", ".near", ".far", ".letters", ".photos", ".textures")
] + [f"recall.class-{index}" for index in range(10)]
OOD_SETS = ("letters", "photos", "textures")
CORRUPTIONS = ("gaussian_noise", "motion_blur", "fog", "contrast", "jpeg")
POINTS = 64


def gate(metric, outcome="pass", *, rng, **given):
    """Return a gate with some harm that fits its outcome."""
    limit, value = GATED[metric]
    quantized = 0.9 + 0.02 * rng.standard_normal()
    harm = {"pass": 0.1, "fail": 3, "inconclusive": 0.9}[outcome] * value
    return {
        "metric": metric,
        "aspect": registry.lookup(metric).aspect,
        "limit": limit,
        "value": value,
        "where": f"limits/strict.yaml:{16 + list(GATED).index(metric)}",
        "outcome": outcome,
        "passed": outcome != "fail",
        "baseline": 0.9,
        "quantized": quantized,
        "accepted": None,
        "kernel_spread": None,
        "harm": harm,
        "low": harm - 0.01,
        "high": harm + 0.01,
        "method": "paired t",
        "settling_n": 1234 if outcome == "inconclusive" else None,
        "problem": "",
        **given,
    }


def curves(rng):
    """Return curves with as many points as a real case has."""

    def rise():
        return [(round(x, 4), round(float(x ** (0.3 + 0.1 * rng.random())), 4)) for x in np.linspace(0, 1, POINTS)]

    ranks = np.arange(1.0, POINTS + 1)

    def fall():
        return [
            (rank, float(f"{value:.4g}"))
            for rank, value in zip(ranks, 5 / ranks * (1 + rng.random(POINTS)), strict=True)
        ]

    bins = [{"confidence": at, "accuracy": at - 0.05, "share": 0.25} for at in (0.3, 0.5, 0.7, 0.95)]
    frequencies = (0.15, 0.27, 0.38, 0.5, 0.63, 0.71)
    return {
        "reliability": [bins, bins[1:]],
        "roc": {name: [rise(), rise()] for name in OOD_SETS},
        "corruptions": {
            kind: {str(severity): (0.9, 0.9 - 0.01 * severity) for severity in range(1, 6)} for kind in CORRUPTIONS
        },
        "spectra": {
            f"block {block + 1}": [[(at, 1000 / at * (1 + rng.random())) for at in frequencies] for _ in range(2)]
            for block in range(4)
        },
        "singular_values": [fall(), fall()],
        "sqnr": fall(),
    }


def case(index=0, *, model="tiny", quantizer=None, bits="w4a8", benchmark="digits", outcomes=None, **given):
    """Return a case with as much in it as a rich benchmark gives. It passes unless `outcomes` says otherwise."""
    rng = np.random.default_rng(index)
    quantizer = f"quantizer-{index}" if quantizer is None else quantizer
    changes = 0.01 * rng.standard_normal(len(OTHERS))
    return {
        "case": f"{model}/{quantizer}/{bits}/{benchmark}",
        "model": model,
        "quantizer": quantizer,
        "bits": bits,
        "scope": "both",
        "benchmark": benchmark,
        "quantization": f"{quantizer} {bits}",
        "rescaled": False,
        "parameters": "granularity=channel, symmetric=True, activations=static, images=128",
        "trained_on": "",
        "samples": 898,
        "device": "cpu",
        "confidence": 0.9986,
        "coverage": 1.0,
        "product_coverage": 0.98,
        "size": {"quantized": 280_000 + 1000 * index, "full": 1_340_000},
        "metrics": [
            {
                "metric": name,
                "aspect": "ood",
                "better": "higher",
                "baseline": 0.8 + at / 1000,
                "quantized": 0.8 + at / 1000 + change,
                "change": change,
                "low": None,
                "high": None,
                "problem": "",
            }
            for at, (name, change) in enumerate(zip(OTHERS, map(float, changes), strict=True))
        ],
        "gates": [gate(metric, (outcomes or {}).get(metric, "pass"), rng=rng) for metric in GATED],
        "controls": None,
        "curves": curves(rng),
        "data": {"classes": "10 fa50d9f6", "in_distribution": "898 images 627d0247"},
        "environment": {"python": "3.11.7", "torch": "2.6.0"},
        "baseline": {"file": "model.safetensors 1a2b3c4d"},
        "skipped": {},
        "warnings": [],
        "repeat": f"pytest qreliab -k '[{model}/{quantizer}/{bits}/{benchmark}]'",
        "encoded": 520,
        "known": 0,
        "peak_memory": 2**30,
        "peak_device_memory": 0,
        **given,
    }


def results(*records, errors=None, **given):
    """Return the results of a run that measured these cases; `errors` are of cases without result."""
    errors = errors or {}
    whole = Results(
        qreliab="0.1.0",
        created="2026-01-02T03:04:05+00:00",
        shard=None,
        plan=Planned(digest="0", cases=[*(record["case"] for record in records), *errors]),
        cases=list(records),
        errors=errors,
        exitstatus=0,
    )
    return whole.model_copy(update=given)


def many(count):
    """Return as many cases, of five models on two benchmarks; every seventh fails."""
    return [
        case(
            index,
            model=f"ViT-B-32/model-{index % 5}",
            bits=("w2a8", "w4a8", "w8a8")[index % 3],
            benchmark=f"benchmark-{index // 5 % 2}",
            outcomes={"accuracy": "fail", "ece": "inconclusive"} if index % 7 == 0 else None,
        )
        for index in range(count)
    ]


FAILED = {"accuracy": "fail", "ood.auroc": "fail", "ece": "inconclusive"}
CONTROLS = {
    "matched": "weights",
    "problem": "",
    "residuals": {"quantized": 0.1, "lowrank": 0.09, "noise": 0.11},
    "changes": {"accuracy": [(-0.06, -0.08, -0.04), (-0.01, -0.02, 0.0), (math.nan, -math.inf, 0.01)]},
    "conclusions": {"accuracy": "by neither"},
}


def four_cases():
    """Return the results of four cases of one model, two of which fail."""
    return results(
        case(0, quantizer="minmax", bits="w2a8", outcomes=FAILED, controls=CONTROLS, warnings=["few samples"]),
        case(1, quantizer="gptq", bits="w2a8", outcomes={"accuracy": "fail"}, warnings=["few samples"]),
        case(2, quantizer="minmax", bits="w4a8", outcomes={"ece": "inconclusive"}),
        case(3, quantizer="minmax", bits="w8a8"),
    )


def hostile_results(text):
    """Return the results of a run that holds the text wherever a text may be."""
    record = case(
        model=text,
        quantizer=text,
        benchmark=text,
        parameters=text,
        trained_on=text,
        device=text,
        data={text: text},
        environment={text: text},
        warnings=[text],
        controls={**CONTROLS, "problem": text},
    )
    record["gates"][0].update(where=text, method=text, problem=text, outcome="fail", passed=False)
    record["metrics"][0]["problem"] = text
    record["curves"]["roc"] = {text: record["curves"]["roc"]["letters"]}
    record["curves"]["corruptions"] = {text: {"1": (0.9, 0.8)}}
    return results(record, errors={f"{text} ": text}, qreliab=text, created=text)
