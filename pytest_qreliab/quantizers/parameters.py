"""The parameters that quantizers take, with their defaults: what a suite file may set."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pytest_qreliab.config.document import Strict

GroupSize = Annotated[int, Field(ge=2)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Parameters(Strict):
    """Base of every quantizer's parameters; by itself: none."""


class Rounding(Parameters):
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


class Percentile(Rounding):
    """`share` of the magnitudes, in per cent, is kept of weights and of activations; what is beyond is clipped."""

    share: Annotated[float, Field(gt=50, le=100)] = 99.9


class SmoothQuant(Rounding):
    """`alpha`: how much of the difficulty moves from activations to weights, or `search` for the best of 0.1 to 0.9.

    `layers`: those that read a norm's output, as the authors do, or `all`.
    """

    alpha: Share | Literal["search"] = 0.5
    layers: Literal["norm", "all"] = "norm"


class QuaRot(Rounding):
    """`seed` draws the signs of the randomised Hadamard matrices."""

    seed: int = 0


class Gptq(Rounding):
    """`damping`, relative to the mean of the Hessian's diagonal, is added to it."""

    damping: Annotated[float, Field(gt=0)] = 0.01


class Awq(Rounding):
    """`layers` as for smoothquant; weights are grouped, as the authors do, where a group size is given."""

    layers: Literal["norm", "all"] = "all"


class Control(Parameters):
    """`match` is the quantizer whose error, weight by weight, the control reproduces."""

    match: str = "minmax"


class LowRank(Control):
    """`by`: what is matched: the squared error, or the effective rank."""

    by: Literal["error", "effective-rank"] = "error"


class Noise(Control):
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
