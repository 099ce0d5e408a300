"""Images in NumPy arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_qreliab.data import decode
from pytest_qreliab.data.images import Items
from pytest_qreliab.errors import InputError, unknown


def list_items(path: Path, images: str, labels: Path | str | None, part: str | None) -> Items:
    """List the images of an array, uint8 (n, height, width) or (n, height, width, 3); their ids are indices into it.

    Args:
        path: A `.npy` file, which is mapped and not read, or a `.npz` file.
        images: The name of the array in a `.npz` file.
        labels: Integers (n,): another `.npy` file, or the name of another array in the `.npz` file.
        part: One of so many equal parts, in order: `2/5` is the second of five.

    Raises:
        InputError: An array cannot be read, or has another type or shape.
    """
    values = _array(path, images)
    colour = values.ndim == 4 and values.shape[-1] == 3
    if values.dtype != np.uint8 or not (values.ndim == 3 or colour) or not values.size:
        mend = "; move the colours to the end, as in array.transpose(0, 2, 3, 1)" if values.ndim == 4 else ""
        raise InputError(
            f"{path}: the images are {values.dtype} of shape {values.shape}; uint8 (n, height, width) or (n, height, "
            f"width, 3) are needed{mend}"
        )
    written = None
    if labels is not None:
        where = labels if isinstance(labels, Path) else f"{path}, {labels}"
        numbers = _array(labels, "") if isinstance(labels, Path) else _array(path, labels)
        if numbers.dtype.kind not in "iu" or numbers.shape != (len(values),):
            raise InputError(
                f"{where}: the labels are {numbers.dtype} of shape {numbers.shape}; {len(values)} integers are needed"
            )
        written = [str(number) for number in numbers.tolist()]
    start, stop = (0, len(values)) if part is None else _part(path, len(values), part)
    return Items(
        ids=[str(index) for index in range(start, stop)],
        load=lambda i: decode.from_array(values[start + i], f"{path}, {start + i}"),
        labels=None if written is None else written[start:stop],
        content=lambda i: path,
    )


def _part(path: Path, count: int, part: str) -> tuple[int, int]:
    """Return the first index of a part and the one after its last."""
    number, parts = map(int, part.split("/"))
    if number > parts or count % parts:
        raise InputError(f"{path}: {count} images have no part {part} of equal size")
    return (number - 1) * count // parts, number * count // parts


def _array(path: Path, name: str) -> npt.NDArray[Any]:
    try:
        if path.suffix.lower() == ".npy":
            mapped: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            return mapped
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if isinstance(archive, np.ndarray):
                raise InputError(f"{path}: one array: call the file .npy")
            if name not in archive:
                raise InputError(f"{path}: {unknown('array', name, archive.files)}")
            array: npt.NDArray[Any] = archive[name]
            return array
    except InputError:
        raise
    # A file that is damaged, or of pickled objects: zipfile.BadZipFile, ValueError, EOFError ...
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{path}: the array cannot be read: {reason}") from None
