"""What a static integer runtime rounds beside the inputs of layers."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.models.block_hooks import compile_blocks
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.layout import PASS_CONTEXT
from pytest_qreliab.quantizers.engine import products
from pytest_qreliab.quantizers.engine.layers import unpack_layers


class Block(nn.Module):
    """One transformer block on the rows of an image: attention, a residual add and a Linear."""

    def __init__(self, attend=F.scaled_dot_product_attention):
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v, self.out = (nn.Linear(24, 24) for _ in range(4))
        self.attend = attend

    def forward(self, x):
        return x + self.out(self.attend(self.q(x), self.k(x), self.v(x)))


class Towers(nn.Module):
    """A model whose image tower is one block."""

    def __init__(self, block):
        super().__init__()
        self.block, self.text = block, nn.Embedding(256, 24)
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def encode_image(self, images):
        return self.block(images.mean(1)).mean(1)

    def encode_text(self, tokens):
        return self.text(tokens)


def wrap(block) -> Clip:
    return replace(
        Clip.wrap(
            Towers(block),
            preprocess=lambda image: torch.from_numpy(np.array(image.resize((24, 8)), np.float32) / 64 - 2).movedim(
                2, 0
            ),
            tokenizer=lambda texts: torch.tensor([ord(text[0]) for text in texts]),
        ),
        name="block",
    )


@pytest.fixture
def quantized(ask):
    """Quantizes by `minmax` as a run does, products included."""

    def apply(clip, bits="w8a8", scope="vision", **parameters) -> Clip:
        recipe = Catalog().recipe("minmax")
        request = ask(Format.of(bits), scope, **parameters)
        return replace(recipe, parameters=request.parameters).quantize(clip, request)

    return apply


def rounding_of(clip: Clip) -> products.ProductRounding:
    return clip.module.__dict__[PASS_CONTEXT]


def explicit(query, key, value):
    """Attention as timm writes it, without the fused operation."""
    return (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(-1) @ value


def fake(x: torch.Tensor, seen: list[torch.Tensor], *, unsigned: bool = False) -> torch.Tensor:
    """torch's own quantize and dequantize, over the range that calibration saw."""
    low, high = min(float(s.min()) for s in seen), max(float(s.max()) for s in seen)
    if unsigned:
        return torch.fake_quantize_per_tensor_affine(x, (high - min(low, 0)) / 255, 0, 0, 255)
    return torch.fake_quantize_per_tensor_affine(x, max(-low, high) / 127.5, 0, -128, 127)


@pytest.mark.parametrize("attend", [F.scaled_dot_product_attention, explicit])
def test_a_block_is_rounded_as_a_reference_written_by_hand(quantized, calibration, attend):
    clip = wrap(Block(attend))
    rounded = quantized(clip, products="integer")
    layers, seen = dict(rounded.module.block.named_children()), {}

    def at(name, x, calibrating, **options):
        if calibrating:
            seen.setdefault(name, []).append(x)
            return x
        return fake(x, seen[name], **options)

    def linear(name, x, calibrating):
        product = at(f"{name} product", F.linear(at(f"{name} in", x, False), layers[name].weight), calibrating)
        return at(f"{name} out", product + layers[name].bias, calibrating)

    def block(x, calibrating):
        q, k, v = (at(f"{name} operand", linear(name, x, calibrating), calibrating) for name in "qkv")
        scores = at("scores", q @ k.transpose(-2, -1) * 24**-0.5, calibrating)
        shares = at("softmax", scores.softmax(-1), calibrating, unsigned=True)
        return at(
            "sum",
            at("left", x, calibrating) + at("right", linear("out", shares @ v, calibrating), calibrating),
            calibrating,
        )

    images = torch.cat(list(calibration.batches(clip, 128)))
    float_block = clip.module.block
    x = images.mean(1)
    mixed = attend(float_block.q(x), float_block.k(x), float_block.v(x))
    seen |= {f"{name} in": [x] for name in "qkv"} | {"out in": [mixed]}  # inputs have ranges of full precision
    block(x, calibrating=True)

    difference = (rounded.encode_image(images) - block(x, calibrating=False).mean(1)).abs().max()
    assert difference < 1e-5
    assert (rounded.encode_image(images) - quantized(clip).encode_image(images)).abs().max() > 1e-3


def unit(features: torch.Tensor) -> torch.Tensor:
    return F.normalize(features, dim=-1)  # CoCa's are, but for those with a map


@contextmanager
def visited(clip: Clip):
    """Collects the sites that a model passes, and rounds none."""
    found = []

    def visit(site, x):
        found.append(site)
        return x

    @contextmanager
    def context(module, tower):
        kinds = frozenset({*products.INTEGER_PRODUCTS, products.SCORES})
        with products._passing(products.Pass(tower, module, kinds, visit)):
            yield

    clip.module.__dict__[PASS_CONTEXT] = context
    yield found
    del clip.module.__dict__[PASS_CONTEXT]


