"""The data that the script of the page draws from."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from pytest_qreliab.metrics import registry
from pytest_qreliab.report import formatting
from pytest_qreliab.report.formatting import number, size_in_words
from pytest_qreliab.report.html.cells import gate_state
from pytest_qreliab.report.html.sizes import SizeComparison
from pytest_qreliab.report.records import CaseRecord, Curves, GateRecord, Points


class ValuePool:
    """Values that may repeat, each kept once and named by its place."""

    def __init__(self) -> None:
        self.values: list[object] = []
        self._places: dict[str, int] = {}

    def put(self, value: object) -> int:
        """Return the place of a value, added if it is new."""
        place = self._places.setdefault(json.dumps(value), len(self.values))
        if place == len(self.values):
            self.values.append(value)
        return place


def page_data(records: Sequence[CaseRecord], comparison: SizeComparison) -> dict[str, object]:
    """Return the data of all cases and of the sizes."""
    pool = ValuePool()
    cases = [_case(record, pool) for record in records]
    return {"cases": cases, "pool": pool.values, "sizes": _sizes(comparison)}


def _case(record: CaseRecord, pool: ValuePool) -> dict[str, object]:
    """Return a case without its name, which the page holds."""
    return {
        "about": [[name, pool.put(text)] for name, text in _about(record).items() if text],
        "gates": _gates(record["gates"], pool),
        "metrics": _other_metrics(record, pool),
        "curves": None if record["curves"] is None else _curves(record["curves"], pool),
        "controls": _controls(record, pool),
        "data": pool.put(record["data"]),
        "environment": pool.put(record["environment"]),
        "warnings": record["warnings"],
        "repeat": record["repeat"],
    }


def _about(record: CaseRecord) -> dict[str, str]:
    """Return facts on a case by name, empty if not known."""
    size, coverage, memory = record["size"], record["coverage"], record["peak_memory"]
    return {
        "model": record["model"],
        "benchmark": record["benchmark"],
        "quantizer": record["quantizer"],
        "parameters": record["parameters"],
        "trained on": record["trained_on"],
        "bits": record["bits"],
        "scope": record["scope"],
        "coverage": "recorded outputs"
        if coverage is None
        else f"{formatting.percent(coverage)} of the weights, {formatting.percent(record['product_coverage'] or 0)} of "
        "the FLOPs of all matrix products",
        "size": ""
        if size is None
        else f"{size_in_words(size['quantized'])} of {size_in_words(size['full'])}, "
        f"{size['quantized'] / size['full']:.2f}",
        "samples": f"{record['samples']:,}",
        "confidence": f"{record['confidence']:.2%} for each bound of an interval",
        "device": record["device"],
        "encoded": f"{record['encoded']:,} images and prompts, {record['known']:,} known from before",
        "peak memory": formatting.memory(memory, record["peak_device_memory"]) if memory else "",
    }


def _gates(gate_records: Sequence[GateRecord], pool: ValuePool) -> dict[str, object]:
    """Return the gates column by column.

    A column that several cases share is kept once.
    """
    columns: dict[str, list[object]] = {
        "of": [
            [record["metric"], record["limit"], record["value"], f"{record['value']:g}", record["where"]]
            for record in gate_records
        ],
        "state": [gate_state(record) for record in gate_records],
        "baseline": [_packed(record["baseline"]) for record in gate_records],
        "accepted": [_packed(record["accepted"]) for record in gate_records],
        "kernels": [_packed(record["kernel_spread"]) for record in gate_records],
        "quantized": [_packed(record["quantized"]) for record in gate_records],
        "harm": [_packed(record["harm"]) for record in gate_records],
        "low": [_packed(record["low"]) for record in gate_records],
        "high": [_packed(record["high"]) for record in gate_records],
        "method": [pool.put(record["method"]) for record in gate_records],
        "settling": [record["settling_n"] for record in gate_records],
        "problem": [record["problem"] for record in gate_records],
    }
    return {name: pool.put(column) for name, column in columns.items()}


def _other_metrics(record: CaseRecord, pool: ValuePool) -> dict[str, object]:
    """Return the metrics without a gate, column by column."""
    gated = {registry.canonical(gate_record["metric"]) for gate_record in record["gates"]}
    others = [other for other in record["metrics"] if registry.canonical(other["metric"]) not in gated]
    columns: dict[str, list[object]] = {
        "of": [[other["metric"], other["better"]] for other in others],
        "baseline": [_packed(other["baseline"]) for other in others],
        "quantized": [_packed(other["quantized"]) for other in others],
        "change": [_packed(other["change"]) for other in others],
        "problem": [other["problem"] for other in others],
    }
    return {name: pool.put(column) for name, column in columns.items()}


def _curves(curves: Curves, pool: ValuePool) -> dict[str, object]:
    def line(points: Points) -> list[int]:
        finite = [point for point in points if all(map(math.isfinite, point))]
        return [pool.put([_shortened(point[axis]) for point in finite]) for axis in (0, 1)]

    def rates(points: Points) -> list[int]:
        """Return a line in thousandths, which take half the room."""
        return line([(round(1000 * x), round(1000 * y)) for x, y in points if math.isfinite(x + y)])

    return {
        "reliability": [
            pool.put([[bin["confidence"], bin["accuracy"], bin["share"]] for bin in bins])
            for bins in curves["reliability"]
        ],
        "roc": [[name, [rates(points) for points in both]] for name, both in curves["roc"].items()],
        "corruptions": pool.put(curves["corruptions"]),
        "spectra": [[name, [line(points) for points in both]] for name, both in curves["spectra"].items()],
        "singular_values": [line(points) for points in curves["singular_values"]],
        "sqnr": line(curves["sqnr"]),
    }


def _controls(record: CaseRecord, pool: ValuePool) -> object:
    controls = record["controls"]
    if controls is None:
        return None
    return {
        "matched": controls["matched"],
        "problem": controls["problem"],
        "residuals": [[name, f"{ratio:.3g}"] for name, ratio in controls["residuals"].items()],
        "of": pool.put(list(controls["changes"])),
        "conclusions": pool.put([controls["conclusions"].get(metric, "") for metric in controls["changes"]]),
        "changes": [[list(map(_packed, effect)) for effect in effects] for effects in controls["changes"].values()],
    }


def _sizes(comparison: SizeComparison) -> dict[str, object]:
    return {
        "names": comparison.names,
        "fronts": comparison.fronts,
        "models": [
            {
                "model": candidate.model,
                "name": candidate.quantization,
                "share": _shortened(candidate.share),
                "passed": candidate.passed,
                "harms": [_finite_or_none(candidate.harms.get(key, math.nan)) for key in comparison.keys],
            }
            for candidate in comparison.candidates
        ],
    }


def _packed(value: float | None) -> int | str | None:
    """Return a number as `number` writes it, packed.

    Four decimals become ten-thousandths, anything else text.
    """
    if value is None:
        return None
    return int(number(value).replace(".", "")) if abs(value) < 100 else number(value)


def _shortened(value: float) -> float:
    """Return three digits, more than a chart can show."""
    short = float(f"{value:.3g}")
    return int(short) if short.is_integer() else short


def _finite_or_none(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
