"""Benchmark files: class names, prompts and image sets in YAML."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from pytest_qreliab.config.corruption_kinds import EXTRA_KINDS, STANDARD_KINDS, ExtraName, StandardName
from pytest_qreliab.config.document import Document, Location, Strict, display_path, find, read
from pytest_qreliab.config.set_names import (
    CALIBRATION,
    CAPTIONS,
    IN_DISTRIBUTION,
    SHIFT,
    SPURIOUS,
    corruption_cell,
    ood_set,
)
from pytest_qreliab.config.sources import (
    AnyCaptions,
    AnyLabelled,
    AnySource,
    Calibrating,
    CaptionedImages,
    Count,
    HeldOut,
    InDistribution,
    Labelled,
    PlainName,
    Recorded,
    Source,
    Word,
)
from pytest_qreliab.errors import InputError

RESERVED = ("near", "far")  # no names for an OOD set: they stand for the means over the near and the far sets
RECORDED = "recorded:"  # goes before the path of recorded outputs, in place of a name
COMMON, COUNTER = "common", "counter"
LONGEST_NAME = 255  # bytes of a file's name, on all systems

CorruptionKind = StandardName | ExtraName
Severity = Annotated[int, Field(ge=1, le=5)]

STANDARD: tuple[CorruptionKind, ...] = tuple(STANDARD_KINDS)
KINDS: tuple[CorruptionKind, ...] = (*STANDARD, *EXTRA_KINDS)


class Corruptions(Strict):
    """A grid of kinds and severities, each over the same in-distribution images, `limit` of them.

    They are made on the fly; or they lie where `source` says, with `{kind}` and `{severity}` in its paths.
    """

    kinds: Annotated[list[CorruptionKind], Field(min_length=1)] | Literal["standard", "all"] = "standard"
    severities: Annotated[list[Severity], Field(min_length=1)] = [1, 2, 3, 4, 5]
    limit: Count | None = None
    source: Labelled | None = None

    @property
    def cells(self) -> list[tuple[CorruptionKind, int]]:
        """Every kind at every severity, in order."""
        kinds = {"standard": STANDARD, "all": KINDS}[self.kinds] if isinstance(self.kinds, str) else self.kinds
        return [(kind, severity) for kind in dict.fromkeys(kinds) for severity in sorted(set(self.severities))]

    @model_validator(mode="after")
    def _placeholders(self) -> Corruptions:
        if self.source is not None:
            if self.source.limit is not None:
                raise ValueError("write `limit` beside `source`, not in it: it is that of each cell")
            text = " ".join(value for value in self.source.model_dump().values() if isinstance(value, str))
            for name, cells in (("{kind}", {k for k, _ in self.cells}), ("{severity}", {s for _, s in self.cells})):
                if name not in text and len(cells) > 1:
                    raise ValueError(f"the source needs {name} in its path, where the files of each lie")
        return self


def cell_source(source: AnyLabelled, kind: str, severity: int) -> AnyLabelled:
    """Return a source with `{kind}` and `{severity}` filled in."""
    filled = {
        key: value.replace("{kind}", kind).replace("{severity}", str(severity)) if isinstance(value, str) else value
        for key, value in source.model_dump().items()
    }
    return type(source).model_validate(filled)


class SpuriousSets(Strict):
    """Images where a spurious cue is as usual (`common`) and where it misleads (`counter`); or groups of any kind."""

    common: Labelled | None = None
    counter: Labelled | None = None
    groups: dict[PlainName, Labelled] = {}

    @model_validator(mode="after")
    def _complete(self) -> SpuriousSets:
        if (self.common is None) != (self.counter is None):
            raise ValueError("common and counter are compared with each other: give both")
        if self.common is None and len(self.groups) < 2:
            raise ValueError("give common and counter, or at least two groups")
        return self


class Ood(Strict):  # noqa: D101 (its docstring would be a new description in the shipped schema)
    near: dict[PlainName, Source] = {}
    far: dict[PlainName, Source] = {}


class Preprocessing(Strict):
    """What is other than in the model's own preprocessing, in open_clip's terms. `fill` is the grey that pads an image
    whose longest side is resized, 0 to 255; `mean` and `std` are of pixels in [0, 1], red, green, blue.
    """

    resize: Literal["shortest", "longest", "squash"] | None = None
    interpolation: Literal["bicubic", "bilinear"] | None = None
    mean: Annotated[list[float], Field(min_length=3, max_length=3)] | None = None
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)] | None = None
    fill: Annotated[int, Field(ge=0, le=255)] | None = None


class BenchmarkSchema(Strict):
    """The schema of a benchmark file, version 1.

    `classes` are names, or keys (folders, say) with names, or a file or built-in set of such; `class_keys` are the keys
    of those that the benchmark has, in label order: a list, a file or a built-in set. `negatives` are labels of nothing
    that is in the distribution. `seed` is that of every draw and of the corruptions.
    """

    version: Literal[1]
    extends: Word | Annotated[list[Word], Field(min_length=1)] | None = None
    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    classes: list[Word] | dict[str, Word] | Word | None = None
    class_keys: Annotated[list[Word], Field(min_length=1)] | Word | None = None
    negatives: Annotated[list[Word], Field(min_length=1)] | None = None
    templates: Annotated[list[str], Field(min_length=1)] | Word = ["a photo of a {}."]
    preprocessing: Preprocessing = Preprocessing()
    in_distribution: InDistribution
    covariate_shift: dict[PlainName, Labelled] = {}
    corruptions: Corruptions | None = None
    spurious: SpuriousSets | None = None
    ood: Ood = Ood()
    calibration: Calibrating | None = None

    @field_validator("calibration", mode="before")
    @classmethod
    def _captions_alone(cls, calibration: Any) -> Any:
        if isinstance(calibration, dict) and "captions" in calibration:
            return {"source": "captioned", **calibration}
        return calibration

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
            others = (
                "classes",
                "class_keys",
                "negatives",
                "covariate_shift",
                "corruptions",
                "spurious",
                "ood",
                "calibration",
            )
            superfluous = [name for name in others if name in self.model_fields_set]
            if superfluous:
                raise ValueError(f"the recorded file says what {', '.join(superfluous)} are; leave them out")
        return self


def check_templates(templates: list[str]) -> None:
    """Raise ValueError if a template does not have `{}` once."""
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"the template {template!r} needs {{}} once, where the class name goes")


def check_names(names: list[str]) -> None:
    """Raise ValueError for a repeated class name, or fewer than two."""
    repeated = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    if repeated:
        raise ValueError(f"class names given twice: {', '.join(sorted(repeated))}")
    if len(names) < 2:
        raise ValueError("give at least two classes")


class SetSource(NamedTuple):
    """The source of one image set of a benchmark."""

    name: str  # the full name of the set
    source: AnySource | HeldOut | AnyCaptions | Recorded
    at: Location  # where the source is written


@dataclass(frozen=True)
class Benchmark:
    """A valid benchmark file."""

    name: str  # the file's name without `.yaml`
    definition: BenchmarkSchema
    document: Document

    @classmethod
    def load(cls, name: str, folder: Path | None = None) -> Benchmark:
        """Load a benchmark.

        Args:
            name: A name that the package ships, the path of a YAML file, or `recorded:PATH`.
            folder: Where a relative path starts, by default the working directory.

        Raises:
            InputError: The file does not exist or is not valid. The message has file and line.
        """
        if name.startswith(RECORDED):
            path = (folder or Path.cwd()) / Path(name.removeprefix(RECORDED)).expanduser()
            data = {"version": 1, "in_distribution": {"source": "recorded", "path": str(path)}}
            return cls(path.stem, BenchmarkSchema.model_validate(data), Document(path, data, {}))
        document = _extended(read(find("benchmarks", name, folder)), ())
        if "in_distribution" not in document.data:
            raise InputError(f"{document.where()}: in_distribution: is missing: the labelled images to measure on")
        definition = document.validate(BenchmarkSchema)
        _check_ood_names(definition.ood, document)
        groups = definition.spurious.groups if definition.spurious else {}
        for reserved in (COMMON, COUNTER):
            if reserved in groups:
                where = document.where(("spurious", "groups", reserved))
                raise InputError(f"{where}: {reserved!r} is no name of a group; write it beside `groups:`")
        found = cls(document.path.stem, definition, document)
        for _, source, at in found.sources():
            if at[:1] != (CALIBRATION,) and getattr(source, CAPTIONS, None) is not None:
                where = document.where((*at, CAPTIONS))
                raise InputError(f"{where}: `captions` are for quantizers to look at: write them in `calibration:`")
        return found

    @cached_property
    def aspects(self) -> frozenset[str]:
        """The aspects that the benchmark may measure.

        Recorded outputs may have all of them: only their own file says which image sets it holds.
        """
        definition = self.definition
        measurable = {"accuracy", "calibration", "spectrum"}
        recorded = isinstance(definition.in_distribution, Recorded)
        if recorded or definition.ood.near or definition.ood.far:
            measurable.add("ood")
        if recorded or definition.covariate_shift or definition.corruptions or definition.spurious:
            measurable.add("robustness")
        return frozenset(measurable)

    def path(self, text: str, at: Location) -> Path:
        """Return a path in the file, with `~` and variables expanded.

        Args:
            text: The path as it is written.
            at: The location that it is written at. A relative path starts in the folder of that file.

        Raises:
            InputError: A variable is not set. The message does not name the line.
        """
        expanded = os.path.expandvars(text)
        if left := re.search(r"\$\{?([A-Za-z_]\w*)", expanded):
            raise InputError(
                f"the environment variable {left[1]}, in {text!r}, is not set; it says where the data lie, as in "
                f"export {left[1]}=~/data"
            )
        path = Path(expanded).expanduser()
        if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
            raise InputError(f"{text[:40]!r} ... is too long for the path of a file")
        return path if path.is_absolute() else self.document.place(at).path.parent / path

    def where(self, location: Location = ()) -> str:
        """Return `file:line` of a location in the file."""
        return self.document.where(location)

    def sources(self) -> Iterator[SetSource]:
        """Yield the source of each image set.

        Corruptions that lie in files come cell by cell. Those that are generated are left out.
        """
        definition = self.definition
        yield SetSource(IN_DISTRIBUTION, definition.in_distribution, (IN_DISTRIBUTION,))
        for name, source in definition.covariate_shift.items():
            yield SetSource(f"{SHIFT}{name}", source, ("covariate_shift", name))
        if definition.corruptions is not None and definition.corruptions.source is not None:
            for kind, severity in definition.corruptions.cells:
                cell = cell_source(definition.corruptions.source, kind, severity)
                yield SetSource(corruption_cell(kind, severity), cell, ("corruptions", "source"))
        if definition.spurious is not None:
            for name in (COMMON, COUNTER):
                if (pair := getattr(definition.spurious, name)) is not None:
                    yield SetSource(f"{SPURIOUS}{name}", pair, ("spurious", name))
            for name, source in definition.spurious.groups.items():
                yield SetSource(f"{SPURIOUS}{name}", source, ("spurious", "groups", name))
        for nearness, sets in (("near", definition.ood.near), ("far", definition.ood.far)):
            for name, ood in sets.items():
                yield SetSource(ood_set(name, near=nearness == "near"), ood, ("ood", nearness, name))
        calibration = definition.calibration
        if calibration is not None:
            if not isinstance(calibration, CaptionedImages):
                yield SetSource(CALIBRATION, calibration, (CALIBRATION,))
            if calibration.captions is not None:
                yield SetSource(CAPTIONS, calibration.captions, (CALIBRATION, CAPTIONS))


def _check_ood_names(ood: Ood, document: Document) -> None:
    for kind, sets in (("near", ood.near), ("far", ood.far)):
        for name in sets:
            if name in RESERVED:
                raise InputError(
                    f"{document.where(('ood', kind, name))}: {name!r} stands for the mean over all {name} sets; "
                    "give the OOD set another name"
                )
    both = sorted(set(ood.near) & set(ood.far))
    if both:
        where = document.where(("ood", "far", both[0]))
        raise InputError(f"{where}: the OOD set {both[0]!r} is also in 'near'; names are for one set each")


def _extended(document: Document, above: tuple[Path, ...]) -> Document:
    """Return the document laid over those it extends, the first lowest."""
    given = document.data.get("extends")
    names = [given] if isinstance(given, str) else given or []
    if document.path in above:
        raise InputError(f"{document.where(('extends',))}: {display_path(document.path)} extends itself")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return document  # for the schema to refuse
    base: Document | None = None
    for index, name in enumerate(names):
        try:
            below = read(find("benchmarks", name, document.path.parent))
        except InputError as error:
            raise InputError(f"{document.where(('extends', index))}: {error}") from None
        below = _extended(below, (*above, document.path))
        base = below if base is None else below.overlay(base)
    return document if base is None else document.overlay(base)
