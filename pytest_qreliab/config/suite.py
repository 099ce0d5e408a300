"""Suite files: what to run, in one file for many options.

A suite also names quantizers with parameters of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from pytest_qreliab.config import document as documents
from pytest_qreliab.config.cases import Case
from pytest_qreliab.config.document import Document, Location, Strict, read
from pytest_qreliab.config.settings import NO_SUITE, SettingValue
from pytest_qreliab.config.sources import PlainName
from pytest_qreliab.config.thresholds import Match
from pytest_qreliab.errors import InputError

Names = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


def _width_text(value: object) -> str:
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise PydanticCustomError("bits", "write a format such as 4, w4, w4a8 or fp8")
    return str(value)


Width = Annotated[str, BeforeValidator(_width_text)]  # YAML reads a bare 4 as a number


class Variant(Strict, extra="allow"):
    """A quantizer with parameters of its own, under a new name; its other keys are the parameters."""

    name: PlainName
    quantizer: str


def _entry_tag(value: object) -> str | None:
    return "name" if isinstance(value, str) else "variant" if isinstance(value, dict) else None


QuantizerEntry = Annotated[
    Annotated[str, Tag("name")] | Annotated[Variant, Tag("variant")],
    Discriminator(
        _entry_tag,
        custom_error_type="quantizer",
        custom_error_message="give a quantizer's name, or a mapping with name, quantizer and its parameters",
    ),
]


class Group(Strict):
    """Cases that are held to thresholds of their own."""

    match: Match
    thresholds: str


class SuiteSchema(Strict):
    """The schema of a suite file, version 1. What is left out is at its default.

    Cases that an entry of `exclude` matches are not run. The first of `groups` that matches a case says what its
    thresholds are.
    """

    version: Literal[1]
    models: Names | None = None
    quantizers: Annotated[list[QuantizerEntry], Field(min_length=1)] | None = None
    bits: Annotated[list[Width], Field(min_length=1)] | None = None
    scopes: Names | None = None
    benchmarks: Names | None = None
    thresholds: str | None = None
    controls: str | None = None
    figures: str | None = None
    device: str | None = None
    deterministic: bool | None = None
    exclude: list[Match] = []
    groups: list[Group] = []


def find(name: str, folder: Path | None = None) -> Path:
    """Return the path of a suite file.

    Args:
        name: A name that the package ships, or a path.
        folder: Where a relative path starts, by default the working directory.

    Raises:
        InputError: There is no such file.
    """
    try:
        return documents.find("suites", name, folder)
    except InputError as error:
        raise InputError(f"{error}; or {NO_SUITE}") from None


@dataclass(frozen=True)
class Suite:
    """A valid suite file, with names that are not checked yet."""

    definition: SuiteSchema
    document: Document

    @classmethod
    def load(cls, path: Path) -> Suite:
        """Load a suite, or raise InputError with file and line."""
        document = read(path)
        return cls(document.validate(SuiteSchema), document)

    def values(self, axis: str) -> list[SettingValue]:
        """Return the values of a setting with their lines, or none."""
        entries = getattr(self.definition, axis) or []
        if entries is True:
            entries = "yes"
        if isinstance(entries, str):
            return [self._value(entries, (axis,))]
        names = (entry.name if isinstance(entry, Variant) else entry for entry in entries)
        return [self._value(name, (axis, index)) for index, name in enumerate(names)]

    def without_excluded(self, cases: Sequence[Case]) -> list[Case]:
        """Return the cases that are not excluded, or raise InputError for none."""
        kept = list(cases)
        for index, match in enumerate(self.definition.exclude):
            left = [case for case in kept if not match.matches(case)]
            if not left:
                raise InputError(f"{self.document.where(('exclude', index))}: nothing is left to run")
            kept = left
        return kept

    def groups(self) -> list[tuple[Match, SettingValue]]:
        """Return the patterns of each group with its thresholds."""
        return [
            (group.match, self._value(group.thresholds, ("groups", index, "thresholds")))
            for index, group in enumerate(self.definition.groups)
        ]

    def _value(self, text: str, at: Location) -> SettingValue:
        return SettingValue(text, self.document.where(at), self.document.path.parent)
