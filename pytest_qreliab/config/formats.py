"""Number types, and the formats of cases: the types that weights and activations are rounded to.

This module is pure: it imports neither torch nor NumPy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from pytest_qreliab.errors import InputError, nearest

MIN_BITS, MAX_BITS = 1, 8
RECORDED = ("fp16", "bf16", "fp32")  # recorded outputs may be of a model that rounds to none but these

Kind = Literal["integer", "float", "block"]
# What stands before the elements: a float32, a power of two, an e4m3 number times a float32 of the tensor, or nothing.
ScaleType = Literal["float32", "e8m0", "e4m3", "none"]

_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
_INTEGERS = re.compile(r"w(\d+)(?:g(\d+))?(?:a(\d+))?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Number:
    """The type of a tensor's elements, and of what scales them.

    A float has a sign, exponent bits of bias 2^(exponent - 1) - 1, subnormals, and mantissa bits.
    """

    name: str
    bits: int  # of an element
    exponent: int = 0  # bits; 0 for an integer
    mantissa: int = 0  # bits
    largest: float = 0.0  # the largest finite magnitude of a float
    scale: ScaleType = "float32"
    block: int | None = None  # the number of values along the input channels that share a scale; None: a format's group

    @property
    def kind(self) -> Kind:
        """The kind of the type."""
        return "block" if self.block else "float" if self.exponent else "integer"

    def needs_range(self, static: bool) -> bool:
        """Return whether activations of the type need a range from calibration.

        Args:
            static: Whether ranges that could come from each input are taken from calibration all the same.
        """
        return self.scale == "e4m3" or (static and self.scale == "float32")


def integer(bits: int) -> Number:
    """Return the integer type of a width."""
    return Number(name=f"int{bits}", bits=bits)


def _float(
    name: str, exponent: int, mantissa: int, largest: float, scale: ScaleType = "float32", block: int | None = None
) -> Number:
    bits = 1 + exponent + mantissa
    return Number(name=name, bits=bits, exponent=exponent, mantissa=mantissa, largest=largest, scale=scale, block=block)


# Sources: OCP 8-bit Floating Point Specification 1.0; OCP Microscaling Formats 1.0; NVIDIA's description of NVFP4.
FLOATS = {
    number.name: number
    for number in (
        _float("fp16", 5, 10, 65504.0, "none"),
        _float("bf16", 8, 7, (2 - 2.0**-7) * 2.0**127, "none"),
        _float("fp8", 4, 3, 448.0),
        _float("fp8e5m2", 5, 2, 57344.0),
        _float("mxfp8", 4, 3, 448.0, "e8m0", 32),
        _float("mxfp8e5m2", 5, 2, 57344.0, "e8m0", 32),
        _float("mxfp6", 2, 3, 7.5, "e8m0", 32),
        _float("mxfp6e3m2", 3, 2, 28.0, "e8m0", 32),
        _float("mxfp4", 2, 1, 6.0, "e8m0", 32),
        _float("nvfp4", 2, 1, 6.0, "e4m3", 16),
    )
}
FP32 = _float("fp32", 8, 23, (2 - 2.0**-23) * 2.0**127, "none")


@dataclass(frozen=True)
class Format:
    """The number types of a case, written `w4`, `w4a8`, `w4g128`, `fp8`, `mxfp4w` and so on."""

    weights: Number
    activations: Number | None = None  # None: activations stay as they are
    group: int | None = None  # integer weights of an output channel that share a scale and a zero point
    name: str = field(default="", kw_only=True)  # of recorded outputs that do not tell their format: "unknown"

    def __str__(self) -> str:
        if self.name or self.weights.exponent:
            return self.name or self.weights.name + ("w" if self.activations is None else "")
        group = "" if self.group is None else f"g{self.group}"
        return f"w{self.weights.bits}{group}" + ("" if self.activations is None else f"a{self.activations.bits}")

    def at_mean(self, bits: float) -> str:
        """Return the format with the mean bits of all weights, as in `w3.1a8`, if layers have formats of their own.

        Args:
            bits: The mean.
        """
        if round(bits, 1) == self.weights.bits:
            return str(self)
        if self.weights.exponent:
            return f"{self} ({bits:.1f} bits)"
        return str(self).replace(f"w{self.weights.bits}", f"w{bits:.1f}", 1)

    def as_integers(self) -> Format:
        """Return the format of integers of at most 8 bits that is nearest."""
        widths = [None if number is None else min(number.bits, MAX_BITS) for number in (self.weights, self.activations)]
        return Format.integers(widths[0] or MAX_BITS, widths[1])

    def with_weights(self, other: Format) -> Format:
        """Return the format with another's weights, and with its activations if it has any."""
        return Format(other.weights, other.activations or self.activations, other.group)

    @classmethod
    def integers(cls, weights: int, activations: int | None = None) -> Format:
        """Return the format of integers of two widths; None: activations stay as they are."""
        return cls(integer(weights), None if activations is None else integer(activations))

    @classmethod
    def of(cls, text: str) -> Format:
        """Parse a format that says of what it is: `w4`, `w4a8`, `fp16`.

        Raises:
            InputError: The text has another form. The message names the nearest valid form.
        """
        parsed = cls.parse(text)
        if isinstance(parsed, int):
            raise InputError(f"{text!r} does not say of what; write w{parsed} (weights only) or w{parsed}a{parsed}")
        return parsed

    @classmethod
    def recorded(cls, text: str) -> Format:
        """Parse what recorded outputs or a record say of their format, `fp32` and `unknown` among it.

        Raises:
            InputError: The text has another form. The message names the nearest valid form.
        """
        known = {str(known): known for known in (cls(FP32, FP32), UNKNOWN)}
        if text.strip().casefold() in known:
            return known[text.strip().casefold()]
        try:
            return cls.of(text)
        except InputError as error:
            raise InputError(f"{error}; of recorded outputs also {', '.join(RECORDED)}") from None

    @classmethod
    def parse(cls, text: str) -> Format | int:
        """Parse a format.

        Args:
            text: A form such as `w4`, `w4a8`, `w4g128`, `fp8`, `mxfp4w` or `4`, in lower or upper case.

        Returns:
            The format. A bare `4` stays an integer, because its meaning depends on the quantizer.

        Raises:
            InputError: The text has another form, or a width is not between 1 and 8. The message names the nearest
                valid form.
        """
        word = text.strip().casefold()
        if word in FORMS:
            return FORMS[word]
        match = _INTEGERS.fullmatch(word)
        if not match and not re.fullmatch(r"\d+", word, re.ASCII):
            raise InputError(
                f"{text!r} is no format;{_suggestion(word)} write 4 (the quantizer's default), w4 (weights only), "
                f"w4a8 (weights and activations) or w4g128 (weights in groups), each width from {MIN_BITS} to "
                f"{MAX_BITS}, or {', '.join(FLOATS)} (with w at the end for weights only)"
            )
        weights, group, activations = match.groups() if match else (word, None, None)
        for number in (weights, activations):
            if number is not None and not MIN_BITS <= int(number) <= MAX_BITS:
                mended = text.strip().replace(number, str(min(max(int(number), MIN_BITS), MAX_BITS)), 1)
                raise InputError(
                    f"{number} bits in {text!r} is out of range: {MIN_BITS} to {MAX_BITS} are supported; "
                    f"did you mean {mended!r}?"
                )
        if not match:
            return int(weights)
        if group is not None and int(group) < 2:
            raise InputError(f"a group of {group} in {text!r} shares nothing: write 2 or more, as in w4g128")
        return cls(
            integer(int(weights)),
            None if activations is None else integer(int(activations)),
            None if group is None else int(group),
        )


FORMS = {
    str(form): form for number in FLOATS.values() for form in (Format(number, number), Format(number))
}  # by what users write
UNKNOWN = Format(FP32, name="unknown")  # stands for the format of recorded outputs that do not tell it


def _suggestion(word: str) -> str:
    if word in _WORDS:
        return f" did you mean '{_WORDS.index(word) + MIN_BITS}'?"
    widths = [str(width) for width in range(MIN_BITS, MAX_BITS + 1)]
    near = nearest(word, [*widths, *(f"w{w}" for w in widths), *(f"w{w}a{a}" for w in widths for a in widths), *FORMS])
    return f" did you mean {near!r}?" if near else ""
