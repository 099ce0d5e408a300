"""What a plan tells of its cases."""

import pytest


def test_the_correction_counts_every_gate_of_the_plan(make_plan):
    for gates, plan in ((14, make_plan(bits="8")), (56, make_plan(bits="8,4", scopes="text,both"))):
        assert plan.error_probability(plan.cases[0]) == pytest.approx(0.05 / gates)
