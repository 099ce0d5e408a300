"""YAML files as pydantic models, with lines for error messages."""

from __future__ import annotations

import os
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
    """Return the paths of the shipped YAML files, by name.

    Args:
        kind: `benchmarks`, `suites` or `thresholds`.
    """
    folder = next(root / FOLDERS[kind] for root in (PACKAGE, PACKAGE.parent) if (root / FOLDERS[kind]).is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(kind: str, name: str, folder: Path | None = None) -> Path:
    """Return the path of a YAML file.

    Args:
        kind: `benchmarks`, `suites` or `thresholds`.
        name: A name that the package ships, or a path.
        folder: Where a relative path starts, by default the working directory.

    Raises:
        InputError: There is no such file. The message names the nearest shipped name.
    """
    known = shipped(kind)
    if name in known:
        return known[name]
    path = (folder or Path.cwd()) / Path(name).expanduser()
    if os.path.isfile(path):  # noqa: PTH113 (the method raises OSError for a name that is too long)
        return path.absolute()
    what = {"benchmarks": "benchmark", "suites": "suite", "thresholds": "thresholds file"}[kind]
    hint = f"or the path of a YAML file ({path.absolute()} does not exist)"
    raise unknown(what, name, known, hint=hint)


ModelT = TypeVar("ModelT", bound=BaseModel)
Location = tuple[str | int, ...]


class Place(NamedTuple):
    """A line of a file, counted from 1."""

    path: Path
    line: int
    unquoted: str | None = None  # what is written there, if YAML reads it as a number, a date, yes, no or nothing


@dataclass(frozen=True)
class Document:
    """A parsed YAML file, with parts from the files that it extends."""

    path: Path
    data: Any  # plain mappings, lists and values
    places: dict[Location, Place]  # where every key and item stands

    def place(self, location: Location = ()) -> Place:
        """Return the place of the innermost part of `location` in the file."""
        return self.places.get(self._written(location), Place(self.path, 1))

    def _written(self, location: Location) -> Location:
        """Return `location` without the branches of unions that pydantic puts into it."""
        written: Location = ()
        for part in location:
            if (*written, part) in self.places:
                written = (*written, part)
        return written

    def where(self, location: Location = ()) -> str:
        """Return `file:line` of the innermost part of `location` in the file."""
        place = self.place(location)
        return f"{display_path(place.path)}:{place.line}"

    def overlay(self, base: Document) -> Document:
        """Return the base with this document laid over it.

        Mappings are merged key by key. Other values replace those of the base, and so does a mapping with a key
        `source`. A null removes the key.

        Args:
            base: The document that this one extends.

        Raises:
            InputError: There is nothing that a null could remove.
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
        """Return the data as an instance of a schema.

        Args:
            schema: The class of the result.
            part: A part of the data to validate; None stands for all of them.
            within: Where that part lies.

        Raises:
            InputError: The data do not fit. The message has a line for every problem, with file and line.
        """
        try:
            return schema.model_validate(self.data if part is None else part)
        except ValidationError as error:
            raise InputError("\n".join(self._problems(error, within))) from None

    def _problems(self, error: ValidationError, within: Location) -> Iterator[str]:
        """Yield a line of text for each place with a mistake."""
        found: dict[tuple[Location, Any], list[Any]] = {}
        for item in error.errors():
            absent = item["loc"][-1:] if item["type"] == "missing" else ()
            at = (*self._written((*within, *item["loc"])), *absent)
            found.setdefault((at, item.get("ctx", {}).get("key")), []).append(item)
        unquoted: dict[Location, list[Location]] = {}  # by what they are parts of
        for (at, key), items in found.items():
            deeper = any(other[: len(at)] == at != other for other, _ in found)
            types = [item["type"] for item in items]
            if deeper and all(kind.endswith(("_type", "literal_error")) for kind in types):
                continue  # the error belongs to a branch of a union that was not meant
            if "string_type" in types and self._unquoted(at) is not None:
                unquoted.setdefault(at[:-1], []).append(at)
                continue
            where = self.where(at if key is None else (*at, key))
            yield f"{where}: {_named(at)}{'; or '.join(dict.fromkeys(self._reasons(at, items)))}"
        for parent, places in unquoted.items():
            yield f"{self.where(places[0])}: {_named(places[0] if len(places) == 1 else parent)}{self._quote(places)}"

    def _reasons(self, at: Location, items: list[Any]) -> list[str]:
        """Return what is wrong at one place, in words."""
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
                given, what, at = items[0]["ctx"]["tag"], "source", (*at, "source")
            written = self._unquoted(at)
            reasons.insert(0, str(unknown(what, str(given) if written is None else written, set(valid))))
        return reasons

    def _unquoted(self, at: Location) -> str | None:
        return self.places[at].unquoted if at in self.places else None

    def _quote(self, places: list[Location]) -> str:
        """Say that texts have to be quoted, as YAML reads something else."""
        texts = [self._unquoted(place) or "" for place in places]
        shown = [text or "(nothing)" for text in texts[:5]]
        more = f" and {len(texts) - 5:,} more" if len(texts) > 5 else ""
        quoted = ", ".join(f'"{text}"' for text in texts[:2])
        return (
            f"YAML reads {', '.join(shown)}{more} as a number, a date, true, false or nothing; write text in quotes: "
            f"{quoted}{' ...' if len(texts) > 2 else ''}"
        )


def _named(at: Location) -> str:
    name = "".join(f"{part}." for part in at)[:-1]
    return f"{name}: " if name else ""


def display_path(path: Path) -> str:
    """Return a path as users know it.

    It starts in the working directory or with the name of the package, or is absolute.
    """
    for base, prefix in ((Path.cwd(), ""), (PACKAGE, PACKAGE.name)):
        if path.is_relative_to(base):
            return str(Path(prefix) / path.relative_to(base))
    return str(path)


def read(path: Path) -> Document:
    """Parse a YAML file.

    Raises:
        InputError: The file cannot be read, is no YAML, gives a key twice, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{display_path(path)}: cannot be read: {reason}") from None
    try:
        reader = _Reader(path, text)
        data = reader.construct(reader.loader.get_single_node(), ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise InputError(f"{display_path(path)}:{line}: not valid YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{display_path(path)}:{line}: not valid YAML: {error.reason}") from None
    except RecursionError:
        raise InputError(f"{display_path(path)}:1: an alias refers to itself, or the nesting is too deep") from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else type(data).__name__
        raise InputError(f"{display_path(path)}:1: expected a mapping of keys, found {found}")
    return Document(path, data, reader.places)


_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


_TEXT = "tag:yaml.org,2002:str"


class _Reader:
    """The data of a YAML file, and where each key and item of it stands."""

    def __init__(self, path: Path, text: str) -> None:
        self.loader = yaml.SafeLoader(text)
        self.places: dict[Location, Place] = {}
        self._path = path
        # Each key and item takes more than a character. Aliases may multiply them, but not without end.
        self._most = 10 * len(text)

    def construct(self, node: yaml.Node | None, at: Location) -> Any:
        """Return the data of a node, and note the places of its parts."""
        if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN_TAGS:
            raise yaml.MarkedYAMLError(problem=f"the tag {node.tag!r} is not allowed", problem_mark=node.start_mark)
        if isinstance(node, yaml.MappingNode):
            mapping: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key, mark = self._key(key_node), key_node.start_mark
                if key in mapping:
                    first = self.places[(*at, key)].line
                    raise yaml.MarkedYAMLError(
                        problem=f"{key!r} is given twice, first on line {first}", problem_mark=mark
                    )
                self._note((*at, key), mark, value_node)
                mapping[key] = self.construct(value_node, (*at, key))
            return mapping
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._note((*at, index), item.start_mark, item)
            return [self.construct(item, (*at, index)) for index, item in enumerate(node.value)]
        return None if node is None else self._scalar(node)

    def _key(self, node: yaml.Node) -> str:
        """Return a key as text; whole numbers are text as they are written."""
        key = self._scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if isinstance(key, str):
            return key
        if isinstance(key, int) and str(key) == node.value:
            return str(node.value)
        if isinstance(node, yaml.ScalarNode):
            problem = f'YAML reads the key {node.value or "(nothing)"} as {key!r}; write it in quotes: "{node.value}"'
        else:
            problem = "a key is no plain word, but a list or a mapping"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)

    def _scalar(self, node: yaml.Node) -> Any:
        try:
            value = self.loader.construct_object(node, deep=True)
        except (ValueError, OverflowError) as error:  # such as a date that does not exist
            raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from None
        if isinstance(value, str) and "\0" in value:
            raise yaml.MarkedYAMLError(problem="a text with the character NUL", problem_mark=node.start_mark)
        return value

    def _note(self, at: Location, mark: yaml.Mark, value: yaml.Node) -> None:
        if len(self.places) > self._most:
            problem = "an alias refers to itself, or aliases multiply without end"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        unquoted = value.value if isinstance(value, yaml.ScalarNode) and value.tag != _TEXT else None
        self.places[at] = Place(self._path, mark.line + 1, unquoted)
