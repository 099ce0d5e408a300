"""Outputs of a model that ran elsewhere, such as TensorRT or a phone: written and read with NumPy, without torch."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_qreliab.config import set_names
from pytest_qreliab.config.formats import Format
from pytest_qreliab.data import output_checks, recording_files
from pytest_qreliab.data.recording_files import KINDS, PARTS, TOP, VERSION, OutputKind
from pytest_qreliab.errors import InputError, describe_exception, unknown
from pytest_qreliab.models.logit_scale import check_factor
from pytest_qreliab.statistics.arrays import IntArray


@dataclass(frozen=True, eq=False, kw_only=True)
class RecordedSet:
    """The outputs for one set of n samples."""

    name: str
    ids: tuple[str, ...] = field(repr=False)
    values: npt.NDArray[np.float32]  # image features (n, dim), logits (n, C) or probabilities (n, C)
    labels: IntArray | None = None  # (n,), indices of the recording's classes
    among: IntArray | None = None  # (k,), the only classes that a prediction may name; None: all

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {sample: row for row, sample in enumerate(self.ids)}

    def rows(self, ids: Sequence[str]) -> IntArray:
        """Return the rows of k samples, int64 (k,).

        Raises:
            InputError: Samples were not recorded. The message names the first.
        """
        missing = [sample for sample in ids if sample not in self._positions]
        if missing:
            raise InputError(
                f"{self.name} lacks {len(missing)} of {len(ids)} samples, the first is {missing[0]!r}; "
                f"its own first id is {self.ids[0]!r}"
            )
        return np.array([self._positions[sample] for sample in ids], dtype=np.int64)


@dataclass(eq=False)
class Recording:
    """The outputs of one model on named sets of samples, to be written to a file or as read from one.

    All floats are stored as float32: float16 exactly, float64 rounded. NaN and infinities are refused.

    Args:
        classes: The C distinct names of the classes in label order, two or more.
        logit_scale: The factor from cosines to logits (100 for CLIP), not its logarithm, at most 1e4. Image features
            need it.
        text_features: One vector for each class, floats (C, dim), normalised or not. Image features need them.
        logit_bias: The constant added to every logit (SigLIP).
        model: The name of the full-precision model, if it can be loaded and quantized here.
        bits: The bit width of a quantized model, such as `w8a8` or `w8`, or `fp16`, `bf16` or `fp32`.

    Raises:
        InputError: A value cannot be stored.

    Example:
        >>> recording = Recording(["cat", "dog"], logit_scale=100.0)
        >>> recording.add("in_distribution", ["a.jpg", "b.jpg"], labels=[0, 1], logits=[[9.0, 1.0], [2.0, 7.0]])
        >>> recording.add("ood.far.noise", ["c.jpg"], logits=[[4.0, 4.5]])
        >>> recording.kind
        'logits'
        >>> recording.save("int8.npz")  # doctest: +SKIP
        PosixPath('int8.npz')
    """

    classes: Sequence[str]
    logit_scale: float | None = None
    text_features: npt.NDArray[np.floating[Any]] | None = None
    _: KW_ONLY
    logit_bias: float | None = None
    model: str | None = None
    bits: str | None = None
    sets: dict[str, RecordedSet] = field(default_factory=dict, init=False, repr=False)
    path: Path | None = field(default=None, init=False, repr=False)  # that it was read from
    _doubts: list[str] = field(default_factory=list, init=False, repr=False)  # about all sets
    _set_doubts: dict[str, list[str]] = field(default_factory=dict, init=False, repr=False)  # by what was checked
    _kind: OutputKind = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.classes = _strings("classes", self.classes)
        if len(self.classes) < 2:
            raise InputError("classes: give at least two")
        if self.logit_scale is not None:
            self.logit_scale = _number("logit_scale", self.logit_scale)
            if warning := check_factor(self.logit_scale, "logit_scale"):
                self._doubts.append(warning)
        if self.logit_bias is not None:
            self.logit_bias = _number("logit_bias", self.logit_bias)
        if self.text_features is not None:
            self.text_features = _floats("text_features", self.text_features, self.classes, "class")
            if warning := output_checks.check_text_features(self.text_features, self.classes):
                self._doubts.append(warning)
        if self.model is not None:
            (self.model,) = _strings("model", [self.model])
        if self.bits is not None:
            (text,) = _strings("bits", [self.bits])
            try:
                self.bits = str(Format.recorded(text))
            except InputError as error:
                raise InputError(f"bits: {error}") from None

    @property
    def kind(self) -> OutputKind:
        """The kind of outputs, the same in all sets.

        Raises:
            InputError: No set was added yet.
        """
        if not self.sets:
            raise InputError("nothing is recorded: add a set first")
        return self._kind

    @property
    def warnings(self) -> list[str]:
        """The doubts that a reader of the results should know, each in one line with its file."""
        found = list(self._doubts)
        for first, *more in self._set_doubts.values():
            found.append(first + (f" (and {len(more)} more set{'s' * (len(more) > 1)})" if more else ""))
        if self.path is None:
            return found
        from pytest_qreliab.config.document import display_path  # imports pydantic, which writers do without

        return [f"{display_path(self.path)}: {text}" for text in found]

    def add(
        self,
        name: str,
        ids: Sequence[str] | Sequence[int] | npt.NDArray[Any],
        *,
        image_features: npt.ArrayLike | None = None,
        logits: npt.ArrayLike | None = None,
        probabilities: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        among: npt.ArrayLike | None = None,
    ) -> None:
        """Add all samples of a set, with one of the three kinds of outputs.

        Outputs are copied as float32.

        Args:
            name: `in_distribution`, `calibration`, `shift.NAME`, `corruption.KIND.SEVERITY`, `spurious.NAME`,
                `ood.near.NAME` or `ood.far.NAME`.
            ids: The n samples; all differ.
            image_features: Floats (n, dim), of the width of the text features, which the recording must have.
            logits: Floats (n, C).
            probabilities: Floats (n, C) in [0, 1], which sum to 1.
            labels: Integers (n,) from 0 to C - 1. OOD sets have none, `calibration` may do without.
            among: Integers (k,): the only classes that a prediction on this set may name.

        Raises:
            InputError: The set cannot be stored. The message starts with its name.
        """
        _check_name(name)
        given = {"image_features": image_features, "logits": logits, "probabilities": probabilities}
        try:
            self._add(name, ids, {kind: given[kind] for kind in KINDS if given[kind] is not None}, labels, among)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None

    def _add(self, name: str, ids: Any, outputs: dict[OutputKind, Any], labels: Any, among: Any) -> None:
        if name in self.sets:
            raise InputError("is there already: add all samples of a set at once")
        if len(outputs) != 1:
            raise InputError(f"give one of {', '.join(KINDS)}, found {' and '.join(outputs) or 'none'}")
        ((kind, given),) = outputs.items()
        if self.sets and kind != self._kind:
            raise InputError(f"holds {kind}, but {next(iter(self.sets))} holds {self._kind}: keep to one kind")
        ids = _strings("ids", ids)
        width = len(self.classes)
        if kind == "image_features":
            if self.text_features is None or self.logit_scale is None:
                raise InputError("image_features need text_features and a logit_scale in the Recording")
            width = self.text_features.shape[1]
        values = _floats(kind, given, ids, "id", width)
        valid, valid_name = np.arange(len(self.classes)), f"the {len(self.classes)} classes, numbered from 0"
        if among is not None:
            among = valid = _integers("among", among, valid, valid_name)
            valid_name = "'among'"
            if len(among) < 2 or len(np.unique(among)) < len(among):
                raise InputError("among must be two or more distinct indices of classes")
        if labels is not None:
            if name.startswith(set_names.OOD):
                raise InputError("labels are refused: an OOD sample is of none of the classes")
            labels = _integers("labels", labels, valid, valid_name, ids)
        elif name != set_names.CALIBRATION and not name.startswith(set_names.OOD):
            raise InputError("needs labels, one integer for each id")
        doubts = output_checks.check_outputs(kind, values, ids, labels)
        self._kind = kind
        for check, doubt in doubts.items():
            self._set_doubts.setdefault(check, []).append(f"{name}: {doubt}")
        self.sets[name] = RecordedSet(name=name, ids=ids, values=values, labels=labels, among=among)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the recording to a file, which appears whole or not at all.

        Args:
            path: The suffix selects the format: `.npz`, `.safetensors` or `.parquet`.

        Returns:
            The path.

        Raises:
            InputError: The file cannot be written, or no set was added. The message starts with the path.
        """
        path = Path(path)
        content: dict[str, Any] = {"version": VERSION, **{name: getattr(self, name) for name in TOP}}
        try:
            kind = self.kind
            for name, samples in self.sets.items():
                parts = {"ids": samples.ids, "labels": samples.labels, "among": samples.among, kind: samples.values}
                content |= {f"{name}/{part}": value for part, value in parts.items()}
            recording_files.write(path, {name: value for name, value in content.items() if value is not None})
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recording:
        """Read a recording that `save`, or another program, has written.

        Args:
            path: A `.npz`, `.safetensors` or `.parquet` file.

        Returns:
            The recording, its sets in the order of their names.

        Raises:
            InputError: The file cannot be read, or holds what cannot be stored. The message starts with the path.
        """
        try:
            recording = _restored(recording_files.read(Path(path)))
        except InputError as error:
            raise InputError(f"{Path(path)}: {error}") from None
        recording.path = Path(path)
        return recording


