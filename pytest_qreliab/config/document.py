"""Reading YAML into a pydantic model, with the line of every key kept for error messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from pytest_qreliab.errors import InputError, unknown

PACKAGE = Path(__file__).resolve().parent.parent


class Strict(BaseModel):
    """Base of every schema: no unknown keys (the nearest valid one is named), no type guessing."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict) and cls.model_config["extra"] == "forbid":
            for key in data:
                if key not in cls.model_fields:
                    message = str(unknown("key", str(key), cls.model_fields))
                    raise PydanticCustomError("unknown_key", "{message}", {"message": message, "key": key})
        return data


# Where the files of each kind lie: in the source tree beside the package, in the wheel inside it.
FOLDERS = {"benchmarks": "benchmarks", "suites": "benchmarks/suites", "thresholds": "thresholds"}


def shipped(kind: str) -> dict[str, Path]:
    """Return the YAML files of a kind (`benchmarks`, `suites`, `thresholds`) that the package ships, by name."""
    folder = next(root / FOLDERS[kind] for root in (PACKAGE, PACKAGE.parent) if (root / FOLDERS[kind]).is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(kind: str, name: str, folder: Path | None = None) -> Path:
    """The YAML file of a shipped name of that kind (`benchmarks`, `suites`, `thresholds`), or of a path.

    A relative path starts in `folder`, by default the working directory. Raises InputError, with the nearest
    shipped name, when there is no such file.
    """
    known = shipped(kind)
    if name in known:
        return known[name]
    path = (folder or Path.cwd()) / Path(name).expanduser()
    if path.is_file():
        return path.absolute()
    what = {"benchmarks": "benchmark", "suites": "suite", "thresholds": "thresholds file"}[kind]
    hint = f"or the path of a YAML file ({path.absolute()} does not exist)"
    raise unknown(what, name, known, hint=hint)


ModelT = TypeVar("ModelT", bound=BaseModel)
Location = tuple[str | int, ...]


class Place(NamedTuple):
    path: Path
    line: int


@dataclass(frozen=True)
class Document:
    """A parsed YAML file: plain data, and where every key and item stands, by 1-based line.

    Parts of it may come from other files, which it extends.
    """

    path: Path
    data: Any
    places: dict[Location, Place]

    def place(self, location: Location = ()) -> Place:
        """That of the innermost part of `location` that was written down."""
        return self.places.get(self._written(location), Place(self.path, 1))

    def _written(self, location: Location) -> Location:
        """The parts of `location` that were written down; pydantic puts the branches of a union between them."""
        found: Location = ()
        for part in location:
            if (*found, part) in self.places:
                found = (*found, part)
        return found

    def where(self, location: Location = ()) -> str:
        """`file:line` of the innermost part of `location` that was written down."""
        place = self.place(location)
        return f"{shown(place.path)}:{place.line}"

    def over(self, base: Document) -> Document:
        """This document on top of `base`, whose data it extends.

        Mappings are merged key by key, other values take the place of the base's, and so does a mapping with
        `source`. A null takes the key out. Raises InputError for a null where there is nothing to take out.
        """
        places = dict(base.places)

        def drop(at: Location) -> None:
            for location in [known for known in places if known[: len(at)] == at]:
                del places[location]

        def merge(below: dict[Any, Any], above: dict[Any, Any], at: Location) -> dict[Any, Any]:
            merged = dict(below)
            for key, value in above.items():
                here = (*at, key)
                if value is None:
                    if key not in merged:
                        hint = unknown("key", str(key), map(str, merged), hint="null takes out what is extended")
                        raise InputError(f"{self.where(here)}: {hint}")
                    del merged[key]
                    drop(here)
                elif isinstance(value, dict) and isinstance(merged.get(key), dict) and "source" not in value:
                    places[here] = self.places[here]
                    merged[key] = merge(merged[key], value, here)
                else:
                    drop(here)
                    places.update({known: at for known, at in self.places.items() if known[: len(here)] == here})
                    merged[key] = value
            return merged

        return Document(self.path, merge(base.data, self.data, ()), places)

    def validate(self, schema: type[ModelT], part: Any = None, within: Location = ()) -> ModelT:
        """The data, or a `part` of it that lies `within`, as `schema`. Raises InputError with every problem's line."""
        try:
            return schema.model_validate(self.data if part is None else part)
        except ValidationError as error:
            raise InputError("\n".join(self._problems(error, within))) from None

    def _problems(self, error: ValidationError, within: Location) -> Iterator[str]:
        """What is wrong, a line for each place."""
        found: dict[tuple[Location, Any], list[Any]] = {}
        for item in error.errors():
            absent = item["loc"][-1:] if item["type"] == "missing" else ()
            at = (*self._written((*within, *item["loc"])), *absent)
            found.setdefault((at, item.get("ctx", {}).get("key")), []).append(item)
        for (at, key), items in found.items():
            deeper = any(other[: len(at)] == at != other for other, _ in found)
            if deeper and all(item["type"].endswith(("_type", "literal_error")) for item in items):
                continue  # it is of another branch of a union than the one that was meant
            reasons: list[str] = []
            valid: list[str] = []
            for item in items:
                context = item.get("ctx", {})
                choices = re.findall("'([^']+)'", context.get("expected", "") + context.get("expected_tags", ""))
                valid += choices
                if item["type"] == "union_tag_not_found":
                    reasons.append("`source:` is missing: where the images come from")
                elif not choices:
                    reasons.append(item["msg"].removeprefix("Value error, "))
            if valid:
                given, what = items[0]["input"], "value"
                if items[0]["type"] == "union_tag_invalid":
                    given, what = items[0]["ctx"]["tag"], "source"
                reasons.insert(0, str(unknown(what, str(given), set(valid))))
            name = "".join(f"{part}." for part in at)[:-1]
            where = self.where(at if key is None else (*at, key))
            yield f"{where}: {name + ': ' if name else ''}{'; or '.join(dict.fromkeys(reasons))}"


def shown(path: Path) -> str:
    """A path as users know it: below the working directory, inside the package, or absolute."""
    for base, prefix in ((Path.cwd(), ""), (PACKAGE, PACKAGE.name)):
        if path.is_relative_to(base):
            return str(Path(prefix) / path.relative_to(base))
    return str(path)


def read(path: Path) -> Document:
    """Parse a YAML file. Raises InputError for an unreadable file, bad YAML, a repeated key, no mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{shown(path)}: cannot be read: {reason}") from None
    lines: dict[Location, int] = {}
    try:
        loader = yaml.SafeLoader(text)
        data = _construct(loader, loader.get_single_node(), (), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise InputError(f"{shown(path)}:{line}: not valid YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{shown(path)}:{line}: not valid YAML: {error.reason}") from None
    except RecursionError:
        raise InputError(f"{shown(path)}:1: an alias refers to itself, or the nesting is too deep") from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else type(data).__name__
        raise InputError(f"{shown(path)}:1: expected a mapping of keys, found {found}")
    return Document(path, data, {location: Place(path, line) for location, line in lines.items()})


_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


def _construct(loader: yaml.SafeLoader, node: yaml.Node | None, at: Location, lines: dict[Location, int]) -> Any:
    if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN_TAGS:
        raise yaml.MarkedYAMLError(problem=f"the tag {node.tag!r} is not allowed", problem_mark=node.start_mark)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = _construct(loader, key_node, (), {})
            mark = key_node.start_mark
            if not isinstance(key, str | int) or isinstance(key, bool):
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} is no plain word; quote it", problem_mark=mark)
            if key in mapping:
                first = lines[(*at, key)]
                raise yaml.MarkedYAMLError(problem=f"{key!r} is given twice, first on line {first}", problem_mark=mark)
            lines[(*at, key)] = mark.line + 1
            mapping[key] = _construct(loader, value_node, (*at, key), lines)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            lines[(*at, index)] = item.start_mark.line + 1
            items.append(_construct(loader, item, (*at, index), lines))
        return items
    if node is None:
        return None
    try:
        return loader.construct_object(node, deep=True)
    except (ValueError, OverflowError) as error:  # as of a date that is none
        raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from None
