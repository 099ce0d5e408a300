"""Cases: bit widths, builds, cases and their names. Pure: no torch, no NumPy."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from pytest_qreliab.errors import InputError, nearest, unknown

MIN_BITS, MAX_BITS = 2, 8
SCOPES = ("vision", "text", "both")

_WORDS = ("two", "three", "four", "five", "six", "seven", "eight")
_BITS = re.compile(r"w(\d+)(?:a(\d+))?", re.ASCII)


@dataclass(frozen=True)
class Bits:
    """Bit widths of weights and, unless None, of activations; written `w4` or `w4a8`."""

    weights: int
    activations: int | None = None

    def __str__(self) -> str:
        return f"w{self.weights}" + ("" if self.activations is None else f"a{self.activations}")

    @classmethod
    def parse(cls, text: str) -> Bits | int:
        """Bits of `w4` / `w4a8`; a bare `4` stays an int, for the quantizer to say what it means.

        Raises InputError, which names the nearest valid form, for anything else or outside 2 to 8.
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


def _suggestion(text: str) -> str:
    word = text.strip().casefold()
    if word in _WORDS:
        return f" did you mean '{_WORDS.index(word) + MIN_BITS}'?"
    widths = [str(width) for width in range(MIN_BITS, MAX_BITS + 1)]
    forms = [*widths, *(f"w{w}" for w in widths), *(f"w{w}a{a}" for w in widths for a in widths)]
    near = nearest(word, forms)
    return f" did you mean {near!r}?" if near else ""


def parse_scope(text: str) -> str:
    if text not in SCOPES:
        raise unknown("scope", text, SCOPES)
    return text


@dataclass(frozen=True)
class Build:
    """One quantized model: what has to be built, whatever it is measured on.

    `calibration` names the benchmark whose calibration images and prompts set the activation ranges;
    None where the bits need none.
    """

    model: str
    quantizer: str
    bits: Bits
    scope: str
    calibration: str | None

    @property
    def id(self) -> str:
        return _identifier(self.model, self.quantizer, self.bits, self.scope, self.calibration)


@dataclass(frozen=True)
class Case:
    """One (model, quantizer, bits, scope, benchmark): the unit that is measured, gated and reported."""

    build: Build
    benchmark: str

    @property
    def id(self) -> str:
        b = self.build
        return _identifier(b.model, b.quantizer, b.bits, b.scope, self.benchmark)

    @property
    def quantization(self) -> str:
        """The quantizer's part of the case, for a row of a table."""
        b = self.build
        name = re.sub(r"^(artifact|recorded):.*/", r"\1:", b.quantizer)  # of a path the last part
        return f"{name} {b.bits}" + ("" if b.scope == "both" else f" {b.scope}")


def _identifier(model: str, quantizer: str, bits: Bits, scope: str, benchmark: str | None) -> str:
    # The scope shows where it is not the default. Only characters that pytest's -k takes as one word
    # are kept, so that `-k 'test_ood[ID]'` selects exactly one test.
    parts = [model, quantizer, str(bits), *([] if scope == "both" else [scope])]
    text = "/".join(parts if benchmark is None else [*parts, benchmark])
    return re.sub(r"[^\w:+./-]", "_", text, flags=re.ASCII)


def expand(
    models: Iterable[str],
    quantizations: Iterable[tuple[str, Bits, str, bool]],
    benchmarks: Iterable[str],
) -> list[Case]:
    """Every case, ordered by model, quantizer, bits, scope, benchmark, so that each build is made once.

    `quantizations` holds (quantizer, bits, scope, needs calibration data), distinct and in order.
    """
    return [
        Case(Build(model, quantizer, bits, scope, benchmark if needs_data else None), benchmark)
        for model, (quantizer, bits, scope, needs_data), benchmark in itertools.product(
            models, quantizations, benchmarks
        )
    ]
