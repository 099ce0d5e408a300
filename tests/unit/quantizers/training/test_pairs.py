import pytest
import torch

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.quantizers.request import Request
from pytest_qreliab.quantizers.training import pairs


def test_pairs_are_every_image_with_the_templates_of_its_class_in_turn(tiny, calibration):
    request = Request(
        bits=Bits(3), scope="both", parameters=Catalog().recipe("lsq+contrastive").parameters, calibration=calibration
    )
    data = pairs.load(tiny, request, paired=True)
    assert data.pixels.shape == (40, 3, 32, 32)
    assert data.labels.tolist() == calibration.images.labels.tolist()
    assert len(data.texts) == 30
    templates, classes = calibration.templates, calibration.classes
    captions = [templates[i // 10 % 3].replace("{}", classes[i % 10]) for i in range(40)]
    assert [data.texts[place] for place in data.captions.tolist()] == captions


@pytest.mark.parametrize(("scope", "has"), [("vision", (40, 0)), ("text", (0, 30)), ("both", (40, 30))])
def test_unpaired_data_are_those_of_the_towers_in_scope(tiny, calibration, scope, has):
    request = Request(bits=Bits(3), scope=scope, parameters=Catalog().recipe("lsq").parameters, calibration=calibration)
    data = pairs.load(tiny, request, paired=False)
    assert tuple(0 if part is None else len(part) for part in (data.pixels, data.texts)) == has
    assert data.labels is None


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (7, 7), (5, 16)])
def test_an_epoch_draws_every_item_once_and_a_step_the_same_again(count, batch):
    drawn = torch.cat([pairs.draw(count, batch, 3, step) for step in range(count)])
    used = min(batch, count)
    assert len(drawn) == used * count
    assert all(sorted(epoch.tolist()) == list(range(count)) for epoch in drawn.split(count))
    assert torch.equal(pairs.draw(count, batch, 3, 2), drawn[2 * used : 3 * used])
    assert not torch.equal(torch.cat([pairs.draw(count, batch, 4, step) for step in range(count)]), drawn)