def test_a_pass_that_rounds_nothing_leaves_the_features_of_every_architecture(architecture, noise, prompts):
    clip, images = unpack_layers(architecture, "both")[0], noise(architecture)
    wanted = clip.encode_image(images), clip.encode_text(prompts)
    with visited(clip) as sites:
        image = clip.encode_image(images)
        ways = [set(sites)]
        sites.clear()
        mapped = clip.encode_image_with_map(images)[0]
        ways.append(set(sites))
        text = clip.encode_text(prompts)
    for got, expected in ((image, wanted[0]), (mapped, wanted[0]), (text, wanted[1])):
        torch.testing.assert_close(unit(got), unit(expected), atol=1e-5, rtol=1e-5)
    assert ways[0] == ways[1]  # with the map or without, a site has one name
    assert {"residual", "output"} <= {site.kind for site in ways[0]}
    assert {*products.ATTENTION, products.SCORES} <= {site.kind for site in sites}  # every text tower attends


def test_every_architecture_is_quantized_and_encodes_in_every_way(architecture, quantized, noise, prompts):
    clip, images = quantized(architecture, scope="vision", products="integer"), noise(architecture)
    features = clip.encode_image(images)
    assert float((features - architecture.encode_image(images)).abs().max()) > 0
    for other in (clip.encode_image_with_map(images)[0], clip.encode_image_with_local(images).features):
        torch.testing.assert_close(unit(other), unit(features))
    assert torch.equal(clip.encode_text(prompts), architecture.encode_text(prompts))  # not in scope


def test_no_token_sees_what_a_causal_mask_hides(architecture_of, quantized):
    clip = quantized(architecture_of("vit"), scope="text", products="integer")
    tokens = clip.tokenizer(["a dog"])
    filled = tokens.clone()
    filled[0, int(tokens.argmax()) + 1 :] = 7
    read = [clip.layout.encode_text(clip.module, given, clip.device) for given in (tokens, filled)]
    assert torch.equal(*read)


def test_a_masks_infinities_are_not_rounded(architecture_of, quantized, prompts):
    coca = architecture_of("coca")  # adds a mask to a mask
    clip = quantized(coca, scope="text", products="integer")
    assert None in rounding_of(clip).rounds.values()
    assert bool(clip.encode_text(prompts).isfinite().all())


def test_a_mask_that_is_added_to_scores_is_not_rounded(quantized, calibration):
    def attend(query, key, value):
        scores = query @ key.transpose(-2, -1)
        return (scores + torch.full((8, 8), -1e4).triu(1)).softmax(-1) @ value

    clip = wrap(Block(attend))
    rounded = quantized(clip, products="integer")
    kept = [site.number for site, rounding in rounding_of(rounded).rounds.items() if rounding is None]
    assert kept == [0, 1, 2]  # the sides and the sum of the first add; the residual add is the second
    images = torch.cat(list(calibration.batches(clip, 128)))
    torch.testing.assert_close(rounded.encode_image(images), clip.encode_image(images), atol=0.02, rtol=0)


def test_a_convolution_before_a_batch_norm_writes_what_the_norm_reads(architecture_of, quantized):
    rounds = rounding_of(quantized(architecture_of("resnet"), products="integer")).rounds
    kept = {site.module for site, rounding in rounds.items() if rounding is None}
    assert kept == {site.module for site in rounds if "conv" in site.module or "downsample" in site.module}
    assert "visual.conv1" in kept


def test_an_images_features_do_not_depend_on_the_others(architecture_of, quantized, noise):
    clip = quantized(architecture_of("vit"), products="integer")
    images = noise(clip, 6)
    together = clip.encode_image(images)
    for alone in (clip.encode_image(images[2:3])[0], clip.encode_image(images[2:4])[0]):
        torch.testing.assert_close(alone, together[2], atol=2e-3, rtol=0)  # another kernel may turn a tie


def test_a_copy_rounds_by_itself(architecture_of, quantized, noise):
    clip = quantized(architecture_of("vit"), products="integer")
    images, copy = noise(clip), clip.copy()
    wanted = clip.encode_image(images)
    rounding_of(clip).rounds.clear()
    assert torch.equal(copy.encode_image(images), wanted)
    assert all(rounding.__self__.scale.device.type == "cpu" for rounding in rounding_of(copy).rounds.values())


def test_compiled_blocks_round_as_uncompiled_ones(architecture_of, quantized, noise):
    clip = quantized(architecture_of("vit"), products="integer")
    images = noise(clip)
    wanted = clip.encode_image(images)
    compile_blocks(clip)
    assert torch.equal(clip.encode_image(images), wanted)


def test_layers_that_are_kept_write_what_they_compute(quantized):
    rounds = rounding_of(quantized(wrap(Block()), layers={"block.out": "keep"}, products="integer")).rounds
    written = {site.module: rounding for site, rounding in rounds.items() if site.kind == "output"}
    assert [name for name, rounding in written.items() if rounding is None] == ["block.out"]


