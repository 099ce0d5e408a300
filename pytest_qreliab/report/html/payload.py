"""The data of the page's script."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from pytest_qreliab.metrics import registry
from pytest_qreliab.report import formatting
from pytest_qreliab.report.formatting import number
from pytest_qreliab.report.html.markup import (
    gate_state,
    shorten,
)
from pytest_qreliab.report.records import CaseRecord, Curves, GateRecord, Points


class _Pool:
    """Values that may come again, each kept once and named by its place."""

    def __init__(self) -> None:
        self.values: list[object] = []
        self._places: dict[str, int] = {}

    def put(self, value: object) -> int:
        place = self._places.setdefault(json.dumps(value), len(self.values))
        if place == len(self.values):
            self.values.append(value)
        return place


def page_data(entries: Sequence[CaseRecord]) -> dict[str, object]:
    pool = _Pool()
    cases = [_case(entry, pool) for entry in entries]
    return {"cases": cases, "pool": pool.values}


def _case(entry: CaseRecord, pool: _Pool) -> dict[str, object]:
    """All of a case but what it is called, which is in its head already."""
    size = entry["size"]
    about = {
        "model": entry["model"],
        "benchmark": entry["benchmark"],
        "quantizer": entry["quantizer"],
        "parameters": entry["parameters"],
        "bits": entry["bits"],
        "scope": entry["scope"],
        "coverage": "recorded outputs" if entry["coverage"] is None else f"{entry['coverage']:.1%} of the weights",
        "size": ""
        if size is None
        else f"{formatting.size_in_words(size['quantized'])} of {formatting.size_in_words(size['full'])}, "
        f"{size['quantized'] / size['full']:.2f}",
        "samples": f"{entry['samples']:,}",
        "confidence": f"{entry['confidence']:.2%} for each bound of an interval",
        "device": entry["device"],
        "encoded": f"{entry['encoded']:,} images and prompts, {entry['known']:,} known from before",
        "peak memory": _memory(entry),
    }
    return {
        "about": [[name, pool.put(text)] for name, text in about.items() if text],
        "gates": _gates(entry["gates"], pool),
        "metrics": _others(entry, pool),
        "curves": None if entry["curves"] is None else _curves(entry["curves"], pool),
        "controls": _controls(entry, pool),
        "data": pool.put(entry["data"]),
        "environment": pool.put(entry["environment"]),
        "warnings": entry["warnings"],
        "repeat": entry["repeat"],
    }


def _memory(entry: CaseRecord) -> str:
    device = entry["peak_device_memory"]
    text = f"{entry['peak_memory'] / 2**30:.1f} GiB" if entry["peak_memory"] else ""
    return text + (f", {device / 2**30:.1f} GiB on the device" if device else "")


def _gates(gates: Sequence[GateRecord], pool: _Pool) -> dict[str, object]:
    """Column by column: those that many cases share are kept once."""
    columns: dict[str, list[object]] = {
        "of": [[gate["metric"], gate["limit"], gate["value"], f"{gate['value']:g}", gate["where"]] for gate in gates],
        "state": [gate_state(gate) for gate in gates],
        "baseline": [_packed(gate["baseline"]) for gate in gates],
        "accepted": [_packed(gate["accepted"]) for gate in gates],
        "quantized": [_packed(gate["quantized"]) for gate in gates],
        "harm": [_packed(gate["harm"]) for gate in gates],
        "low": [_packed(gate["low"]) for gate in gates],
        "high": [_packed(gate["high"]) for gate in gates],
        "method": [pool.put(gate["method"]) for gate in gates],
        "settling": [gate["settling_n"] for gate in gates],
        "problem": [gate["problem"] for gate in gates],
    }
    return {name: pool.put(column) for name, column in columns.items()}


def _others(entry: CaseRecord, pool: _Pool) -> dict[str, object]:
    """The metrics that no gate is on."""
    known = {registry.canonical(gate["metric"]) for gate in entry["gates"]}
    others = [found for found in entry["metrics"] if registry.canonical(found["metric"]) not in known]
    columns: dict[str, list[object]] = {
        "of": [[found["metric"], found["better"]] for found in others],
        "baseline": [_packed(found["baseline"]) for found in others],
        "quantized": [_packed(found["quantized"]) for found in others],
        "change": [_packed(found["change"]) for found in others],
        "problem": [found["problem"] for found in others],
    }
    return {name: pool.put(column) for name, column in columns.items()}


def _curves(curves: Curves, pool: _Pool) -> dict[str, object]:
    def line(points: Points) -> list[int]:
        there = [point for point in points if all(map(math.isfinite, point))]
        return [pool.put([shorten(point[axis]) for point in there]) for axis in (0, 1)]

    def rates(points: Points) -> list[int]:
        """In thousandths, which take half the room: there are more of these points than of all others."""
        return line([(round(1000 * x), round(1000 * y)) for x, y in points if math.isfinite(x + y)])

    return {
        "reliability": [
            pool.put([[of["confidence"], of["accuracy"], of["share"]] for of in bins]) for bins in curves["reliability"]
        ],
        "roc": [[name, [rates(points) for points in both]] for name, both in curves["roc"].items()],
        "corruptions": pool.put(curves["corruptions"]),
        "spectra": [[name, [line(points) for points in both]] for name, both in curves["spectra"].items()],
        "singular_values": [line(points) for points in curves["singular_values"]],
        "sqnr": line(curves["sqnr"]),
    }


def _controls(entry: CaseRecord, pool: _Pool) -> object:
    controls = entry["controls"]
    if controls is None:
        return None
    return {
        "matched": controls["matched"],
        "problem": controls["problem"],
        "residuals": [[name, f"{ratio:.3g}"] for name, ratio in controls["residuals"].items()],
        "of": pool.put(list(controls["changes"])),
        "conclusions": pool.put([controls["conclusions"].get(metric, "") for metric in controls["changes"]]),
        "changes": [[list(map(_packed, moved)) for moved in changes] for changes in controls["changes"].values()],
    }


def _packed(value: float | None) -> int | str | None:
    """A number as `number` writes it: four decimals as ten-thousandths, anything else as text."""
    if value is None:
        return None
    return int(number(value).replace(".", "")) if abs(value) < 100 else number(value)
