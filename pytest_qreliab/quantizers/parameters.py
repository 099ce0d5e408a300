"""The parameters of quantizers, which a suite file may set."""

from __future__ import annotations

from collections.abc import Iterable
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import Field
from pydantic.fields import FieldInfo

from pytest_qreliab.config.document import Strict

GroupSize = Annotated[int, Field(ge=2)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Parameters(Strict):
    """The base class of every quantizer's parameters; it has none itself."""


def described(parameters: type[Parameters]) -> list[str]:
    """Return a text for each parameter: name, default and type.

    Args:
        parameters: The parameter class of a quantizer.

    Returns:
        Texts in the order of the fields, for example `alpha=0.5 (float at least 0, at most 1 | search)`.
    """
    texts = []
    for name, field in parameters.model_fields.items():
        default = "" if field.is_required() else f"={field.default}"
        texts.append(f"{name}{default} ({_type_in_words(field.annotation, field.metadata)})")
    return texts


def _type_in_words(kind: Any, limits: Iterable[Any]) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        parts = (limit.metadata if isinstance(limit, FieldInfo) else [limit] for limit in inner[1:])
        return _type_in_words(inner[0], [limit for part in parts for limit in part])
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " | ".join(_type_in_words(part, ()) for part in inner)
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    bounds = [f"{word} {getattr(limit, key)}" for limit in limits for key, word in words.items() if hasattr(limit, key)]
    if kind is type(None):
        return "none"
    name = kind.__name__ if isinstance(kind, type) and origin is None else str(kind)
    return " ".join([name, ", ".join(bounds)]).strip()


class RoundingParameters(Parameters):
    """The grids of weights and activations.

    Most quantizers have these parameters.
    """

    # The weights that share a grid: the tensor, an output channel, or a group of that many weights of a channel.
    granularity: Literal["tensor", "channel"] | GroupSize = "channel"
    symmetric: bool = True
    # Static ranges, one per tensor, are set on calibration images. Dynamic ones are those of each token, or of each
    # image if the layer is a convolution.
    activations: Literal["static", "dynamic"] = "static"
    symmetric_activations: bool = True
    images: Count = 128  # the most calibration images that are looked at


class Percentile(RoundingParameters):
    """The parameters of `percentile`."""

    # The per cent of the magnitudes, of weights and of activations, within the range. The rest is clipped.
    share: Annotated[float, Field(gt=50, le=100)] = 99.9


class SmoothQuant(RoundingParameters):
    """The parameters of `smoothquant`."""

    # The part of the difficulty that moves from activations to weights. `search` takes the best from 0.1 to 0.9.
    alpha: Share | Literal["search"] = 0.5
    layers: Literal["norm", "all"] = "norm"  # `norm`: only those that read a norm's output, as the authors do


class QuaRot(RoundingParameters):
    """The parameters of `quarot`."""

    seed: int = 0  # draws the signs of the randomised Hadamard matrices


class Gptq(RoundingParameters):
    """The parameters of `gptq`."""

    damping: Annotated[float, Field(gt=0)] = 0.01  # added to the Hessian's diagonal, relative to its mean


class Awq(RoundingParameters):
    """The parameters of `awq`.

    Its authors group weights: give a group size as the granularity for that.
    """

    layers: Literal["norm", "all"] = "all"  # as for `smoothquant`


class TorchAo(Parameters):
    """The parameters of `torchao`."""

    group_size: GroupSize | None = None  # weights of a row that share a scale; None: one scale per output channel


class BitsAndBytes(Parameters):
    """The parameters of `bitsandbytes`."""

    threshold: float = 6.0  # w8a8: input columns with a larger magnitude are multiplied in 16 bits; 0: none is
    # w4: the levels are those of normally distributed weights (`nf4`) or of a 4-bit float (`fp4`).
    data_type: Literal["nf4", "fp4"] = "nf4"
    block_size: Literal[32, 64, 128, 256, 512, 1024] = 64  # w4: weights that share a scale


class OnnxRuntime(Parameters):
    """The parameters of `onnxruntime`."""

    # w8a8: the activations' ranges are taken at every call (`dynamic`) or fixed on calibration images (`static`).
    activations: Literal["dynamic", "static"] = "dynamic"
    images: Count = 128  # w8a8: the most calibration images that are looked at
    # w8a8: whether weights have 7 bits, because sums of 8-bit products overflow on x86 CPUs without VNNI. None: only
    # on such a CPU.
    reduce_range: bool | None = None
    block_size: Literal[16, 32, 64, 128, 256] = 32  # weights only: weights of a row that share a scale


class Artifact(Parameters):
    """The parameters of `artifact`."""

    path: str  # of the file or folder


class ControlParameters(Parameters):
    """The parameters that all controls have."""

    match: str = "minmax"  # the quantizer with the errors, weight by weight, that the control reproduces


class LowRank(ControlParameters):
    """The parameters of `lowrank`."""

    by: Literal["error", "effective-rank"] = "error"  # the property that is matched; `error` is the squared error


class Noise(ControlParameters):
    """The parameters of `noise`."""

    seed: int = 0  # draws the noise


class Training(Parameters):
    """The parameters of a short training run."""

    steps: Count = 100
    # Adam's rate at the first step: the share of a step of its grid that a weight may move at once.
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.01
    batch: Annotated[int, Field(ge=2)] = 16  # images of a step, and as many captions
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0  # draws the batches
    images: Count = 1024  # the most images that are held in memory and trained on


class LrQat(Training):
    """The parameters of `lr-qat`."""

    rank: Count = 32  # of the change of each weight that is learned
