"""The quantizers that come with the package."""

from __future__ import annotations

from pytest_qreliab.quantizers import Quantizer
from pytest_qreliab.quantizers.parameters import (
    Artifact,
    Awq,
    BitsAndBytes,
    Gptq,
    LowRank,
    LrQat,
    Noise,
    OnnxRuntime,
    Percentile,
    QuaRot,
    Rounding,
    SmoothQuant,
    TorchAo,
    Training,
)

_POST_TRAINING = "pytest_qreliab.quantizers.post_training"
_TRAINING = "pytest_qreliab.quantizers.training"
_LIBRARIES = "pytest_qreliab.quantizers.libraries"
_CONTROLS = "pytest_qreliab.quantizers.controls"
_WEIGHTS_ONLY = tuple(f"w{bits}" for bits in range(2, 9))

BUILTIN = (
    Quantizer(
        "minmax", "round to nearest, ranges end at the largest magnitude", f"{_POST_TRAINING}.ranges:minmax", Rounding
    ),
    Quantizer(
        "percentile", "round to nearest, ranges clip outliers", f"{_POST_TRAINING}.ranges:percentile", Percentile
    ),
    Quantizer(
        "mse", "round to nearest, ranges of least squared error (OMSE)", f"{_POST_TRAINING}.ranges:mse", Rounding
    ),
    Quantizer(
        "smoothquant",
        "input channels with outliers divided, their weights multiplied (SmoothQuant)",
        f"{_POST_TRAINING}.smoothing:smoothquant",
        SmoothQuant,
        needs="images",
    ),
    Quantizer(
        "outlier-suppression",
        "norm weights moved into the layers after them, ranges that clip outlier tokens",
        f"{_POST_TRAINING}.smoothing:outlier_suppression",
        Rounding,
        needs="images",
    ),
    Quantizer(
        "quarot",
        "inputs and weights turned by Hadamard matrices, so that no channel stands out (QuaRot)",
        f"{_POST_TRAINING}.rotation:quarot",
        QuaRot,
        needs="images",
    ),
    Quantizer(
        "gptq",
        "weights rounded so that later ones make up for the error of earlier ones (GPTQ)",
        f"{_POST_TRAINING}.gptq:gptq",
        Gptq,
        needs="images",
    ),
    Quantizer(
        "awq",
        "input channels that matter most scaled up before rounding (AWQ)",
        f"{_POST_TRAINING}.smoothing:awq",
        Awq,
        default_activations=None,
        needs="images",
    ),
    Quantizer(
        "lowrank",
        "control: weights cut to lower rank, each erring as under the quantizer it matches",
        f"{_CONTROLS}:lowrank",
        LowRank,
        default_activations=None,
        bits=_WEIGHTS_ONLY,
        rounds=False,
    ),
    Quantizer(
        "noise",
        "control: weights with Gaussian noise, each erring as under the quantizer it matches",
        f"{_CONTROLS}:noise",
        Noise,
        default_activations=None,
        bits=_WEIGHTS_ONLY,
        rounds=False,
    ),
    Quantizer(
        "torchao",
        "every Linear by torchao: int8 or intx weights, activations per token as they come",
        f"{_LIBRARIES}.torchao:quantize",
        TorchAo,
        default_activations=None,
        bits=(*_WEIGHTS_ONLY, *(f"{weights}a8" for weights in _WEIGHTS_ONLY)),
        needs="nothing",
        convolutions=False,
        extra="torchao",
        packages=("torchao",),
    ),
    Quantizer(
        "torchao-float8",
        "every Linear by torchao in float8 (e4m3); w8a8 on GPUs that compute in it",
        f"{_LIBRARIES}.torchao:quantize_float8",
        default_activations=None,
        bits=("w8", "w8a8"),
        needs="nothing",
        convolutions=False,
        extra="torchao",
        packages=("torchao",),
    ),
    Quantizer(
        "bitsandbytes",
        "every Linear by bitsandbytes: LLM.int8() is w8a8, NF4 is w4",
        f"{_LIBRARIES}.bitsandbytes:quantize",
        BitsAndBytes,
        bits=("w4", "w8a8"),
        needs="nothing",
        convolutions=False,
        extra="bitsandbytes",
        packages=("bitsandbytes",),
    ),
    Quantizer(
        "onnxruntime",
        "towers exported to ONNX, quantized and run by ONNX Runtime",
        f"{_LIBRARIES}.onnxruntime:quantize",
        OnnxRuntime,
        bits=("w2", "w4", "w8", "w8a8"),
        convolutions=False,
        extra="onnxruntime",
        packages=("onnxruntime", "onnx", "onnxscript"),
    ),
    Quantizer(
        "artifact",
        "write artifact:PATH: ONNX towers, a torchao checkpoint or rounded weights, made elsewhere",
        f"{_LIBRARIES}.artifact:quantize",
        Artifact,
        needs="nothing",
        coverage=0.0,
        read_bits=f"{_LIBRARIES}.artifact:read_bits",
    ),
    Quantizer(
        "lsq",
        "trained: learned steps, towards the full-precision features (LSQ)",
        f"{_TRAINING}.loop:lsq",
        Training,
        needs="images",
    ),
    Quantizer(
        "lsq+contrastive",
        "trained: learned steps, CLIP's contrastive loss",
        f"{_TRAINING}.loop:lsq_contrastive",
        Training,
        needs="pairs",
    ),
    Quantizer(
        "lsq+contrastive+mse",
        "trained: learned steps, the contrastive loss and towards the full-precision features",
        f"{_TRAINING}.loop:lsq_contrastive_mse",
        Training,
        needs="pairs",
    ),
    Quantizer(
        "quarot+lsq",
        "trained: as lsq, on inputs and weights turned by Hadamard matrices",
        f"{_TRAINING}.loop:quarot_lsq",
        Training,
        needs="images",
    ),
    Quantizer(
        "dsq",
        "trained: as lsq, with the gradients of a soft staircase (DSQ)",
        f"{_TRAINING}.loop:dsq",
        Training,
        needs="images",
    ),
    Quantizer(
        "lr-qat",
        "trained: a low-rank change of frozen weights, and learned steps (LR-QAT)",
        f"{_TRAINING}.loop:lr_qat",
        LrQat,
        needs="images",
    ),
    Quantizer(
        "omniquant",
        "trained: clipping of frozen weights, scale and shift of what norms write (OmniQuant)",
        f"{_TRAINING}.loop:omniquant",
        Training,
        needs="images",
    ),
    Quantizer(
        "distillation",
        "trained: learned steps, towards the full-precision similarities of images and captions",
        f"{_TRAINING}.loop:distillation",
        Training,
        needs="pairs",
    ),
)
