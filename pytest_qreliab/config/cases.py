"""Bit widths, builds and cases, with the names that tests have.

This module is pure: it imports neither torch nor NumPy.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import Literal

from pytest_qreliab.errors import InputError, nearest, unknown

MIN_BITS, MAX_BITS = 2, 8
SCOPES = ("vision", "text", "both")

ControlKind = Literal["lowrank", "noise"]  # a model that errs as a quantized one does, but not by rounding

FLOAT_FORMATS = ("fp16", "bf16", "fp32")  # recorded outputs may be of a model that rounds to none but these

_WORDS = ("two", "three", "four", "five", "six", "seven", "eight")
_BITS = re.compile(r"w(\d+)(?:a(\d+))?", re.ASCII)


@dataclass(frozen=True)
class Bits:
    """The bit widths of a case, written `w4` or `w4a8`, or the format of recorded outputs, such as `fp16`."""

    weights: int
    activations: int | None = None  # None: activations stay in floating point
    name: str = field(default="", kw_only=True)  # of recorded outputs alone: one of FLOAT_FORMATS, or "unknown"

    def __str__(self) -> str:
        return self.name or f"w{self.weights}" + ("" if self.activations is None else f"a{self.activations}")

    @classmethod
    def of(cls, text: str) -> Bits:
        """Parse what recorded outputs or a record say of their bits: `w4`, `w4a8`, `fp16`, `bf16` or `fp32`.

        Raises:
            InputError: The text has another form. The message names the nearest valid form.
        """
        known = {str(bits): bits for bits in (*(cls(int(name[2:]), name=name) for name in FLOAT_FORMATS), UNKNOWN)}
        if text.strip().casefold() in known:
            return known[text.strip().casefold()]
        try:
            bits = cls.parse(text)
        except InputError as error:
            raise InputError(f"{error}; of recorded outputs also {', '.join(FLOAT_FORMATS)}") from None
        if isinstance(bits, int):
            raise InputError(f"{text!r} does not say of what; write w{bits} (weights only) or w{bits}a{bits}")
        return bits

    @classmethod
    def parse(cls, text: str) -> Bits | int:
        """Parse a bit width.

        Args:
            text: A form such as `w4`, `w4a8` or `4`, in lower or upper case.

        Returns:
            The widths of `w4` or `w4a8`. A bare `4` stays an integer, because its meaning depends on the quantizer.

        Raises:
            InputError: The text has another form, or a width is not between 2 and 8. The message names the nearest
                valid form.
        """
        match = _BITS.fullmatch(text.strip().casefold())
        bare = re.fullmatch(r"\d+", text.strip(), re.ASCII)
        if not match and not bare:
            raise InputError(
                f"{text!r} is no bit width;{_suggestion(text)} write 4 (the quantizer's default), w4 (weights "
                f"only) or w4a8 (weights and activations), each number from {MIN_BITS} to {MAX_BITS}"
            )
        numbers = [int(group) for group in (match.groups() if match else (text,)) if group is not None]
        for number in numbers:
            if not MIN_BITS <= number <= MAX_BITS:
                mended = text.strip().replace(str(number), str(min(max(number, MIN_BITS), MAX_BITS)), 1)
                raise InputError(
                    f"{number} bits in {text!r} is out of range: {MIN_BITS} to {MAX_BITS} are supported; "
                    f"did you mean {mended!r}?"
                )
        return numbers[0] if bare else cls(*numbers)


UNKNOWN = Bits(32, name="unknown")  # stands for the bits of recorded outputs that do not tell them


def _suggestion(text: str) -> str:
    word = text.strip().casefold()
    if word in _WORDS:
        return f" did you mean '{_WORDS.index(word) + MIN_BITS}'?"
    widths = [str(width) for width in range(MIN_BITS, MAX_BITS + 1)]
    forms = [*widths, *(f"w{w}" for w in widths), *(f"w{w}a{a}" for w in widths for a in widths)]
    near = nearest(word, forms)
    return f" did you mean {near!r}?" if near else ""


def parse_scope(text: str) -> str:
    """Return the scope, or raise InputError with the nearest valid one."""
    if text not in SCOPES:
        raise unknown("scope", text, SCOPES)
    return text


@dataclass(frozen=True, kw_only=True)
class Build:
    """A quantized model, whatever it is measured on."""

    model: str
    quantizer: str
    bits: Bits
    scope: str  # one of SCOPES
    calibration: str | None  # the benchmark with the images and prompts to calibrate on; None: no data are needed
    short_quantizer: str = field(default="", compare=False)  # without the folders that tell it from no other

    @property
    def id(self) -> str:
        """The name of the build in messages and caches."""
        return _identifier(self.model, self.quantizer, self.bits, self.scope, self.calibration)


@dataclass(frozen=True)
class Case:
    """A build on a benchmark, which is measured, gated and reported."""

    build: Build
    benchmark: str

    @property
    def id(self) -> str:
        """The name of the case in test ids, records and messages."""
        b = self.build
        return _identifier(b.model, b.quantizer, b.bits, b.scope, self.benchmark)

    @property
    def quantization(self) -> str:
        """The quantizer, bits and scope, for a row of a table."""
        b = self.build
        return f"{b.short_quantizer or b.quantizer} {b.bits}" + ("" if b.scope == "both" else f" {b.scope}")


def _identifier(model: str, quantizer: str, bits: Bits, scope: str, benchmark: str | None) -> str:
    # The scope shows where it is not the default. Only characters that pytest's -k takes as one word
    # are kept, so that `-k 'test_ood[ID]'` selects exactly one test.
    parts = [model, quantizer, str(bits), *([] if scope == "both" else [scope])]
    text = "/".join(parts if benchmark is None else [*parts, benchmark])
    return re.sub(r"[^\w:+./-]", "_", text, flags=re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """A way to quantize any model."""

    quantizer: str
    bits: Bits
    scope: str
    needs_data: bool  # whether it calibrates on data of the benchmark


def expand(models: Iterable[str], quantizations: Iterable[Quantization], benchmarks: Iterable[str]) -> list[Case]:
    """Return the cases of all combinations.

    Args:
        models: Names of models, distinct.
        quantizations: Ways to quantize them, distinct and in order.
        benchmarks: Names of benchmarks, distinct.

    Returns:
        The cases, ordered by model, quantization and benchmark, so that each build is made once.
    """
    quantizations = list(quantizations)
    short = _short_names({q.quantizer for q in quantizations})
    return [
        Case(
            Build(
                model=model,
                quantizer=q.quantizer,
                bits=q.bits,
                scope=q.scope,
                calibration=benchmark if q.needs_data else None,
                short_quantizer=short[q.quantizer],
            ),
            benchmark,
        )
        for model, q, benchmark in itertools.product(models, quantizations, benchmarks)
    ]


def _short_names(names: Set[str]) -> dict[str, str]:
    """Return names with as few folders of their paths as tell one from another."""

    def shortened(name: str, parts: int) -> str:
        head, colon, path = name.partition(":")
        if head not in ("artifact", "recorded"):
            return name
        return head + colon + "/".join(path.split("/")[-parts:])

    found: dict[str, str] = {}
    for name in names:
        others, parts = names - {name}, 1
        while parts <= name.count("/") and shortened(name, parts) in {shortened(other, parts) for other in others}:
            parts += 1
        found[name] = shortened(name, parts)
    return found
