"""Check what was recorded: numbers that cannot be outputs are refused, and what is doubtful is said."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pytest_qreliab.errors import InputError
from pytest_qreliab.statistics.arrays import FloatArray, IntArray

Values = npt.NDArray[np.float32]

# A softmax in float16 is off by as much: beyond 0 and 1, and in its sum.
_RANGE_ERROR, _SUM_ERROR = 1e-3, 1e-2
_SAID_ERROR = 1e-3  # a smaller error of the sum is hardly seen in a result
FLOAT16_FLOOR = 2.0**-25  # half the smallest number above 0 that float16 holds


def check_finite(what: str, values: Values, owners: Sequence[str], owner: str) -> None:
    """Refuse NaN and infinities.

    Args:
        what: What the values are.
        values: float32 (n, width).
        owners: What each row is of.
        owner: The kind of the owners, for the message.

    Raises:
        InputError: There are some. The message names the first row.
    """
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        row = values[bad[0]]
        first = row[~np.isfinite(row)][0]
        mend = "find out where the model makes them"
        if what == "logits" and first < 0:
            mend = "name the classes that are not masked with among=, or give the others a low number such as -1e4"
        raise InputError(
            f"{what}: NaN or infinity in {len(bad)} of {len(values)} rows, the first is of {owner} "
            f"{owners[bad[0]]!r} ({first:g}); {mend}"
        )


def check_text_features(values: Values, classes: Sequence[str]) -> str | None:
    """Check that every class has a direction of its own.

    Args:
        values: Text features, finite float32 (classes, dim).
        classes: The names of the classes.

    Returns:
        Two classes of the same features, None if there are none.

    Raises:
        InputError: Rows are zero. The message names the first class.
    """
    zero = np.flatnonzero(~values.any(axis=1))
    if len(zero):
        raise InputError(f"text_features: those of {len(zero)} classes are all 0, the first is {classes[zero[0]]!r}")
    first: dict[bytes, int] = {}
    same = [(first.setdefault(features.tobytes(), row), row) for row, features in enumerate(values)]
    pairs = [(classes[one], classes[other]) for one, other in same if one != other]
    if not pairs:
        return None
    more = f", and {len(pairs) - 1} more pairs are" if len(pairs) > 1 else ""
    return f"text_features: those of {pairs[0][0]!r} and {pairs[0][1]!r} are equal{more}"


def check_outputs(kind: str, values: Values, ids: Sequence[str], labels: IntArray | None = None) -> dict[str, str]:
    """Check that outputs are of the kind that they are said to be.

    Args:
        kind: The kind: "image_features", "logits" or "probabilities".
        values: Finite outputs, float32 (n, width).
        ids: What each row is of.
        labels: The labels, (n,), if there are any.

    Returns:
        What a reader of the results should know, by what was checked.

    Raises:
        InputError: They are no outputs of this kind. The message says of which they may be.
    """
    if kind == "image_features":
        return {}
    sums = values.sum(axis=1, dtype=np.float64)
    return _check_logits(values, sums) if kind == "logits" else _check_probabilities(values, sums, ids, labels)


def probability_floor(values: Values) -> float:
    """Return what a probability of 0 is in logarithms: half the smallest other one, and no more than float16 shows.

    A probability of 0 was rounded, so that its logarithm is not known. In coarser steps, such as those of a softmax in
    int8, half a step is much for a class that was ruled out.

    Args:
        values: Probabilities, float32 (n, classes).
    """
    positive = values[values > 0]
    return min(FLOAT16_FLOOR, float(positive.min()) / 2 if positive.size else FLOAT16_FLOOR)


def _check_logits(values: Values, sums: FloatArray) -> dict[str, str]:
    if values.min() >= 0 and values.max() <= 1 and (np.abs(sums - 1) <= _SUM_ERROR).all():
        raise InputError(
            "logits: all rows lie in 0..1 with the sum 1: this is a softmax, give it as probabilities=, or the logits "
            "before it"
        )
    if values.max() <= 0:
        totals = np.exp(values.astype(np.float64)).sum(axis=1)
        if (np.abs(totals - 1) <= _SUM_ERROR).all():
            return {
                "logarithms": "the logits are log-probabilities, from which energy and maxlogit tell less than from "
                "the logits before the log-softmax"
            }
    if np.abs(values).max() <= 1:
        return {
            "cosines": f"the logits lie in {values.min():.3g}..{values.max():.3g}: if these are cosines, multiply them "
            "by the logit scale; as they stand, all confidences are near 1 / classes"
        }
    return {}


def _check_probabilities(
    values: Values, sums: FloatArray, ids: Sequence[str], labels: IntArray | None
) -> dict[str, str]:
    outside = ((values < -_RANGE_ERROR) | (values > 1 + _RANGE_ERROR)).any(axis=1)
    error = np.abs(sums - 1)
    off = error > _SUM_ERROR
    wrong = np.flatnonzero(outside | off)
    if len(wrong):
        what = "give the softmax over the classes, each row divided by its sum if it was rounded"
        if values.max() <= 0:
            what = "these look like log-probabilities, give their exponentials"
        elif (outside & off).any():
            same_sum = values.min() >= 0 and np.ptp(sums) <= _SUM_ERROR * sums.max()
            what = "divide each row by its sum" if same_sum else "these look like logits, give them as logits="
        row = values[wrong[0]]
        raise InputError(
            f"probabilities: {len(wrong)} of {len(ids)} rows do not lie in 0..1 with the sum 1, the first is of id "
            f"{ids[wrong[0]]!r} (from {row.min():g} to {row.max():g}, sum {sums[wrong[0]]:g}); {what}"
        )
    doubts = {}
    if (error > _SAID_ERROR).any():
        most = int(error.argmax())
        doubts["sums"] = (
            f"the probabilities of {(error > _SAID_ERROR).sum()} of {len(ids)} rows do not sum to 1, the furthest to "
            f"{sums[most]:.4f} ({ids[most]!r}): confidence, ece, brier and nll take them as they are, all else divides "
            "by the sum"
        )
    zeros = 0 if labels is None else int((values[np.arange(len(ids)), labels] <= 0).sum())
    if zeros:
        floor = probability_floor(values)
        doubts["zeros"] = (
            f"the label's probability is 0 in {zeros} of {len(ids)} rows: nll takes it as {floor:.3g}, which depends "
            "on the precision; record both models in the same, or their logits"
        )
    return doubts
