"""The quantizers that come with the package."""

from __future__ import annotations

from pytest_qreliab.quantizers import Quantizer
from pytest_qreliab.quantizers.parameters import (
    Awq,
    Gptq,
    LowRank,
    LrQat,
    Noise,
    Percentile,
    QuaRot,
    Rounding,
    SmoothQuant,
    Training,
)

_HERE = "pytest_qreliab.quantizers"
_WEIGHTS_ONLY = tuple(f"w{bits}" for bits in range(2, 9))

BUILTIN = (
    Quantizer("minmax", "round to nearest, ranges end at the largest magnitude", f"{_HERE}.ranges:minmax", Rounding),
    Quantizer("percentile", "round to nearest, ranges clip outliers", f"{_HERE}.ranges:percentile", Percentile),
    Quantizer("mse", "round to nearest, ranges of least squared error (OMSE)", f"{_HERE}.ranges:mse", Rounding),
    Quantizer(
        "smoothquant",
        "input channels with outliers divided, their weights multiplied (SmoothQuant)",
        f"{_HERE}.smoothing:smoothquant",
        SmoothQuant,
        needs="images",
    ),
    Quantizer(
        "outlier-suppression",
        "norm weights moved into the layers after them, ranges that clip outlier tokens",
        f"{_HERE}.smoothing:outlier_suppression",
        Rounding,
        needs="images",
    ),
    Quantizer(
        "quarot",
        "inputs and weights turned by Hadamard matrices, so that no channel stands out (QuaRot)",
        f"{_HERE}.rotation:quarot",
        QuaRot,
        needs="images",
    ),
    Quantizer(
        "gptq",
        "weights rounded so that later ones make up for the error of earlier ones (GPTQ)",
        f"{_HERE}.gptq:gptq",
        Gptq,
        needs="images",
    ),
    Quantizer(
        "awq",
        "input channels that matter most scaled up before rounding (AWQ)",
        f"{_HERE}.smoothing:awq",
        Awq,
        default_activations=None,
        needs="images",
    ),
    Quantizer(
        "lowrank",
        "control: weights cut to lower rank, each erring as under the quantizer it matches",
        f"{_HERE}.controls:lowrank",
        LowRank,
        default_activations=None,
        bits=_WEIGHTS_ONLY,
        rounds=False,
    ),
    Quantizer(
        "noise",
        "control: weights with Gaussian noise, each erring as under the quantizer it matches",
        f"{_HERE}.controls:noise",
        Noise,
        default_activations=None,
        bits=_WEIGHTS_ONLY,
        rounds=False,
    ),
    Quantizer(
        "lsq",
        "trained: learned steps, towards the full-precision features (LSQ)",
        f"{_HERE}.training:lsq",
        Training,
        needs="images",
    ),
    Quantizer(
        "lsq+contrastive",
        "trained: learned steps, CLIP's contrastive loss",
        f"{_HERE}.training:lsq_contrastive",
        Training,
        needs="pairs",
    ),
    Quantizer(
        "lsq+contrastive+mse",
        "trained: learned steps, the contrastive loss and towards the full-precision features",
        f"{_HERE}.training:lsq_contrastive_mse",
        Training,
        needs="pairs",
    ),
    Quantizer(
        "quarot+lsq",
        "trained: as lsq, on inputs and weights turned by Hadamard matrices",
        f"{_HERE}.training:quarot_lsq",
        Training,
        needs="images",
    ),
    Quantizer(
        "dsq",
        "trained: as lsq, with the gradients of a soft staircase (DSQ)",
        f"{_HERE}.training:dsq",
        Training,
        needs="images",
    ),
    Quantizer(
        "lr-qat",
        "trained: a low-rank change of frozen weights, and learned steps (LR-QAT)",
        f"{_HERE}.training:lr_qat",
        LrQat,
        needs="images",
    ),
    Quantizer(
        "omniquant",
        "trained: clipping of frozen weights, scale and shift of what norms write (OmniQuant)",
        f"{_HERE}.training:omniquant",
        Training,
        needs="images",
    ),
    Quantizer(
        "distillation",
        "trained: learned steps, towards the full-precision similarities of images and captions",
        f"{_HERE}.training:distillation",
        Training,
        needs="pairs",
    ),
)
