import torch

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.engine import observers


def test_ranges_are_those_of_all_calibration_images_and_prompts(tiny, ask):
    clip, layers = engine_layers.unpack_layers(tiny, "both")
    seen = observers.observe(clip, layers, ask(Bits(4, 8)), observers.ValueObserver)
    assert seen.keys() == layers.keys()
    data = ask(Bits(4, 8)).calibration
    images = torch.cat(list(data.batches(clip, 128)))
    assert len(images) == len(data.images) == 12  # every fourth of the sixteen is held out
    assert seen["visual.conv1"].row().max() == images.max()
    assert seen["visual.conv1"].row().min() == images.min()
    one = observers.observe(clip, layers, ask(Bits(4, 8), images=1), observers.ValueObserver)
    assert one["visual.conv1"].row().max() == next(iter(data.batches(clip, 1))).max()


def test_layers_are_grouped_by_what_they_read_and_the_norm_behind_it_is_known(tiny, ask):
    clip, layers = engine_layers.unpack_layers(tiny, "both")
    found = observers.find_shared_inputs(clip, layers, ask(Bits(4)))
    assert sorted(name for shared in found for name in shared.layers) == sorted(layers)
    block = "visual.transformer.resblocks.0"
    by_first = {shared.layers[0]: shared for shared in found}
    qkv = by_first[f"{block}.attn.q_proj"]
    assert qkv.layers == tuple(f"{block}.attn.{which}_proj" for which in "qkv")
    assert qkv.norm is clip.module.get_submodule(f"{block}.ln_1")
    assert by_first[f"{block}.mlp.c_fc"].norm is clip.module.get_submodule(f"{block}.ln_2")
    assert by_first[f"{block}.mlp.c_proj"].norm is None
    assert by_first["visual.conv1"].norm is None
