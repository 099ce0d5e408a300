"""Quantizers by name, and the recipes that cases name."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from pytest_qreliab.config.formats import FLOATS, Format, Kind
from pytest_qreliab.errors import InputError
from pytest_qreliab.quantizers.parameters import KEEP, Parameters, rounded_products

if TYPE_CHECKING:
    from pytest_qreliab.models.clip import Clip
    from pytest_qreliab.quantizers.request import Request


RESCALE = "+rescale"
# What a quantizer needs of a benchmark: nothing; images if activations get static ranges; images always, unless only
# the text tower is in scope; images whatever the scope; image-caption pairs, or images with labels in their place.
DataNeed = Literal["nothing", "ranges", "images", "both", "pairs"]


class Apply(Protocol):
    """A function that quantizes a copy of a full-precision model."""

    def __call__(self, clip: Clip, request: Request) -> Clip:
        """Return the quantized copy."""


@dataclass(frozen=True)
class Quantizer:
    """A named method that quantizes a model at given bits."""

    name: str
    help: str  # one line for `qreliab list quantizers`
    function: str | Apply  # the method, or its place `module:name`, to be imported when it is first needed
    parameters: type[Parameters] = Parameters
    _: KW_ONLY
    default_activations: int | None = 8  # the activation width that a bare `4` stands for; None: weights only
    bits: tuple[str, ...] = ()  # the formats that it can do; empty: integers from 2 bits up, and those of `kinds`
    kinds: tuple[Kind, ...] = ("integer", "float", "block")  # the kinds of number types that it can round to
    needs: DataNeed = "ranges"
    rounds: bool = True  # False for a control, whose weights change but do not come to lie on a grid
    coverage: float = 1.0  # the share of the towers' matmul and convolution weights that it promises to quantize
    convolutions: bool = True  # False: `coverage` counts the matmul weights alone
    # For a quantizer whose bits a file gives: the function, or its place, from parameters and scope to the bits.
    read_bits: str | Callable[[Any, str], Format] | None = None
    extra: str | None = None  # the extra of this package that installs `packages`
    packages: tuple[str, ...] = ()
    # A text of the author's that changes with the code. The results of a registered quantizer are kept for later runs
    # only if it has one.
    version: str = ""

    @property
    def ours(self) -> bool:
        """True if the quantizer comes with this package.

        Its code is then part of every cache key.
        """
        return isinstance(self.function, str) and self.function.startswith("pytest_qreliab.")

    @property
    def formats(self) -> str:
        """The formats that it can do, in words."""
        floats = [name for name, number in FLOATS.items() if number.kind in self.kinds]
        return ", ".join(self.bits or ("integers, w2 to w8 (w4g128: in groups), a2 to a8", *floats))

    def missing(self) -> list[str]:
        """Return the packages that it needs and that are not installed."""
        return [package for package in self.packages if importlib.util.find_spec(package) is None]

    def check_packages(self) -> None:
        """Raise InputError, with the command that installs them, if packages are missing."""
        if missing := self.missing():
            extra = f": pip install 'pytest-qreliab[{self.extra}]'" if self.extra else ""
            names = ", ".join(missing)
            raise InputError(f"quantizer {self.name!r} needs the package{'s' * (len(missing) > 1)} {names}{extra}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A quantizer with its parameters, under the name that cases use."""

    name: str
    quantizer: Quantizer
    parameters: Parameters = field(default_factory=Parameters)
    rescale: bool = False  # whether the logit scale is fitted again afterwards
    matched: Recipe | None = None  # the recipe that a control takes its error from

    def bits(self, parsed: Format | int, scope: str) -> Format:
        """Return full bits for what the user wrote.

        Args:
            parsed: The bits. A bare 4 means activations of the quantizer's default width if it can do those, else
                weights only. For an artifact they do not count.
            scope: The towers to quantize: "vision", "text" or "both".

        Returns:
            The bits; for an artifact, those of the file.

        Raises:
            InputError: The quantizer cannot do these bits, or the artifact cannot be read.
        """
        able = self.quantizer.bits
        if self.quantizer.read_bits is not None:
            return cast(Format, import_function(self.quantizer.read_bits)(self.parameters, scope))
        if isinstance(parsed, int):
            bits = Format.integers(parsed, self.quantizer.default_activations)
            if able and str(bits) not in able:
                bits = Format.integers(parsed)
        else:
            bits = parsed
        if able and str(bits) not in able:
            raise InputError(f"quantizer {self.quantizer.name!r} cannot do {bits}; it can do {', '.join(able)}")
        for form in (bits, *self._own_formats()):
            self._check(form)
        rounded_products(self.parameters, bits)
        granularity = getattr(self.parameters, "granularity", "channel")
        if bits.group is not None and granularity not in ("channel", bits.group):
            raise InputError(f"{bits} has groups of {bits.group}, and {self.name!r} a granularity of {granularity}")
        return bits

    def _own_formats(self) -> list[Format]:
        """Return the formats that layers have of their own."""
        return [Format.of(text) for text in self.parameters.layers.values() if text != KEEP]

    def _check(self, form: Format) -> None:
        """Raise InputError, with the nearest format that it can do, for one that the quantizer cannot."""
        numbers = [number for number in (form.weights, form.activations) if number is not None]
        if any(number.kind not in self.quantizer.kinds for number in numbers):
            raise InputError(
                f"quantizer {self.quantizer.name!r} rounds to {' and '.join(self.quantizer.kinds)} types alone, and "
                f"not to {form}; the nearest that it can do is {form.as_integers()}"
            )
        if not self.quantizer.bits and any(number.bits < 2 for number in numbers):
            raise InputError(
                f"quantizer {self.quantizer.name!r} cannot do {form}: 1 bit is for the quantizer 'binary'; write 2 or "
                "more"
            )

    def needs(self, bits: Format) -> Literal["nothing", "images", "both", "pairs"]:
        """Return the calibration data that it needs at these bits."""
        needs = self.quantizer.needs
        if self.rescale or needs == "pairs":
            return "pairs"
        if self.matched is not None:
            return self.matched.needs(bits)
        if needs == "ranges":
            static = getattr(self.parameters, "activations", "static") == "static"
            numbers = {form.activations for form in (bits, *self._own_formats()) if form.activations is not None}
            needs = "images" if any(number.needs_range(static) for number in numbers) else "nothing"
        return needs

    @property
    def trains(self) -> bool:
        """True if calibration images shape the model as training images do: by gradients, or by a refitted scale."""
        matched = self.matched is not None and self.matched.trains
        return self.rescale or self.steps > 0 or self.quantizer.needs == "pairs" or matched

    @property
    def steps(self) -> int:
        """The number of steps that it reports while it works.

        It is 0 if it reports none.
        """
        return int(getattr(self.parameters, "steps", 0))

    def apply(self) -> Apply:
        """Return the function that quantizes, importing it if need be."""
        return cast(Apply, import_function(self.quantizer.function))

    def quantize(self, clip: Clip, request: Request) -> Clip:
        """Return a quantized copy of a model.

        It is made with this recipe's parameters, and not with the request's.
        """
        request = replace(request, parameters=self.parameters)
        if self.matched is not None:
            request = replace(request, matched=partial(self.matched.quantize, request=request))
        quantized = self.apply()(clip, request)
        if rounded_products(self.parameters, request.bits):
            import_function("pytest_qreliab.quantizers.engine.products:round_products")(quantized, request)
        return quantized


def import_function(function: str | Callable[..., object]) -> Callable[..., object]:
    """Return a function, given itself or its place `module:name`."""
    if not isinstance(function, str):
        return function
    module, _, attribute = function.partition(":")
    return cast(Callable[..., object], getattr(importlib.import_module(module), attribute))