def test_dynamic_rounding_takes_each_row_by_itself(quantized, calibration):
    clip = wrap(Block())
    rounded = quantized(clip, products="integer", activations="dynamic", data=None)
    assert products.SCORES not in {site.kind for site in rounding_of(rounded).rounds}
    images = torch.cat(list(calibration.batches(clip, 128)))
    changed = images.clone()
    changed[0] *= 100
    assert torch.equal(rounded.encode_image(images)[1:], rounded.encode_image(changed)[1:])
    assert float((rounded.encode_image(images) - clip.encode_image(images)).abs().max()) > 1e-4


def test_a_site_that_calibration_did_not_reach_is_refused(quantized):
    clip = quantized(wrap(Block()), products="integer")
    clip.module.block.attend = lambda q, k, v: explicit(q, k, v) + explicit(q, k, v)
    with pytest.raises(InputError, match=r"did not reach the query 1 of block \(vision\)"):
        clip.encode_image(torch.zeros(1, 3, 8, 24))


def test_a_product_that_is_not_known_is_refused(quantized):
    def attend(query, key, value):
        return torch.einsum("bqc,bkc->bqk", query, key).softmax(-1) @ value

    with pytest.raises(InputError, match="block multiplies activations by einsum"):
        quantized(wrap(Block(attend)), products="integer")


def test_a_kind_that_a_tower_does_not_have_is_refused(architecture_of, quantized):
    with pytest.raises(InputError, match="has no query, softmax; leave it out"):
        quantized(architecture_of("convnext"), products=["softmax", "query", "output"])


def test_an_add_in_place_changes_the_tensor_that_others_hold(quantized, calibration):
    class InPlace(Block):
        def forward(self, x):
            kept = y = self.out(x)
            y += x
            return kept

    clip = wrap(InPlace())
    rounded = quantized(clip, products=["residual"])
    images = torch.cat(list(calibration.batches(clip, 4)))
    grid = rounding_of(rounded).rounds[products.Site("vision", "block", "residual", 2)].__self__
    seen = []
    rounded.module.block.register_forward_hook(lambda block, args, out: seen.append(out))
    rounded.encode_image(images)
    steps = seen[0] / grid.scale
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)


def test_onnx_runtime_rounds_a_block_alike(tmp_path, quantized, calibration):
    quantization = pytest.importorskip("onnxruntime.quantization")
    import onnxruntime

    clip = wrap(Block())
    x = torch.cat(list(calibration.batches(clip, 128))).mean(1)
    onnx.save(as_graph(clip.module.block), tmp_path / "block.onnx")

    class Reader(quantization.CalibrationDataReader):
        left = [x.numpy()]

        def get_next(self):
            return {"x": self.left.pop()} if self.left else None

    quantization.quantize_static(
        tmp_path / "block.onnx", tmp_path / "q.onnx", Reader(), per_channel=True,
        extra_options={"WeightSymmetric": True},
    )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(tmp_path / "q.onnx", options, providers=["CPUExecutionProvider"])
    theirs = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])

    ours = {}
    for chosen in ("integer", "float"):
        rounded = quantized(clip, products=chosen, symmetric_activations=False, restricted_range=True)
        rounded.module.block.register_forward_hook(lambda block, args, out, to=chosen: ours.update({to: out}))
        rounded.encode_image(torch.cat(list(calibration.batches(clip, 128))))
    full = clip.module.block(x)
    error = {name: float((out - full).norm()) for name, out in (ours | {"theirs": theirs}).items()}
    assert error["integer"] == pytest.approx(error["theirs"], rel=0.15)
    assert error["float"] < 0.3 * error["theirs"]
    assert float((ours["integer"] - theirs).norm()) < error["theirs"]  # the errors themselves are alike, in part


def as_graph(block) -> onnx.ModelProto:
    """The block as torch's exporter writes it: products, then adds of the biases."""
    nodes, weights = [], []

    def constant(name, tensor):
        weights.append(numpy_helper.from_array(np.ascontiguousarray(tensor.detach().numpy()), name))
        return name

    def node(kind, inputs, out, **attributes):
        nodes.append(helper.make_node(kind, inputs, [out], name=out, **attributes))
        return out

    def linear(name, x):
        layer = getattr(block, name)
        product = node("MatMul", [x, constant(f"{name}.w", layer.weight.T)], f"{name}_product")
        return node("Add", [product, constant(f"{name}.b", layer.bias)], name)

    q, k, v = (linear(name, "x") for name in "qkv")
    turned = node("Transpose", [k], "turned", perm=[0, 2, 1])
    scaled = node("Mul", [q, constant("factor", torch.tensor(24**-0.5))], "scaled")
    shares = node("Softmax", [node("MatMul", [scaled, turned], "scores")], "shares", axis=-1)
    node("Add", ["x", linear("out", node("MatMul", [shares, v], "mixed"))], "y")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 8, 24]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "block", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
