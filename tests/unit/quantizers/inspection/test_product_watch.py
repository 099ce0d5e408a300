"""What counts as a product, and as one of two rounded activations."""

import pytest
import torch
import torch.nn.functional as F

from pytest_qreliab.config.formats import integer
from pytest_qreliab.quantizers.inspection.product_watch import ProductWatch

RANDOM = torch.Generator().manual_seed(0)
LEFT, RIGHT = torch.randn(2, 6, 40, generator=RANDOM), torch.randn(2, 40, 5, generator=RANDOM)


def rounded(x: torch.Tensor) -> torch.Tensor:
    scale = x.abs().max() / 127
    return (x / scale).round() * scale


@pytest.mark.parametrize(
    ("left", "right", "number", "covered"),
    [
        (rounded(LEFT), rounded(RIGHT), integer(8), True),
        (rounded(LEFT), RIGHT, integer(8), False),
        (LEFT, rounded(RIGHT), integer(8), False),
        (rounded(LEFT), rounded(RIGHT), integer(4), False),
        (rounded(LEFT), rounded(RIGHT), None, False),
    ],
    ids=["both", "left", "right", "wider", "weights alone"],
)
def test_a_product_of_activations_is_covered_if_both_lie_on_grids(left, right, number, covered):
    watch = ProductWatch({}, number)
    with watch:
        left @ right
    assert watch.of_activations == 2 * 2 * 6 * 5 * 40
    assert watch.of_rounded == covered * watch.of_activations


def test_fused_attention_is_two_products_of_floats():
    query, key = rounded(torch.randn(2, 3, 7, 8)), rounded(torch.randn(2, 3, 9, 8))
    watch = ProductWatch({}, integer(8))
    with watch:
        F.scaled_dot_product_attention(query, key, key)
    assert (watch.of_activations, watch.of_rounded) == (2 * 2 * (2 * 3 * 7 * 9 * 8), 0)


def test_products_with_a_weight_or_a_constant_are_none_of_activations():
    weight, turn = torch.randn(5, 40), torch.randn(4, 4)
    watch = ProductWatch({"weight": weight}, integer(8), [turn])
    with watch:
        F.linear(LEFT, weight)
        turn @ torch.randn(2, 3, 4, 10)
    assert dict(watch.flops) == {"weight": 2 * 2 * 6 * 5 * 40}
    assert watch.of_activations == 0
