"""Benchmarks: class names, prompts and image sets, read from YAML."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from pytest_qreliab.config.document import Document, Location, Strict, find, read
from pytest_qreliab.errors import InputError

RESERVED = ("near", "far")  # as the name of an OOD set: the means over the near and over the far sets have it

Limit = Annotated[int, Field(ge=1)]


class Digits(Strict):
    """scikit-learn's handwritten digits; the `test` part was never shown to `tiny-digits`."""

    source: Literal["digits"]
    part: Literal["train", "test"]
    limit: Limit | None = None


class Letters(Strict):
    """Letters drawn in the digits' format."""

    source: Literal["letters"]
    limit: Limit | None = None


class PhotoPatches(Strict):
    """Patches of scikit-learn's two photographs."""

    source: Literal["photo-patches"]
    limit: Limit | None = None


class ImageFolder(Strict):
    """A folder with one folder of images per class. `path` is relative to the YAML file; ~ and $NAME expand."""

    source: Literal["image-folder"]
    path: str
    limit: Limit | None = None


class FlatFolder(Strict):
    """A folder of images without classes. `path` is relative to the YAML file; ~ and $NAME expand."""

    source: Literal["flat-folder"]
    path: str
    limit: Limit | None = None


Labelled = Annotated[Digits | ImageFolder, Field(discriminator="source")]
Source = Annotated[Digits | Letters | PhotoPatches | ImageFolder | FlatFolder, Field(discriminator="source")]
Word = Annotated[str, Field(pattern=r"\S")]
SetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class Ood(Strict):
    near: dict[SetName, Source] = {}
    far: dict[SetName, Source] = {}


class Definition(Strict):
    """The schema of a benchmark file, version 1. `negatives` are labels of nothing that is in the distribution."""

    version: Literal[1]
    description: str = ""
    classes: list[str] | dict[str, str] | None = None
    negatives: Annotated[list[Word], Field(min_length=1)] | None = None
    templates: list[str] = Field(default=["a photo of a {}."], min_length=1)
    in_distribution: Labelled
    calibration: Source | None = None
    ood: Ood = Ood()

    @field_validator("templates")
    @classmethod
    def _one_place_each(cls, templates: list[str]) -> list[str]:
        for template in templates:
            if template.count("{}") != 1:
                raise ValueError(f"the template {template!r} needs {{}} once, where the class name goes")
        return templates

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: list[str] | dict[str, str] | None) -> list[str] | dict[str, str] | None:
        names = list(classes.values() if isinstance(classes, dict) else classes or [])
        repeated = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
        if repeated:
            raise ValueError(f"class names given twice: {', '.join(sorted(repeated))}")
        if classes is not None and len(names) < 2:
            raise ValueError("give at least two classes")
        return classes


@dataclass(frozen=True)
class Benchmark:
    """A benchmark file that was found and is valid; `name` is the file's stem."""

    name: str
    definition: Definition
    document: Document

    @classmethod
    def load(cls, name: str, folder: Path | None = None) -> Benchmark:
        """The benchmark of a shipped name or a YAML path, relative to `folder`. Raises InputError with the line."""
        document = read(find("benchmarks", name, folder))
        definition = document.validate(Definition)
        for kind in RESERVED:
            for name in definition.ood.near if kind == "near" else definition.ood.far:
                if name in RESERVED:
                    raise InputError(
                        f"{document.where(('ood', kind, name))}: {name!r} stands for the mean over all {name} sets; "
                        "give the OOD set another name"
                    )
        both = sorted(set(definition.ood.near) & set(definition.ood.far))
        if both:
            where = document.where(("ood", "far", both[0]))
            raise InputError(f"{where}: the OOD set {both[0]!r} is also in 'near'; names are for one set each")
        return cls(document.path.stem, definition, document)

    @property
    def ood_sets(self) -> dict[str, Source]:
        """Near sets, then far sets."""
        return {**self.definition.ood.near, **self.definition.ood.far}

    @property
    def aspects(self) -> frozenset[str]:
        """The aspects that it can measure."""
        always = {"accuracy", "calibration", "spectrum"}
        return frozenset(always | {"ood"} if self.ood_sets else always)

    def folder(self, source: ImageFolder | FlatFolder) -> Path:
        """Where a folder source points to."""
        path = Path(os.path.expandvars(source.path)).expanduser()
        return path if path.is_absolute() else self.document.path.parent / path

    def where(self, location: Location) -> str:
        return self.document.where(location)