def _restored(content: Mapping[str, Any]) -> Recording:
    """Return the recording that a file holds."""
    version = _number("version", content.get("version", VERSION))
    if version != VERSION:
        newer = "a newer pytest-qreliab wrote it, upgrade" if version > VERSION else "unknown"
        raise InputError(f"is of format version {version:g}, this reads {VERSION}: {newer}")
    top, sets = recording_files.group_by_set(content)
    for name in top:
        if name not in (*TOP, "version"):
            raise unknown("array", name, [*TOP, *(f"SET/{part}" for part in PARTS)])
    if "classes" not in content:
        raise InputError("lacks 'classes'")
    if not sets:
        raise InputError("lacks the outputs of any set, such as 'in_distribution/logits'")
    recording = Recording(**{name: content[name] for name in TOP if name in content})
    for name in sorted(sets):
        _check_name(name)
        for part in sets[name]:
            if part not in PARTS:
                raise unknown("array", f"{name}/{part}", [f"{name}/{part}" for part in PARTS])
        if "ids" not in sets[name]:
            raise InputError(f"lacks '{name}/ids'")
        recording.add(name, **sets[name])
    return recording


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not set_names.is_set_name(name):
        hint = "NAME is of letters, digits, _ and -, KIND of small letters and _, SEVERITY from 1 to 5"
        raise unknown("set", str(name), set_names.FORMS, hint=hint)


