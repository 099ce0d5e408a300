"""The stages of towers: of known architectures, and of small modules made to mislead."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.engine import trunk


def stages(clip, tower):
    copy, layers = engine_layers.unpack_layers(clip, "both")
    return layers, trunk.find_stages(copy.module, layers, trunk.tower_probes(copy, tower))


BLOCKS = {
    "vit": ["conv1", "transformer.resblocks.0", "transformer.resblocks.1", "proj"],
    "vit-attention-pool": ["conv1", "transformer.resblocks.0", "transformer.resblocks.1", "attn_pool", "proj"],
    "resnet": ["conv1", "conv2", "conv3", "layer1.0", "layer2.0", "layer3.0", "layer4.0", "attnpool"],
    "coca": ["conv1", "transformer.resblocks.0", "transformer.resblocks.1", "attn_pool", "proj"],
}


@pytest.mark.parametrize("name", BLOCKS)
def test_the_trunk_of_an_image_tower_is_its_blocks_and_what_is_before_and_after_them(architecture_of, name):
    _, found = stages(architecture_of(name), "vision")
    assert [stage.name.removeprefix("visual.") for stage in found] == BLOCKS[name]
    assert all(stage.trunk for stage in found)


def test_layers_of_one_input_are_grouped_in_the_order_in_which_they_read(architecture_of):
    _, found = stages(architecture_of("vit"), "text")
    block = "transformer.resblocks.0"
    attention = f"{block}.attn"
    assert found[0].groups == (
        (f"{attention}.q_proj", f"{attention}.k_proj", f"{attention}.v_proj"),
        (f"{attention}.out_proj",),
        (f"{block}.mlp.c_fc",),
        (f"{block}.mlp.c_proj",),
    )


def test_every_layer_that_a_tower_calls_is_in_one_stage(architecture):
    for tower in ("vision", "text"):
        layers, found = stages(architecture, tower)
        inside = [name for stage in found for group in stage.groups for name in group]
        assert len(inside) == len(set(inside))
        assert set(inside) == {
            name
            for name in layers
            if architecture.in_scope(name, tower) and not name.startswith("text_decoder")  # CoCa's, for captions
        }


class Doubled(nn.Module):
    """Two layers, and a path around both if asked for."""

    def __init__(self, around: bool) -> None:
        super().__init__()
        self.first, self.second, self.around = nn.Linear(4, 4), nn.Linear(4, 4), around

    def forward(self, x):
        y = self.second(self.first(x).relu())
        return x + y if self.around else y


class Tower(nn.Module):
    """Some modules after each other, joined by a function."""

    def __init__(self, *parts: nn.Module, join=lambda x: x) -> None:
        super().__init__()
        self.parts, self.join = nn.ModuleList(parts), join

    def forward(self, x):
        for part in self.parts:
            x = self.join(part(x))
        return x


def find(module, *inputs):
    layers = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    inputs = inputs or (torch.ones(2, 4),)
    return trunk.find_stages(module, layers, [lambda x=x: module(x.requires_grad_().clone()) for x in inputs])


def test_a_block_with_a_path_around_it_stays_whole_and_one_without_is_taken_apart():
    found = find(Tower(Doubled(True), Doubled(False)))
    assert [stage.name for stage in found] == ["parts.0", "parts.1.first", "parts.1.second"]
    assert [stage.trunk for stage in found] == [True] * 3


@pytest.mark.parametrize(
    ("join", "linked"),
    [(lambda x: x, True), (lambda x: x * 2, False), (lambda x: x.mul_(2), False), (torch.relu, False)],
    ids=["nothing", "product", "in place", "function"],
)
def test_blocks_are_linked_if_nothing_happens_between_them(join, linked):
    first, second = find(Tower(Doubled(True), Doubled(True), join=join))
    assert first.link is None
    assert (second.link is not None) == linked


def test_modules_without_layers_are_part_of_the_link():
    between = nn.ReLU(inplace=True)
    _, second = find(Tower(Doubled(True), nn.LayerNorm(4), between, Doubled(True)))
    assert [type(module) for module in second.link.through] == [nn.LayerNorm, nn.ReLU]


class WithMask(nn.Module):
    """A block that reads more than one argument, and hands on as many as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x, mask, scale=1.0):
        return x + self.layer(x) * mask * scale, mask


class Masked(nn.Module):
    def __init__(self, fresh: bool) -> None:
        super().__init__()
        self.one, self.two, self.fresh = WithMask(), WithMask(), fresh

    def forward(self, x):
        mask = torch.ones(4)
        x, mask = self.one(x, mask, scale=0.5)
        return self.two(x, mask + 1 if self.fresh else mask, scale=0.5)[0]


def test_a_block_that_is_told_other_things_than_the_one_before_is_not_linked():
    _, second = find(Masked(False))
    assert second.link == trunk.Link((), (1, "scale"))
    _, second = find(Masked(True))
    assert second.link is None


class Choosy(nn.Module):
    """A block that is left out for negative inputs, and a layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.block = nn.Linear(4, 4), Doubled(True)
        self.twice, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        positive = bool((x > 0).all())
        x = self.first(x)
        if positive:
            x = self.block(x)
        return self.last(self.twice(self.twice(x)))


def test_what_not_every_probe_calls_once_is_no_part_of_the_trunk():
    found = find(Choosy(), torch.ones(2, 4), -torch.ones(2, 4))
    assert [(stage.name, stage.trunk) for stage in found] == [
        ("first", True),
        ("block.first", False),
        ("block.second", False),
        ("twice", False),
        ("last", True),
    ]
    assert found[3].calls == {"twice": 2}


class Sideways(nn.Module):
    """Layers that no path from the input goes through, and one that two paths share."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.block = nn.Linear(4, 4), Doubled(True)
        self.gate, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        x = self.block(x + self.query(torch.ones(4)))
        return self.last(x * self.gate(x).sigmoid())


def test_layers_beside_the_trunk_have_their_place_before_what_runs_next():
    assert [(stage.name, stage.trunk) for stage in find(Sideways())] == [
        ("query", False),
        ("block", True),
        ("gate", False),
        ("last", True),
    ]


def test_a_tower_that_no_module_cuts_in_two_is_one_block():
    (only,) = find(Tower(nn.Linear(4, 4), join=lambda x: x + 1))
    assert only.name == "parts.0"
    whole = Doubled(True)
    (only,) = find(whole)
    assert only.module is whole


@pytest.mark.parametrize("how", [torch.no_grad(), lambda forward: lambda x: torch.from_numpy(forward(x).numpy())])
def test_a_tower_without_gradients_has_no_trunk(how):
    module = Tower(Doubled(True), Doubled(True)).requires_grad_(False)
    module.forward = how(module.forward)
    found = find(module)
    assert [stage.name for stage in found] == [f"parts.{i}.{which}" for i in (0, 1) for which in ("first", "second")]
    assert not any(stage.trunk for stage in found)


def test_parameters_with_gradients_are_not_taken_for_the_input():
    module = Tower(Doubled(True), Doubled(True))
    with_gradients = [stage.name for stage in find(module)]
    assert with_gradients == [stage.name for stage in find(module.requires_grad_(False))] == ["parts.0", "parts.1"]


def test_part_of_what_a_node_returns_is_not_all_of_it():
    """The first of two halves is no cut, though the node that makes both is one."""

    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(x).chunk(2, -1)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.halves, self.one, self.last = Halves(), nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            left, right = self.halves(x)
            return self.last(F.gelu(self.one(left) + right))

    assert [(stage.name, stage.trunk) for stage in find(Two())] == [
        ("halves.layer", True),
        ("one", False),
        ("last", True),
    ]
