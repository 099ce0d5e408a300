import copy
import logging

import numpy as np
import pytest
import torch

from pytest_qreliab.config.formats import Format
from pytest_qreliab.data.images import from_arrays
from pytest_qreliab.errors import InputError
from pytest_qreliab.models.same_tower import same_tower
from pytest_qreliab.quantizers.calibration import Calibration
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.inspection import coverage
from pytest_qreliab.quantizers.libraries import onnxruntime
from pytest_qreliab.quantizers.libraries.onnx_graph import Graph
from pytest_qreliab.quantizers.parameters import OnnxRuntime
from pytest_qreliab.quantizers.request import Request

for package in ("onnxruntime", "onnx", "onnxscript"):
    pytest.importorskip(package, reason="the extra pytest-qreliab[onnxruntime] is not installed")


pytestmark = pytest.mark.usefixtures("exported_once")


@pytest.fixture(scope="module")
def tiny(architecture_of):
    """A model that is exported in less time than the embedded one."""
    return architecture_of("vit")


@pytest.fixture(scope="module")
def quantized(calibration):
    def make(clip, bits, scope="both", **parameters):
        return onnxruntime.quantize(
            clip, Request(bits=bits, scope=scope, parameters=OnnxRuntime(**parameters), calibration=calibration)
        )

    return make


def operators(clip) -> set[str]:
    return {node.op_type for tower in clip.module.towers().values() for node in tower.graph().graph.node}


@pytest.mark.parametrize(
    "architecture",
    [
        "vit",
        "convnext",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("convnext-atto", "resnet", "siglip-like")),
    ],
    indirect=True,
)
def test_every_architecture(architecture, quantized, error, noise):
    images = noise(architecture)
    features, patch_map = architecture.encode_image_with_map(images)
    errors = {}
    for bits, more in (
        (Format.integers(8, 8), {}),
        (Format.integers(8, 8), {"activations": "static"}),
        (Format.integers(2), {}),
        (Format.integers(8), {}),
    ):
        clip = quantized(architecture, bits, **more)
        errors[bits, bool(more)] = error(architecture, clip)
        found = coverage.measure(architecture, clip, bits, "both")
        assert found.total_weights == coverage.measure(architecture, architecture, bits, "both").total_weights
        assert found.matrices == 1.0
        if bits.activations is None:  # MatMulNBits is no convolution
            modules = dict(architecture.module.named_modules())
            missing = [name.removeprefix("visual.onnx: ").removesuffix(".weight") for name in found.missing]
            assert all(isinstance(modules[name], torch.nn.Conv2d) for name in missing)
            assert found.weights < 1.0
        else:
            assert (found.weights, found.flops, found.missing) == (1.0, 1.0, ())
        # The spectrum is measured as well: the last patch map is there, near the original's, from the same pass.
        encoded, its_map = clip.encode_image_with_map(images)
        assert torch.equal(encoded, clip.encode_image(images))
        assert its_map.shape == patch_map.shape
        limit = 1.0 if bits.weights.bits == 2 else 0.2 if more else 0.05  # static ranges are of other images
        assert float((its_map - patch_map).norm() / patch_map.norm()) < limit
        assert encoded.shape == features.shape
        assert (clip.logit_scale, clip.logit_bias) == (architecture.logit_scale, architecture.logit_bias)
    assert max(errors[Format.integers(8), False]) < 0.05
    assert max(*errors[Format.integers(8, 8), False], *errors[Format.integers(8, 8), True]) < 0.15
    assert all(
        errors[Format.integers(2), False][tower] > 4 * errors[Format.integers(8), False][tower] for tower in (0, 1)
    )


def test_kernels_are_of_integers(tiny, quantized):
    dynamic = operators(quantized(tiny, Format.integers(8, 8)))
    assert {"MatMulInteger", "ConvInteger", "DynamicQuantizeLinear"} <= dynamic
    static = operators(quantized(tiny, Format.integers(8, 8), activations="static"))
    assert {"QuantizeLinear", "DequantizeLinear"} <= static
    assert not {"MatMulInteger", "DynamicQuantizeLinear"} & static
    four = quantized(tiny, Format.integers(4))
    assert "MatMulNBits" in operators(four)
    for tower in four.module.towers().values():
        graph = Graph(tower.graph())
        for matrix in graph.matrices():
            if not matrix.convolution:
                stored = graph.initializers[matrix.name]
                assert matrix.bits == 4
                assert len(stored.raw_data) * 2 == matrix.elements
    assert coverage.measure(tiny, four, Format.integers(4, 8), "both").weights == 0.0  # activations are floats there
    assert coverage.measure(tiny, four, Format.integers(3), "both").weights == 0.0


@pytest.mark.parametrize("activations", ["static", "dynamic"])
def test_products_of_activations_are_integers_if_asked_for(tiny, quantized, error, activations):
    eights = Format.integers(8, 8)
    errors = {}
    for products in ("float", "integer"):
        clip = quantized(tiny, eights, activations=activations, products=products)
        assert (coverage.measure(tiny, clip, eights, "both").products == 1.0) == (products == "integer")
        errors[products] = error(tiny, clip)
    assert max(errors["integer"]) < 0.2  # a mask's infinities are on no grid
    assert sum(errors["integer"]) > sum(errors["float"])


