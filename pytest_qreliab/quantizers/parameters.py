"""The parameters of quantizers, which a suite file may set."""

from __future__ import annotations

from collections.abc import Iterable
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BeforeValidator, Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from pytest_qreliab.config.document import Strict
from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError

KEEP = "keep"
FIRST, LAST = "@first", "@last"  # patterns for layers by their place, and not by their name

GroupSize = Annotated[int, Field(ge=2)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Product = Literal["query", "key", "value", "softmax", "residual", "output"]
INTEGER_PRODUCTS: tuple[Product, ...] = get_args(Product)  # what a static integer runtime rounds beside layers' inputs


def _layer_format(value: object) -> object:
    if value == KEEP:
        return value
    try:
        return str(Format.of(str(value)))
    except InputError as error:
        raise PydanticCustomError("bits", "{error}; or write keep", {"error": str(error)}) from None


def _mapping(value: object) -> object:
    if not isinstance(value, dict):
        raise PydanticCustomError(
            "layers",
            "give patterns of layer names with formats or keep, as in {visual.conv1: w8}; which layers smoothquant and "
            "awq scale is the parameter scaled",
        )
    return value


LayerFormat = Annotated[str, BeforeValidator(_layer_format)]
LayerFormats = Annotated[dict[str, LayerFormat], BeforeValidator(_mapping)]


class Parameters(Strict):
    """The base class of every quantizer's parameters, which all have these."""

    # Layers with a format of their own, by patterns of their names; the first that fits counts. `keep` leaves a layer
    # in full precision, `w8` gives its weights 8 bits, `w8a8` its inputs too. `@first` is the layer that reads the
    # pixels, `@last` that which writes the features.
    layers: LayerFormats = {}


def described(parameters: type[Parameters]) -> list[str]:
    """Return a text for each parameter: name, default and type.

    Args:
        parameters: The parameter class of a quantizer.

    Returns:
        Texts in the order of the fields, for example `alpha=0.5 (float at least 0, at most 1 | search)`.
    """
    texts = []
    for name, field in parameters.model_fields.items():
        default = "" if field.is_required() or field.default == {} else f"={field.default}"
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
    if origin is dict:
        return "mapping of layer names to formats or keep"
    if origin is list:
        return f"list of {_type_in_words(inner[0], ())}"
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
    # The blocks of MX and NVFP4, and the groups of w4g128, are what they are.
    granularity: Literal["tensor", "channel"] | GroupSize = "channel"
    symmetric: bool | None = None  # weights without a zero point; None: with one in the groups of w4g128 alone
    restricted_range: bool = (
        False  # symmetric integers without the lowest of the 2^bits levels, weights and activations
    )
    # Static ranges, one per tensor, are set on calibration images. Dynamic ones are those of each token, or of each
    # image if the layer is a convolution.
    activations: Literal["static", "dynamic"] = "static"
    symmetric_activations: bool = True
    # What is rounded beside the inputs of layers: nothing, or `integer`, all that ONNX Runtime's static quantization
    # rounds, or some of it: the operands of attention's products (`query`, `key`, `value`, `softmax`), both sides and
    # the sum of adds (`residual`), and what layers, norms and attention's first product write (`output`).
    products: Literal["float", "integer"] | list[Product] = "float"
    images: Count = 128  # the most calibration images that are looked at


def rounded_products(parameters: Parameters, bits: Format) -> frozenset[str]:
    """Return what is rounded beside the inputs of layers.

    Args:
        parameters: The parameters of a quantizer.
        bits: The format of the case.

    Raises:
        InputError: The format has no activations, or activations in blocks, which attention does not share.
    """
    chosen = getattr(parameters, "products", "float")
    kinds = frozenset(INTEGER_PRODUCTS if chosen == "integer" else () if chosen == "float" else chosen)
    if kinds and (bits.activations is None or bits.activations.kind == "block"):
        why = "leaves activations as they are" if bits.activations is None else "rounds activations in blocks"
        raise InputError(f"products rounds activations to one grid, and {bits} {why}; write w8a8, or products: float")
    return kinds


class Percentile(RoundingParameters):
    """The parameters of `percentile`."""

    # The per cent of the magnitudes, of weights and of activations, within the range. The rest is clipped.
    share: Annotated[float, Field(gt=50, le=100)] = 99.9


class SmoothQuant(RoundingParameters):
    """The parameters of `smoothquant`."""

    # The part of the difficulty that moves from activations to weights. `search` takes the best from 0.1 to 0.9.
    alpha: Share | Literal["search"] = 0.5
    scaled: Literal["norm", "all"] = (
        "norm"  # the layers; `norm`: only those that read a norm's output, as the authors do
    )


class Gptq(RoundingParameters):
    """The parameters of `gptq`."""

    damping: Annotated[float, Field(gt=0)] = 0.01  # added to the Hessian's diagonal, relative to its mean


class QuaRot(Gptq):
    """The parameters of `quarot`."""

    seed: int = 0  # draws the signs of the randomised Hadamard matrices
    activations: Literal["static", "dynamic"] = "dynamic"  # dynamic ranges, of each token, as those of the authors


class Awq(RoundingParameters):
    """The parameters of `awq`.

    Its authors group weights: give a group size as the granularity for that.
    """

    scaled: Literal["norm", "all"] = "all"  # as for `smoothquant`


class Hqq(RoundingParameters):
    """The parameters of `hqq`.

    Its authors group 64 weights, as `w4g64` does.
    """

    # Weights always have a zero point.
    symmetric: Literal[False] | None = None


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
    # w8a8: `integer` quantizes products of two activations too and, with static ranges, all that ONNX Runtime does by
    # default, but for masks. `float` quantizes products and convolutions of weights alone.
    products: Literal["float", "integer"] = "float"
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


class Training(RoundingParameters):
    """The parameters of a short training run."""

    steps: Count = 100
    # Adam's rate at the first step: the share of a step of its grid that a weight may move at once.
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.01
    batch: Annotated[int, Field(ge=2)] = 16  # images of a step, and as many captions
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0  # draws the batches
    images: Count = 1024  # the most images that are held in memory and trained on


class EightBitEnds(Training):
    """The parameters of a training run whose first and last layers have 8 bits, as those of LSQ's and DSQ's authors."""

    layers: LayerFormats = {FIRST: "w8a8", LAST: "w8a8"}


class LrQat(Training):
    """The parameters of `lr-qat`."""

    rank: Count = 32  # of the change of each weight that is learned
    alpha: Annotated[float, Field(gt=0)] = 100.0  # the change is multiplied by alpha / rank


class OmniQuant(Training):
    """The parameters of `omniquant`, with its authors' grids: a zero point, and activations per token."""

    # The steps of each block, and Adam's rate at the first, by which the logits of ranges' ends and the logarithms of
    # scales move.
    steps: Count = 100
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.05
    images: Count = 128
    symmetric: bool | None = False
    activations: Literal["static", "dynamic"] = "dynamic"
    symmetric_activations: bool = False


class QtDog(Training):
    """The parameters of `qt-dog`."""

    unrounded: Share = 0.4  # of the steps, the first, if there are captions to train on