def _array(what: str, given: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(given)
    except Exception as error:  # a tensor on a GPU or with a gradient, rows of unequal length
        raise InputError(
            f"{what}: NumPy makes no array of it ({describe_exception(error)}); of a tensor, give "
            ".detach().float().cpu().numpy()"
        ) from None


def _number(what: str, given: Any) -> float:
    array = _array(what, given)
    if array.size != 1 or array.dtype.kind not in "iuf" or not math.isfinite(array.item()):
        raise InputError(f"{what} must be a finite number, found {' '.join(repr(given).split())[:60]}")
    return float(array.item())


def _strings(what: str, given: Any) -> tuple[str, ...]:
    """Return distinct strings, none empty; integers become strings."""
    plain = given.tolist() if isinstance(given, np.ndarray | np.generic) else given
    if isinstance(plain, str | bytes):
        raise InputError(f"{what} must be a sequence of strings, found only {plain!r}")
    try:
        items = list(plain)
    except TypeError:
        raise InputError(f"{what} must be a sequence of strings, found {type(given).__name__}") from None
    first: dict[str, int] = {}
    for i, item in enumerate(items):
        if isinstance(item, bool | np.bool_) or not isinstance(item, str | int | np.integer):
            raise InputError(f"{what} must be strings or integers, number {i} is of type {type(item).__name__}")
        text = str(item)
        # NumPy drops a NUL at the end, and a lone surrogate has no UTF-8.
        if not text or "\0" in text or text.encode("utf-8", "ignore").decode() != text:
            raise InputError(f"{what} must be text that is not empty, number {i} is {text!r}")
        if text in first:
            raise InputError(f"{what} must differ: numbers {first[text]} and {i} are both {text!r}")
        first[text] = i
    if not items:
        raise InputError(f"{what}: there are none")
    return tuple(first)


def _floats(
    what: str, given: Any, owners: Sequence[str], owner: str, width: int | None = None
) -> npt.NDArray[np.float32]:
    """Return a copy as finite float32, a row for each of the owners; a width of None stands for any but 0."""
    array = _array(what, given)
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise InputError(f"{what} must be floats, dequantized if need be; found {array.dtype}")
    if array.ndim != 2 or len(array) != len(owners) or array.shape[1] == 0 or width not in (None, array.shape[1]):
        expected = f"({len(owners)}, {'dim' if width is None else width})"
        raise InputError(f"{what} must have the shape {expected}, a row for each {owner}; found {array.shape}")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes an infinity
        values = np.array(array, dtype=np.float32, order="C")
    output_checks.check_finite(what, values, owners, owner)
    return values


def _integers(what: str, given: Any, valid: IntArray, valid_name: str, ids: Sequence[str] | None = None) -> IntArray:
    """Return a copy as int64 (n,), all of it among `valid`, one for each of `ids` if there are some."""
    array = _array(what, given)
    if array.dtype.kind not in "iu":
        raise InputError(f"{what} must be integers, found {array.dtype}")
    if array.ndim != 1 or (ids is not None and len(array) != len(ids)):
        expected = "(k,)" if ids is None else f"({len(ids)},), one for each id"
        raise InputError(f"{what} must have the shape {expected}; found {array.shape}")
    wrong = np.flatnonzero(~np.isin(array, valid))
    if len(wrong):
        where = f"number {wrong[0]}" if ids is None else f"id {ids[wrong[0]]!r}"
        raise InputError(
            f"{what}: {len(wrong)} of {len(array)} are not among {valid_name}; "
            f"the first is {array[wrong[0]]} at {where}"
        )
    return np.array(array, dtype=np.int64)
