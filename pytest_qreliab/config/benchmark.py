"""Benchmarks: class names, prompts and image sets, read from YAML."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pytest_qreliab.config.document import Document, Location, Strict, find, read, shown
from pytest_qreliab.config.sources import (
    AnyLabelled,
    AnySource,
    Calibrating,
    Count,
    HeldOut,
    InDistribution,
    Labelled,
    Recorded,
    SetName,
    Source,
    Word,
)
from pytest_qreliab.errors import InputError

RESERVED = ("near", "far")  # as the name of an OOD set: the means over the near and over the far sets have it
RECORDED = "recorded:"  # before the path of recorded outputs, where a name is asked for
COMMON, COUNTER = "common", "counter"

Standard = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
]
Kind = Standard | Literal["speckle_noise", "gaussian_blur", "spatter", "saturate"]
Severity = Annotated[int, Field(ge=1, le=5)]

STANDARD: tuple[Kind, ...] = Standard.__args__  # type: ignore[attr-defined]
KINDS: tuple[Kind, ...] = (*STANDARD, *Kind.__args__[1].__args__)


class Corruptions(Strict):
    """A grid of kinds and severities, each over the same in-distribution images, `limit` of them.

    They are made on the fly; or they lie where `source` says, with `{kind}` and `{severity}` in its paths.
    """

    kinds: Annotated[list[Kind], Field(min_length=1)] | Literal["standard", "all"] = "standard"
    severities: Annotated[list[Severity], Field(min_length=1)] = [1, 2, 3, 4, 5]
    limit: Count | None = None
    source: Labelled | None = None

    @property
    def cells(self) -> list[tuple[Kind, int]]:
        """Every kind at every severity."""
        kinds = {"standard": STANDARD, "all": KINDS}[self.kinds] if isinstance(self.kinds, str) else self.kinds
        return [(kind, severity) for kind in dict.fromkeys(kinds) for severity in sorted(set(self.severities))]

    def published(self, kind: str, severity: int) -> AnyLabelled:
        """The source of one cell of a grid that lies somewhere."""
        assert self.source is not None
        given = {
            key: value.replace("{kind}", kind).replace("{severity}", str(severity)) if isinstance(value, str) else value
            for key, value in self.source.model_dump().items()
        }
        return type(self.source).model_validate(given)

    @model_validator(mode="after")
    def _placeholders(self) -> Corruptions:
        if self.source is not None:
            text = " ".join(value for value in self.source.model_dump().values() if isinstance(value, str))
            for name, cells in (("{kind}", {k for k, _ in self.cells}), ("{severity}", {s for _, s in self.cells})):
                if name not in text and len(cells) > 1:
                    raise ValueError(f"the source needs {name} in its path, where the files of each lie")
        return self


class SpuriousSets(Strict):
    """Images where a spurious cue is as usual (`common`) and where it misleads (`counter`); or groups of any kind."""

    common: Labelled | None = None
    counter: Labelled | None = None
    groups: dict[SetName, Labelled] = {}

    @model_validator(mode="after")
    def _complete(self) -> SpuriousSets:
        if (self.common is None) != (self.counter is None):
            raise ValueError("common and counter are compared with each other: give both")
        if self.common is None and len(self.groups) < 2:
            raise ValueError("give common and counter, or at least two groups")
        return self


class Ood(Strict):
    near: dict[SetName, Source] = {}
    far: dict[SetName, Source] = {}


class Preprocessing(Strict):
    """What is other than in the model's own preprocessing, in open_clip's terms. `fill` is the grey that pads an image
    whose longest side is resized, 0 to 255; `mean` and `std` are of pixels in [0, 1], red, green, blue."""

    resize: Literal["shortest", "longest", "squash"] | None = None
    interpolation: Literal["bicubic", "bilinear"] | None = None
    mean: Annotated[list[float], Field(min_length=3, max_length=3)] | None = None
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)] | None = None
    fill: Annotated[int, Field(ge=0, le=255)] | None = None


class BenchmarkSchema(Strict):
    """The schema of a benchmark file, version 1.

    `classes` are names, or keys (folders, say) with names, or a file or built-in set of such; `negatives` are labels of
    nothing that is in the distribution. `seed` is that of every draw and of the corruptions.
    """

    version: Literal[1]
    extends: Word | Annotated[list[Word], Field(min_length=1)] | None = None
    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    classes: list[Word] | dict[str, Word] | Word | None = None
    negatives: Annotated[list[Word], Field(min_length=1)] | None = None
    templates: Annotated[list[str], Field(min_length=1)] | Word = ["a photo of a {}."]
    preprocessing: Preprocessing = Preprocessing()
    in_distribution: InDistribution
    covariate_shift: dict[SetName, Labelled] = {}
    corruptions: Corruptions | None = None
    spurious: SpuriousSets | None = None
    ood: Ood = Ood()
    calibration: Calibrating | None = None

    @field_validator("templates")
    @classmethod
    def _one_place_each(cls, templates: list[str] | str) -> list[str] | str:
        if isinstance(templates, list):
            check_templates(templates)
        return templates

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: list[str] | dict[str, str] | str | None) -> list[str] | dict[str, str] | str | None:
        if isinstance(classes, list | dict):
            check_names(list(classes.values()) if isinstance(classes, dict) else classes)
        return classes

    @model_validator(mode="after")
    def _recorded_alone(self) -> BenchmarkSchema:
        if isinstance(self.in_distribution, Recorded):
            others = ("classes", "negatives", "covariate_shift", "corruptions", "spurious", "ood", "calibration")
            given = [name for name in others if name in self.model_fields_set]
            if given:
                raise ValueError(f"the recorded file says what {', '.join(given)} are; leave them out")
        return self


def check_templates(templates: list[str]) -> None:
    """Raise ValueError for a template without one place for the class name."""
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"the template {template!r} needs {{}} once, where the class name goes")


def check_names(names: list[str]) -> None:
    """Raise ValueError for fewer than two class names, or for one given twice."""
    repeated = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    if repeated:
        raise ValueError(f"class names given twice: {', '.join(sorted(repeated))}")
    if len(names) < 2:
        raise ValueError("give at least two classes")


@dataclass(frozen=True)
class Benchmark:
    """A benchmark file that was found and is valid; `name` is the file's stem."""

    name: str
    definition: BenchmarkSchema
    document: Document

    @classmethod
    def load(cls, name: str, folder: Path | None = None) -> Benchmark:
        """The benchmark of a shipped name, a YAML path, or `recorded:PATH`, relative to `folder`.

        Raises InputError with the line.
        """
        if name.startswith(RECORDED):
            path = (folder or Path.cwd()) / Path(name.removeprefix(RECORDED)).expanduser()
            data = {"version": 1, "in_distribution": {"source": "recorded", "path": str(path)}}
            return cls(path.stem, BenchmarkSchema.model_validate(data), Document(path, data, {}))
        document = _extended(read(find("benchmarks", name, folder)), ())
        if "in_distribution" not in document.data:
            raise InputError(f"{document.where()}: in_distribution: is missing: the labelled images to measure on")
        definition = document.validate(BenchmarkSchema)
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
        groups = definition.spurious.groups if definition.spurious else {}
        for name in (COMMON, COUNTER):
            if name in groups:
                where = document.where(("spurious", "groups", name))
                raise InputError(f"{where}: {name!r} is no name of a group; write it beside `groups:`")
        return cls(document.path.stem, definition, document)

    @cached_property
    def aspects(self) -> frozenset[str]:
        """The aspects that it can measure, as far as the file says; of recorded outputs, their file does."""
        definition = self.definition
        found = {"accuracy", "calibration", "spectrum"}
        recorded = isinstance(definition.in_distribution, Recorded)
        if recorded or definition.ood.near or definition.ood.far:
            found.add("ood")
        if recorded or definition.covariate_shift or definition.corruptions or definition.spurious:
            found.add("robustness")
        return frozenset(found)

    def path(self, text: str, at: Location) -> Path:
        """The path written at `at`. Raises InputError, without the line, for a variable that is not set."""
        expanded = os.path.expandvars(text)
        if left := re.search(r"\$\{?([A-Za-z_]\w*)", expanded):
            raise InputError(
                f"the environment variable {left[1]}, in {text!r}, is not set; it says where the data lie, as in "
                f"export {left[1]}=~/data"
            )
        path = Path(expanded).expanduser()
        return path if path.is_absolute() else self.document.place(at).path.parent / path

    def where(self, location: Location = ()) -> str:
        return self.document.where(location)

    def sources(self) -> Iterator[tuple[str, AnySource | HeldOut | Recorded, Location]]:
        """Every image set by its name, with its source and where that is written. Published corruptions come cell by
        cell, generated ones not at all."""
        definition = self.definition
        yield "in_distribution", definition.in_distribution, ("in_distribution",)
        for name, source in definition.covariate_shift.items():
            yield f"shift.{name}", source, ("covariate_shift", name)
        if definition.corruptions is not None and definition.corruptions.source is not None:
            for kind, severity in definition.corruptions.cells:
                source = definition.corruptions.published(kind, severity)
                yield f"corruption.{kind}.{severity}", source, ("corruptions", "source")
        if definition.spurious is not None:
            for name in (COMMON, COUNTER):
                if (pair := getattr(definition.spurious, name)) is not None:
                    yield f"spurious.{name}", pair, ("spurious", name)
            for name, source in definition.spurious.groups.items():
                yield f"spurious.{name}", source, ("spurious", "groups", name)
        for nearness, sets in (("near", definition.ood.near), ("far", definition.ood.far)):
            for name, of_ood in sets.items():
                yield f"ood.{nearness}.{name}", of_ood, ("ood", nearness, name)
        if definition.calibration is not None:
            yield "calibration", definition.calibration, ("calibration",)


def _extended(document: Document, above: tuple[Path, ...]) -> Document:
    """The document on top of the benchmarks that it extends, the first of them lowest."""
    given = document.data.get("extends")
    names = [given] if isinstance(given, str) else given or []
    if document.path in above:
        raise InputError(f"{document.where(('extends',))}: {shown(document.path)} extends itself")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return document  # for the schema to refuse
    base: Document | None = None
    for index, name in enumerate(names):
        try:
            below = read(find("benchmarks", name, document.path.parent))
        except InputError as error:
            raise InputError(f"{document.where(('extends', index))}: {error}") from None
        below = _extended(below, (*above, document.path))
        base = below if base is None else below.over(base)
    return document if base is None else document.over(base)
