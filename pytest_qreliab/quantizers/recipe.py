"""Quantizers by name, and recipes made from them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.errors import InputError
from pytest_qreliab.quantizers.parameters import Parameters

if TYPE_CHECKING:
    from pytest_qreliab.models.clip import Clip
    from pytest_qreliab.quantizers.request import Request


RESCALE = "+rescale"
# What a quantizer needs of a benchmark: nothing; images where activations get static ranges; images always;
# images with labels always.
DataNeed = Literal["nothing", "ranges", "images", "pairs"]


class Apply(Protocol):
    """Quantizes a copy of a full-precision model."""

    def __call__(self, clip: Clip, request: Request) -> Clip: ...


@dataclass(frozen=True)
class Quantizer:
    """A named recipe that turns a model into a quantized model at given bits.

    `function` is the recipe, or where to import it from when it is first needed, as `module:name`.
    `default_activations` is the activation width that a bare bit width stands for, None for weights only; `bits`
    lists the widths that it can do, and is empty for one that does all. `rounds` is false for a control, whose weights
    change without coming to lie on a grid. `coverage` is the share of the towers' matmul and convolution weights
    that it promises to quantize, or without `convolutions` of the matmul weights. `read_bits`, from parameters and
    scope, is for a quantizer whose bits are given by a file. `packages` are what the extra of the name `extra`
    installs for it. `version` is a text of the author's that changes with the code: what a registered quantizer
    gives is kept for later runs only under one.
    """

    name: str
    help: str
    function: str | Apply
    parameters: type[Parameters] = Parameters
    default_activations: int | None = 8
    bits: tuple[str, ...] = ()
    needs: DataNeed = "ranges"
    rounds: bool = True
    coverage: float = 1.0
    convolutions: bool = True
    read_bits: str | Callable[[Any, str], Bits] | None = None
    extra: str | None = None
    packages: tuple[str, ...] = ()
    version: str = ""

    @property
    def ours(self) -> bool:
        """Whether it comes with this package, in whose code nothing goes unseen."""
        return isinstance(self.function, str) and self.function.startswith("pytest_qreliab.")

    def missing(self) -> list[str]:
        """The packages that it needs and that are not installed."""
        return [package for package in self.packages if importlib.util.find_spec(package) is None]

    def check_packages(self) -> None:
        """Raise InputError, with the command that installs them, where packages are missing."""
        if missing := self.missing():
            extra = f": pip install 'pytest-qreliab[{self.extra}]'" if self.extra else ""
            names = ", ".join(missing)
            raise InputError(f"quantizer {self.name!r} needs the package{'s' * (len(missing) > 1)} {names}{extra}")


@dataclass(frozen=True)
class Recipe:
    """A quantizer with its parameters, as a case names it; `rescale` refits the logit scale afterwards.

    `matched` is the recipe that a control takes its error from.
    """

    name: str
    quantizer: Quantizer
    parameters: Parameters = field(default_factory=Parameters)
    rescale: bool = False
    matched: Recipe | None = None

    def bits(self, parsed: Bits | int, scope: str) -> Bits:
        """Full bits from what the user wrote: a bare 4 becomes the quantizer's own default.

        That is with activations of the default width if it can do those, else weights alone; of an artifact it is
        always what the file holds. Raises InputError for bits that the quantizer cannot do.
        """
        able = self.quantizer.bits
        if self.quantizer.read_bits is not None:
            return cast(Bits, _imported(self.quantizer.read_bits)(self.parameters, scope))
        if isinstance(parsed, int):
            bits = Bits(parsed, self.quantizer.default_activations)
            if able and str(bits) not in able:
                bits = Bits(parsed)
        else:
            bits = parsed
        if able and str(bits) not in able:
            raise InputError(f"quantizer {self.name!r} cannot do {bits}; it can do {', '.join(able)}")
        return bits

    def needs(self, bits: Bits) -> Literal["nothing", "images", "pairs"]:
        """What it needs of a benchmark's calibration data at these bits."""
        needs = self.quantizer.needs
        if self.rescale or needs == "pairs":
            return "pairs"
        if self.matched is not None:
            return self.matched.needs(bits)
        if needs == "ranges":
            static = getattr(self.parameters, "activations", "static") == "static"
            needs = "images" if static and bits.activations is not None else "nothing"
        return needs

    @property
    def steps(self) -> int:
        """How many steps it reports while it works; 0 where it reports none."""
        return int(getattr(self.parameters, "steps", 0))

    def apply(self) -> Apply:
        """The function that quantizes, imported now."""
        return cast(Apply, _imported(self.quantizer.function))

    def quantize(self, clip: Clip, request: Request) -> Clip:
        """Quantize a copy of the model with this recipe's parameters, whatever those of the request are."""
        request = replace(request, parameters=self.parameters)
        if self.matched is not None:
            request = replace(request, matched=partial(self.matched.quantize, request=request))
        return self.apply()(clip, request)


def _imported(function: str | Callable[..., object]) -> Callable[..., object]:
    if not isinstance(function, str):
        return function
    module, _, attribute = function.partition(":")
    return cast(Callable[..., object], getattr(importlib.import_module(module), attribute))
