"""Size against reliability."""

import math

from pytest_qreliab.report import tradeoff


def test_the_smallest_that_passes_is_named(results):
    assert tradeoff.smallest_passing(results.cases) == ["smallest passing: minmax w8a8, 0.33 of full size"]
    assert tradeoff.smallest_passing(results.cases[:1]) == []
    for gate in results.cases[1]["gates"]:
        gate["passed"] = False
    assert tradeoff.smallest_passing(results.cases) == ["smallest passing: none of 2"]
    results.cases[1]["size"] = None
    assert tradeoff.smallest_passing(results.cases) == []


def test_the_front_holds_what_nothing_smaller_beats(results):
    small, large = tradeoff.find_candidates(results.cases)
    assert (small.quantization, small.passed, large.passed) == ("minmax w2a8", False, True)
    key = "small", "accuracy"
    assert tradeoff.pareto_front([large, small], key) == [small, large]
    assert tradeoff.pareto_front([large], ("small", "nothing")) == []
    small.harms[key] = large.harms[key]
    assert tradeoff.pareto_front([large, small], key) == [small]
    small.harms[key] = math.nan
    assert tradeoff.pareto_front([large, small], key) == [large]
