"""Builds and cases, with the names that tests have.

This module is pure: it imports neither torch nor NumPy.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import Literal

from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import unknown

SCOPES = ("vision", "text", "both")

ControlKind = Literal["lowrank", "noise"]  # a model that errs as a quantized one does, but not by rounding


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
    bits: Format
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
        return self.quantization_at(str(self.build.bits))

    def quantization_at(self, bits: str) -> str:
        """Return the quantizer, bits and scope, for a row of a table, with the bits in other words."""
        b = self.build
        return f"{b.short_quantizer or b.quantizer} {bits}" + ("" if b.scope == "both" else f" {b.scope}")


def _identifier(model: str, quantizer: str, bits: Format, scope: str, benchmark: str | None) -> str:
    # The scope shows where it is not the default. Only characters that pytest's -k takes as one word
    # are kept, so that `-k 'test_ood[ID]'` selects exactly one test.
    parts = [model, quantizer, str(bits), *([] if scope == "both" else [scope])]
    text = "/".join(parts if benchmark is None else [*parts, benchmark])
    return re.sub(r"[^\w:+./-]", "_", text, flags=re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """A way to quantize any model."""

    quantizer: str
    bits: Format
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
