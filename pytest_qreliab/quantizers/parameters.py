"""The parameters that quantizers take, with their defaults: what a suite file may set."""

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
    """Base of every quantizer's parameters; by itself: none."""


def described(parameters: type[Parameters]) -> list[str]:
    """Every parameter with its default and its type, as `alpha=0.5 (float at least 0, at most 1 | search)`."""
    found = []
    for name, field in parameters.model_fields.items():
        default = "" if field.is_required() else f"={field.default}"
        found.append(f"{name}{default} ({_type(field.annotation, field.metadata)})")
    return found


def _type(kind: Any, limits: Iterable[Any]) -> str:
    """A type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        parts = (limit.metadata if isinstance(limit, FieldInfo) else [limit] for limit in inner[1:])
        return _type(inner[0], [limit for part in parts for limit in part])
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " | ".join(_type(part, ()) for part in inner)
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    bounds = [f"{word} {getattr(limit, key)}" for limit in limits for key, word in words.items() if hasattr(limit, key)]
    if kind is type(None):
        return "none"
    name = kind.__name__ if isinstance(kind, type) and origin is None else str(kind)
    return " ".join([name, ", ".join(bounds)]).strip()


class RoundingParameters(Parameters):
    """How weights and activations are laid on grids, whatever is done before.

    `granularity`: what shares a grid of the weights: the tensor, an output channel, or a group of that many
    weights of a channel. `activations`: `static` ranges from `images` calibration images, one per tensor, or
    `dynamic` ones, of each token (of each image, for a convolution) as it comes.
    """

    granularity: Literal["tensor", "channel"] | GroupSize = "channel"
    symmetric: bool = True
    activations: Literal["static", "dynamic"] = "static"
    symmetric_activations: bool = True
    images: Count = 128


class Percentile(RoundingParameters):
    """`share` of the magnitudes, in per cent, is kept of weights and of activations; what is beyond is clipped."""

    share: Annotated[float, Field(gt=50, le=100)] = 99.9


class SmoothQuant(RoundingParameters):
    """`alpha`: how much of the difficulty moves from activations to weights, or `search` for the best of 0.1 to 0.9.

    `layers`: those that read a norm's output, as the authors do, or `all`.
    """

    alpha: Share | Literal["search"] = 0.5
    layers: Literal["norm", "all"] = "norm"


class QuaRot(RoundingParameters):
    """`seed` draws the signs of the randomised Hadamard matrices."""

    seed: int = 0


class Gptq(RoundingParameters):
    """`damping`, relative to the mean of the Hessian's diagonal, is added to it."""

    damping: Annotated[float, Field(gt=0)] = 0.01


class Awq(RoundingParameters):
    """`layers` as for smoothquant; weights are grouped, as the authors do, where a group size is given."""

    layers: Literal["norm", "all"] = "all"


class TorchAo(Parameters):
    """`group_size`: weights that share a scale, along a row; none: one scale per output channel."""

    group_size: GroupSize | None = None


class BitsAndBytes(Parameters):
    """`threshold`: input columns with a larger magnitude are multiplied in 16 bits (w8a8); 0: none is.

    `data_type`: the levels of w4, of normally distributed weights (`nf4`) or of a 4-bit float (`fp4`);
    `block_size` of its weights share a scale.
    """

    threshold: float = 6.0
    data_type: Literal["nf4", "fp4"] = "nf4"
    block_size: Literal[32, 64, 128, 256, 512, 1024] = 64


class OnnxRuntime(Parameters):
    """How ONNX Runtime quantizes.

    w8a8: `activations` are rounded by ranges taken at every call (`dynamic`) or fixed from `images` calibration
    images (`static`). `reduce_range` keeps weights to 7 bits, for x86 CPUs without VNNI, on which sums of 8-bit
    products overflow; none: only on such a CPU. Weights alone: `block_size` weights along a row share a scale.
    """

    activations: Literal["dynamic", "static"] = "dynamic"
    images: Count = 128
    reduce_range: bool | None = None
    block_size: Literal[16, 32, 64, 128, 256] = 32


class Artifact(Parameters):
    """`path` of the file or folder."""

    path: str


class ControlParameters(Parameters):
    """`match` is the quantizer whose error, weight by weight, the control reproduces."""

    match: str = "minmax"


class LowRank(ControlParameters):
    """`by`: what is matched: the squared error, or the effective rank."""

    by: Literal["error", "effective-rank"] = "error"


class Noise(ControlParameters):
    """`seed` draws the noise."""

    seed: int = 0


class Training(Parameters):
    """Of a short training run: `steps` of `batch` images and as many captions, drawn with `seed`.

    `learning_rate` is Adam's at the first step: the share of a step of its grid that a weight may move at once.
    `images` is the most that it is trained on, and that are held in memory.
    """

    steps: Count = 100
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.01
    batch: Annotated[int, Field(ge=2)] = 16
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    images: Count = 1024


class LrQat(Training):
    """`rank` of the change that is learned of each weight."""

    rank: Count = 32
