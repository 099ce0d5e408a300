"""The curves of a case."""

import itertools

import pytest

from pytest_qreliab.report.figures.curves import POINTS


def test_what_is_drawn_agrees_with_the_metrics(results):
    for record in results.cases:
        metrics = {metric["metric"]: metric for metric in record["metrics"]}
        curves = record["curves"]
        for which, bins in zip(("baseline", "quantized"), curves["reliability"], strict=True):
            ece = sum(bin["share"] * abs(bin["confidence"] - bin["accuracy"]) for bin in bins)
            assert ece == pytest.approx(metrics["ece"][which], abs=1e-3)
            assert sum(bin["share"] for bin in bins) == pytest.approx(1, abs=1e-3)
        assert curves["roc"].keys() == {"letters", "photos"}
        for name, both in curves["roc"].items():
            for which, points in zip(("baseline", "quantized"), both, strict=True):
                assert points[0] == (0, 0)
                assert points[-1] == (1, 1)
                assert len(points) <= POINTS
                area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))
                assert area == pytest.approx(metrics[f"ood.auroc.mcm.{name}"][which], abs=0.01)
        assert len(curves["spectra"]) == 4
        assert all(len(both) == 2 for both in curves["spectra"].values())
        assert 30 < len(curves["sqnr"]) <= len(curves["singular_values"][0]) <= POINTS
