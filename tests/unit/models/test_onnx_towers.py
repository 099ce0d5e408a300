"""Towers of hand-made graphs, which double what they read."""

import copy

import pytest
import torch

from pytest_qreliab.models.onnx_towers import MappedTower, OnnxClip, Tower, load_tower

onnx = pytest.importorskip("onnx", reason="the extra pytest-qreliab[onnxruntime] is not installed")
pytest.importorskip("onnxruntime", reason="the extra pytest-qreliab[onnxruntime] is not installed")

CPU = torch.device("cpu")


def graph(batch="n", kind=onnx.TensorProto.FLOAT, map_shape=None) -> bytes:
    """The first output is twice the input (batch, 3); the second, if any, is the input in another shape."""
    helper = onnx.helper
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    outputs = [helper.make_tensor_value_info("y", kind, [batch, 3])]
    constants = []
    if map_shape is not None:
        nodes.append(helper.make_node("Reshape", ["x", "shape"], ["map"]))
        outputs.append(helper.make_tensor_value_info("map", kind, [batch, *map_shape]))
        sizes = [-1, *map_shape]
        constants.append(helper.make_tensor("shape", onnx.TensorProto.INT64, [len(sizes)], sizes))
    inputs = [helper.make_tensor_value_info("x", kind, [batch, 3])]
    made = helper.make_graph(nodes, "doubles", inputs, outputs, constants)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString()


@pytest.mark.parametrize("batch", ["n", 1, 2, 5, 7])
@pytest.mark.parametrize("count", [1, 5, 6])
def test_a_graph_of_any_batch_size_takes_any_number_of_rows(batch, count):
    x = torch.arange(count * 3.0).reshape(count, 3)
    tower = Tower(graph(batch), CPU)
    assert torch.equal(tower(x), 2 * x)
    sizes = [len(part) for part in tower.batches(x)]
    assert sizes == ([count] if batch == "n" else [batch] * -(-count // batch))


@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16", "INT64", "INT32"])
def test_inputs_become_what_the_graph_takes_and_outputs_float32(kind):
    tower = Tower(graph(kind=getattr(onnx.TensorProto, kind)), CPU)
    for dtype in (torch.float32, torch.int64):
        found = tower(torch.tensor([[1, 2, 3]], dtype=dtype))
        assert found.dtype == torch.float32
        assert found.tolist() == [[2, 4, 6]]


def test_a_second_output_of_four_dimensions_is_a_patch_map():
    x = torch.arange(6.0).reshape(2, 3)
    tower = load_tower(graph(map_shape=[3, 1, 1]), CPU)
    assert isinstance(tower, MappedTower)
    found = tower.forward_intermediates(x, indices=1)
    assert torch.equal(found["image_features"], 2 * x)
    assert torch.equal(found["image_intermediates"][-1], x[:, :, None, None])
    for other in (graph(), graph(map_shape=[1, 3])):
        assert type(load_tower(other, CPU)) is Tower


def test_a_file_and_a_copy_give_what_the_bytes_give(tmp_path):
    (tmp_path / "a.onnx").write_bytes(graph())
    x = torch.ones(2, 3)
    tower = Tower(tmp_path / "a.onnx", CPU)
    other = copy.deepcopy(tower)
    assert other.session is not tower.session
    assert torch.equal(other(x), 2 * x)
    assert tower.graph() == Tower(graph(), CPU).graph() == onnx.load_from_string(graph())


def test_a_tower_that_is_no_graph_is_the_originals(tiny):
    x = torch.ones(2, 3)
    text = Tower(graph(), CPU)
    clip = OnnxClip(tiny.module, {"text": text})
    assert clip.towers() == {"text": text}
    assert torch.equal(clip.encode_text(x), 2 * x)
    assert clip.visual is tiny.module.visual
    assert torch.equal(clip.logit_scale, tiny.module.logit_scale)
    assert clip.logit_scale is not tiny.module.logit_scale
    tokens = tiny.tokenizer(["9"])
    assert torch.equal(OnnxClip(tiny.module, {}).encode_text(tokens), tiny.module.encode_text(tokens))


class Tokens(torch.nn.Module):
    """An image tower that gives its tokens as well, as CoCa's does."""

    def forward(self, images):
        return images, images[:, None]


def test_a_tower_that_gives_tokens_as_well_encodes_to_its_features(tiny):
    original = copy.deepcopy(tiny.module)
    original.visual = Tokens()
    clip = OnnxClip(original, {"text": Tower(graph(), CPU)})
    assert torch.equal(clip.encode_image(torch.ones(2, 3)), torch.ones(2, 3))


def test_a_graph_has_the_preprocessing_of_the_tower_that_it_stands_for(tiny):
    clip = OnnxClip(tiny.module, {"visual": Tower(graph(), CPU)})
    assert clip.visual.preprocess_cfg == tiny.module.visual.preprocess_cfg