def test_scope_leaves_the_other_tower_and_the_original_alone(tiny, quantized, noise, prompts):
    before = {name: value.clone() for name, value in tiny.module.state_dict().items()}
    vision, text = (quantized(tiny, Format.integers(8, 8), scope) for scope in ("vision", "text"))
    assert torch.equal(vision.encode_text(prompts), tiny.encode_text(prompts))
    assert torch.equal(text.encode_image(noise(tiny)), tiny.encode_image(noise(tiny)))
    assert text.encode_image_with_map(noise(tiny))[1] is not None
    for clip, scope in ((vision, "vision"), (text, "text")):
        assert coverage.measure(tiny, clip, Format.integers(8, 8), scope).weights == 1.0
        assert [tower for tower in ("vision", "text") if same_tower(clip, tiny, tower)] == [
            "text" if scope == "vision" else "vision"
        ]
    assert not torch.equal(vision.encode_image(noise(tiny)), tiny.encode_image(noise(tiny)))
    assert all(torch.equal(value, before[name]) for name, value in tiny.module.state_dict().items())


def test_static_ranges_come_from_the_calibration_data(tiny, quantized, noise, prompts, error):
    grey = from_arrays("grey", np.random.default_rng(0).integers(125, 130, (8, 32, 32), dtype=np.uint8))
    poor = Calibration(images=grey, held_out=None, classes=["two"], templates=["{}"])
    request = Request(
        bits=Format.integers(8, 8), scope="vision", parameters=OnnxRuntime(activations="static"), calibration=poor
    )
    assert error(tiny, onnxruntime.quantize(tiny, request))[0] > 2 * error(
        tiny, quantized(tiny, Format.integers(8, 8), "vision", activations="static")
    )[0]  # fmt: skip
    with pytest.raises(ValueError, match="needs calibration data"):
        onnxruntime.quantize(
            tiny, Request(bits=Format.integers(8, 8), scope="vision", parameters=OnnxRuntime(activations="static"))
        )


def test_reduced_range_is_of_seven_bits(tiny, quantized):
    for reduce, largest in ((True, 64), (False, 127)):
        clip = quantized(tiny, Format.integers(8, 8), "text", reduce_range=reduce)
        graph = Graph(clip.module.text.graph())
        from onnx import numpy_helper

        found = [abs(numpy_helper.to_array(graph.initializers[m.name]).astype(int)).max() for m in graph.matrices()]
        assert largest - 1 <= max(found) <= largest


def test_a_copy_encodes_the_same_any_batch_and_nothing_is_logged(tiny, quantized, noise, caplog):
    before = list(logging.getLogger().handlers)
    with caplog.at_level(logging.INFO):
        clip = quantized(tiny, Format.integers(8, 8), activations="static")
    assert not caplog.records
    assert logging.getLogger().handlers == before
    images = noise(tiny)
    encoded = clip.encode_image(images)
    assert torch.equal(copy.deepcopy(clip).encode_image(images), encoded)
    torch.testing.assert_close(clip.encode_image(images[:1]), encoded[:1], rtol=1e-3, atol=1e-3)


def test_other_bits_are_refused(tiny, quantized):
    for bits in (Format.integers(4, 8), Format.integers(6)):
        with pytest.raises(InputError, match=f"onnxruntime has no {bits}: write w8a8, w2, w4 or w8"):
            quantized(tiny, bits)


def test_a_tower_that_cannot_be_exported_is_named(architecture_of, monkeypatch):
    class Odd(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    clip = architecture_of("custom-text").copy()
    clip.module.text.token_embedding = Odd()
    with pytest.raises(InputError, match="custom-text: the text tower cannot be exported to ONNX: "):
        onnxruntime.export(clip, "text")
    monkeypatch.setattr(onnxruntime, "LARGEST", 10_000)
    with pytest.raises(
        InputError, match=r"custom-text: the visual tower has .* GiB of weights, and an ONNX file holds 2 GiB"
    ):
        onnxruntime.export(clip, "visual")


@pytest.mark.parametrize(
    ("bits", "patterns"),
    [
        ("w4", {"*.out_proj": "keep", "*.q_proj": "w8"}),
        ("w8a8", {"visual.conv1": "keep", "*.out_proj": "keep"}),
        ("w4", {"*.out_proj": "keep", "*.q_proj": "w8a8"}),
    ],
)
def test_layers_have_formats_of_their_own_or_are_kept(tiny, quantized, bits, patterns):
    clip = quantized(tiny, Format.of(bits), layers=patterns)
    asked = Request(bits=Format.of(bits), scope="both", parameters=OnnxRuntime(layers=patterns))
    formats = engine_layers.find_own_formats(tiny, asked)
    kept = {name for name, form in formats.items() if form is None}
    found = coverage.measure(tiny, clip, Format.of(bits), "both", "channel", formats)
    convolution = set() if bits == "w8a8" else {"visual.conv1"}  # which the weight-only tool leaves as it is
    missing = {name.split(": ")[1].removesuffix(".weight") for name in found.missing}
    assert missing == kept | convolution
    assert found.matrices == 1.0
    ignored = coverage.measure(tiny, quantized(tiny, Format.of(bits)), Format.of(bits), "both", "channel", formats)
    assert ignored.matrices < 1.0
    with pytest.raises(InputError, match=r"it declares to quantize 100\.0%"):
        ignored.require(1.0, "it", convolutions=False)
    stored = {
        matrix.name: matrix.bits
        for tower in clip.module.towers().values()
        for matrix in Graph(tower.graph()).matrices()
    }
    own = {bits for name, bits in stored.items() if ".q_proj" in name}
    assert own == ({8} if "*.q_proj" in patterns or bits == "w8a8" else {4})
