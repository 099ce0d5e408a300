"""Models of one's own: foreign modules, quantized and gated like open_clip's."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pytest_qreliab import Clip
from pytest_qreliab.config.formats import Format
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.evaluator import Evaluator
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.quantizers.builtin import BUILTIN
from pytest_qreliab.quantizers.calibration import Calibration
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.engine.unpack import Attention
from pytest_qreliab.quantizers.inspection import coverage
from pytest_qreliab.quantizers.recipe import Recipe
from pytest_qreliab.quantizers.request import Request

# What torch's own encoder says of its fused path for padded input.
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")


def preprocess(image):
    resized = np.asarray(image.convert("RGB").resize((16, 16)), dtype=np.float32)
    return torch.from_numpy(resized / 255).permute(2, 0, 1).contiguous()


def tokenizer(texts):
    """A mapping, as Hugging Face's tokenizers give, in place of a tensor."""
    ids = torch.tensor([[*text.encode()[:8], *[0] * (8 - len(text.encode()[:8]))] for text in texts])
    return {"input_ids": ids, "attention_mask": ids > 0}


class Block(nn.Module):
    """A transformer block with separate projections, as in Hugging Face's models."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        y = self.layer_norm1(x)
        attended = nn.functional.scaled_dot_product_attention(self.q_proj(y), self.k_proj(y), self.v_proj(y))
        x = x + self.out_proj(attended)
        return x + self.fc2(nn.functional.gelu(self.fc1(self.layer_norm2(x))))


class Fused(nn.Module):
    """torch's own encoder, which has fused paths that call none of its Linears."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, x, padding=None):
        return self.encoder(x, src_key_padding_mask=padding)


class Attending(nn.Module):
    """nn.MultiheadAttention, called with its defaults."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn, self.fc = nn.MultiheadAttention(width, 2), nn.Linear(width, width)

    def forward(self, x):
        y = x.transpose(0, 1)
        return x + self.fc(self.attn(y, y, y)[0].transpose(0, 1))


class VisionModel(nn.Module):
    def __init__(self, block: type[nn.Module]) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, 16, 4, 4)
        self.block = block(16)

    def forward(self, pixels):
        maps = self.patch_embedding(pixels)
        x = self.block(maps.flatten(2).transpose(1, 2))
        return x.mean(1), x.transpose(1, 2).reshape(maps.shape)


class TextModel(nn.Module):
    def __init__(self, block: type[nn.Module]) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(256, 16)
        self.block = block(16)

    def forward(self, input_ids, attention_mask):
        x = self.token_embedding(input_ids)
        return (self.block(x, ~attention_mask) if isinstance(self.block, Fused) else self.block(x)).mean(1)


class OwnClip(nn.Module):
    """A CLIP with Hugging Face's names, and a head that nothing passes through."""

    def __init__(self, block: type[nn.Module] = Block) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.vision_model, self.text_model = VisionModel(block), TextModel(block)
        self.visual_projection, self.text_projection = nn.Linear(16, 12, bias=False), nn.Linear(16, 12, bias=False)
        self.classifier = nn.Linear(12, 1000)
        self.logit_scale = nn.Parameter(torch.tensor(3.0))

    def encode_image(self, pixels):
        return self.visual_projection(self.vision_model(pixels)[0])

    def encode_text(self, tokens):
        return self.text_projection(self.text_model(**tokens))


class BareClip(OwnClip):
    """Its image features come out of a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.visual_projection = None
        self.proj = nn.Parameter(torch.randn(16, 12) / 4)

    def encode_image(self, pixels):
        return self.vision_model(pixels)[0] @ self.proj


class Shared(nn.Module):
    """One transformer for both towers, and a part of each, in one container that both call."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.ModuleDict(
            {
                "image": nn.Linear(48, 16),
                "text": nn.Linear(8, 16),
                "shared": nn.Linear(16, 12),
                "unused": nn.Linear(2, 2),
            }
        )
        self.logit_scale = nn.Parameter(torch.tensor(2.0))

    def encode_image(self, pixels):
        return self.trunk["shared"](self.trunk["image"](pixels[:, :, ::4, ::4].flatten(1)))

    def encode_text(self, tokens):
        return self.trunk["shared"](self.trunk["text"](tokens["input_ids"].float() / 256))


def wrap(model, **options):
    return Clip.wrap(model, preprocess, tokenizer, **options)


def noise(n: int = 8) -> ImageSet:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)) for _ in range(n)]
    return ImageSet(name="noise", ids=list(map(str, range(n))), load=images.__getitem__)


TEXTS = ["a cat", "a dog", "an owl"]


@pytest.fixture(scope="module")
def calibration():
    return Calibration.split(noise(), TEXTS, ["{}"])


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("block", [Block, Attending, Fused])
@pytest.mark.parametrize("scope", ["vision", "text", "both"])
def test_unpacking_keeps_a_foreign_models_outputs(block, scope, pixels):
    clip = wrap(OwnClip(block))
    unpacked, layers = engine_layers.unpack_layers(clip, scope)
    torch.testing.assert_close(unpacked.encode_image(pixels), clip.encode_image(pixels), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(unpacked.encode_text(TEXTS), clip.encode_text(TEXTS), rtol=1e-4, atol=1e-5)
    assert "classifier" not in layers
    towers = {"vision": "vi", "text": "text", "both": ("vi", "text")}[scope]
    assert all(name.startswith(towers) for name in layers)
    assert len(layers) == {Block: {"vision": 8, "text": 7}, Attending: {"vision": 7, "text": 6}, Fused: {
        "vision": 14, "text": 13}}[block].get(scope, len(layers))  # fmt: skip


@pytest.mark.parametrize("block", [Block, Attending, Fused])
@pytest.mark.parametrize("scope", ["vision", "text", "both"])
@pytest.mark.parametrize("quantizer", ["minmax", "gptq"])
def test_every_weight_of_a_foreign_model_is_quantized(block, scope, quantizer, calibration):
    clip = wrap(OwnClip(block))
    before = {name: value.clone() for name, value in clip.module.state_dict().items()}
    recipe = Catalog().recipe(quantizer)
    quantized = recipe.apply()(
        clip, Request(bits=Format.integers(3, 8), scope=scope, parameters=recipe.parameters, calibration=calibration)
    )
    covered = coverage.measure(clip, quantized, Format.integers(3, 8), scope)
    assert covered.missing == ()
    assert covered.weights == covered.flops == 1.0
    after = clip.module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not torch.equal(quantized.encode_text(TEXTS), clip.encode_text(TEXTS)) or scope == "vision"


OURS = [quantizer for quantizer in BUILTIN if quantizer.rounds and not quantizer.packages and not quantizer.read_bits]


@pytest.mark.parametrize("quantizer", OURS, ids=lambda quantizer: quantizer.name)
def test_every_method_works_on_a_foreign_model(quantizer, calibration):
    clip = wrap(OwnClip(Attending))
    parameters = quantizer.parameters(**({"steps": 2} if "steps" in quantizer.parameters.model_fields else {}))
    labels = np.arange(len(calibration.images)) % len(calibration.classes)
    labelled = replace(calibration, images=replace(calibration.images, labels=labels))
    request = Request(bits=Format.integers(4, 8), scope="both", parameters=parameters, calibration=labelled)
    quantized = Recipe(name=quantizer.name, quantizer=quantizer, parameters=parameters).apply()(clip, request)
    formats = engine_layers.find_own_formats(clip, request)
    assert coverage.measure(clip, quantized, request.bits, "both", formats=formats).missing == ()
    assert bool(quantized.encode_text(TEXTS).isfinite().all())


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_without_a_batch(batch_first):
    packed = nn.MultiheadAttention(8, 1, batch_first=batch_first).eval()
    query, key, padding = torch.randn(5, 8), torch.randn(6, 8), torch.arange(6) > 3
    expected = packed(query, key, key, key_padding_mask=padding)[0]
    torch.testing.assert_close(Attention(packed)(query, key, key, key_padding_mask=padding)[0], expected)


def test_what_both_towers_use_is_part_of_both_and_what_none_uses_of_none():
    clip = wrap(Shared())
    names = ("trunk.image", "trunk.text", "trunk.shared", "trunk.unused", "trunk.image.weight", "trunk")
    assert {name: [s for s in ("vision", "text", "both") if clip.in_scope(name, s)] for name in names} == {
        "trunk.image": ["vision", "both"],
        "trunk.text": ["text", "both"],
        "trunk.shared": ["vision", "text", "both"],
        "trunk.unused": [],
        "trunk.image.weight": ["vision", "both"],
        "trunk": ["vision", "text", "both"],
    }


def test_the_image_tower_can_be_named():
    clip = wrap(OwnClip(), vision=["vision_model", "visual_projection"])
    assert clip.in_scope("vision_model.block.fc1", "vision")
    assert clip.in_scope("visual_projection.weight", "vision")
    assert not clip.in_scope("visual_projection.weight", "text")
    assert clip.in_scope("text_model.block.fc1", "text")
    with pytest.raises(
        InputError, match=r"unknown module or parameter in vision= 'vison_model'; did you mean 'vision_"
    ):
        wrap(OwnClip(), vision=["vison_model"])


def test_what_the_text_tower_reads_of_a_named_image_tower_is_part_of_both_and_the_other_way_round():
    for vision in (["trunk.image"], ["trunk.image", "trunk.shared"]):
        clip = wrap(Shared(), vision=vision)
        found = {name: [s for s in ("vision", "text") if clip.in_scope(f"trunk.{name}.weight", s)] for name in (
            "image", "text", "shared", "unused")}  # fmt: skip
        assert found == {"image": ["vision"], "text": ["text"], "shared": ["vision", "text"], "unused": ["text"]}


class Conditional(Shared):
    """Has a layer for bright images alone, one for dark ones, and one for prompts of more than two letters."""

    def __init__(self) -> None:
        super().__init__()
        self.bright, self.dark, self.long = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 12)

    def encode_image(self, pixels):
        features = super().encode_image(pixels)
        return self.bright(features) if pixels.mean() > 0.5 else self.dark(features)

    def encode_text(self, tokens):
        features = super().encode_text(tokens)
        return self.long(features) if int(tokens["attention_mask"].sum(1).max()) > 2 else features


def test_layers_that_only_some_inputs_use_are_found_and_have_to_be_quantized(calibration):
    clip = wrap(Conditional())
    found = {name: [s for s in ("vision", "text") if clip.in_scope(name, s)] for name in ("bright", "dark", "long")}
    assert found == {"bright": ["vision"], "dark": ["vision"], "long": ["text"]}
    quantized, layers = engine_layers.unpack_layers(clip, "both")
    for name, layer in layers.items():
        if name not in ("bright", "long"):
            layer.weight.copy_(torch.round(layer.weight * 4).clamp(-7, 7))
    missing = coverage.measure(clip, quantized, Format.integers(4), "both").missing
    assert set(missing) == {"bright.weight", "long.weight"}


def test_an_open_clip_model_can_be_wrapped_as_well(tiny):
    clip = Clip.wrap(tiny.module, tiny.preprocess, tiny.tokenizer)
    assert clip.logit_scale == tiny.logit_scale
    for name, _ in tiny.module.named_parameters():
        if name != "logit_scale":
            assert all(clip.in_scope(name, scope) == tiny.in_scope(name, scope) for scope in ("vision", "text", "both"))


def test_logit_scales():
    assert wrap(OwnClip()).logit_scale == pytest.approx(np.exp(3))
    given = wrap(OwnClip(), logit_scale=50)
    assert given.logit_scale == pytest.approx(50)
    other = given.copy()
    other.set_logit_scale(20.0)
    assert (round(other.logit_scale), round(given.logit_scale)) == (20, 50)
    own = wrap(OwnClip())
    other = own.copy()
    other.set_logit_scale(20.0)
    assert other.logit_scale == pytest.approx(20)
    assert own.logit_scale == pytest.approx(np.exp(3))
    assert wrap(OwnClip()).logit_bias == 0.0


def test_functions_in_place_of_methods_and_a_patch_map(pixels):
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = OwnClip()

    def image(model, x):
        pooled, maps = model.own.vision_model(x)
        return model.own.visual_projection(pooled), maps

    clip = Clip.wrap(
        Other(), preprocess, tokenizer, logit_scale=10.0,
        encode_image=image, encode_text=lambda model, tokens: model.own.encode_text(tokens),
    )  # fmt: skip
    features, maps = clip.encode_image_with_map(pixels)
    assert (features.shape, maps.shape) == ((3, 12), (3, 16, 4, 4))
    assert torch.equal(clip.encode_image(pixels), features)
    assert wrap(OwnClip()).encode_image_with_map(pixels)[1] is None


class NoModule:
    """A runtime of one's own."""

    logit_scale = 100.0

    def __init__(self) -> None:
        self.clip = OwnClip().eval().requires_grad_(False)

    def encode_image(self, images):
        return self.clip.encode_image(images)

    def encode_text(self, tokens):
        return self.clip.encode_text(tokens)


def test_what_is_no_torch_module_can_be_measured_but_not_quantized(pixels):
    clip = wrap(NoModule(), logit_scale=100.0)
    assert clip.encode_image(pixels).shape == (3, 12)
    assert clip.device == torch.device("cpu")
    with pytest.raises(InputError, match="NoModule is no torch module, so it can be measured but not quantized"):
        engine_layers.unpack_layers(clip, "both")


def without_scale():
    model = OwnClip()
    del model.logit_scale
    return model


def broken(**methods):
    return type("Broken", (OwnClip,), methods)()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: wrap(OwnClip), "OwnClip is a class; give an instance"),
        (lambda: wrap(nn.Linear(2, 2)), "Linear has no encode_image; give encode_image=, a function of the module"),
        (lambda: Clip.wrap(OwnClip()), "OwnClip has no preprocess; give preprocess=, a function from a PIL image"),
        (lambda: Clip.wrap(OwnClip(), preprocess), "OwnClip has no tokenizer; give tokenizer=, a function from a list"),
        (lambda: wrap(OwnClip().half()), r"\w+ is in float16; .* call .float\(\)"),
        (lambda: wrap(OwnClip(), logit_scale=0), "logit_scale is 0; give the factor from cosines to logits"),
        (lambda: wrap(OwnClip(), logit_scale=float("nan")), "logit_scale is nan; give the factor"),
        (lambda: wrap(OwnClip(), logit_scale=4.6052), "logit_scale is 4.6052, the logarithm of 100; give the factor"),
        (lambda: wrap(NoModule()), "NoModule has a logit_scale that is a float; give the factor"),
        (lambda: wrap(without_scale()), "OwnClip has no logit_scale; give the factor from cosines to logits"),
        (lambda: wrap(OwnClip(), coverage=0), "coverage=0: give a share"),
        (lambda: wrap(broken(encode_image=lambda s, x: 1 / 0)), r"encode_image raised ZeroDivisionError: division by "
            r"zero \(tests/unit/models/test_wrapped.py:\d+\)"),
        (lambda: wrap(broken(encode_image=lambda s, x: None)), r"encode_image gave None for 2 images; a tensor"),
        (lambda: wrap(broken(encode_image=lambda s, x: x)), r"encode_image gave a float32 tensor \(2, 3, 16, 16\)"),
        (lambda: wrap(broken(encode_image=lambda s, x: x[:1, 0, 0])), r"encode_image gave a float32 tensor \(1, 16\)"),
        (lambda: wrap(broken(encode_image=lambda s, x: (x[:, 0, 0], 3))), "encode_image gave a patch map of a int"),
        (lambda: wrap(broken(encode_image=lambda s, x: x[:, 0, 0])), "gives 16 features and encode_text 12"),
        (lambda: wrap(broken(encode_image=lambda s, x: x[:, 0, 0, :12] * float("nan"))), "image gave NaN or inf"),
        (lambda: wrap(broken(encode_text=lambda s, t: torch.ones(1, 12))), r"gave a .* \(1, 12\) for 2 texts"),
        (lambda: Clip.wrap(OwnClip(), lambda image: image, tokenizer), "preprocess gave a Image; a float32 tensor"),
        (lambda: Clip.wrap(OwnClip(), lambda image: preprocess(image).double(), tokenizer), "gave a float64 tensor"),
        (lambda: Clip.wrap(OwnClip(), preprocess, lambda texts: texts[7]), "tokenizer raised IndexError"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_used(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_logit_scale_that_is_the_factor_itself():
    model = OwnClip()
    model.logit_scale.data.fill_(100.0)
    with pytest.raises(InputError, match=r"logit_scale is 100, which is no logarithm of a factor; .*; give .* 100.0"):
        wrap(model)


# Registered, and through a whole case


def plan_of(make_plan_with, make, small_benchmark, **given):
    catalog = Catalog()
    catalog.add_model("mine", make, help="my own")
    return make_plan_with(catalog, models="mine", benchmarks=str(small_benchmark), **given)


@pytest.fixture
def make_plan_with():
    from pytest_qreliab.config import settings as config_settings
    from pytest_qreliab.evaluation.planning import make_plan

    def make(catalog, **given):
        settings = config_settings.resolve(lambda ini: given.get(ini.removeprefix("qreliab_")), lambda ini: None)
        return make_plan.make_plan(settings, catalog)

    return make


class Complete(OwnClip):
    """Brings its own transform and tokenizer."""

    preprocess = staticmethod(preprocess)
    tokenizer = staticmethod(tokenizer)


@pytest.mark.parametrize(
    "make", [lambda: wrap(OwnClip(Attending)), wrap(OwnClip()), Complete(), Complete, lambda: wrap(OwnClip(Fused))]
)
def test_a_factory_a_clip_and_a_model_are_gated_like_the_rest(make_plan_with, make, small_benchmark):
    plan = plan_of(make_plan_with, make, small_benchmark, bits="4,w8", scopes="both,text", quantizers="minmax+rescale")
    evaluator = Evaluator(plan)
    for case in plan.cases:
        result = evaluator.result(case)
        assert result.coverage.weights == 1.0
        assert result.samples == 120
    assert evaluator.baseline("mine").name == evaluator.quantized(plan.cases[0].build).name == "mine"
    assert plan.cases[0].id == "mine/minmax+rescale/w4a8/small"


def test_bare_parameters_have_to_be_allowed_for(make_plan_with, small_benchmark):
    plan = plan_of(make_plan_with, lambda: wrap(BareClip()), small_benchmark, bits="w4")
    with pytest.raises(InputError, match=r"declares to quantize 100.0% .* quantized: proj; .* coverage=0.9") as told:
        Evaluator(plan).result(plan.cases[0])
    found = re.search(r"of all, ([\d.]+)% of the weights, ([\d.]+)% of the FLOPs", str(told.value))
    share, flops = (float(text) / 100 for text in found.groups())
    bar = min(share, flops) - 0.001
    plan = plan_of(make_plan_with, lambda: wrap(BareClip(), coverage=bar), small_benchmark, bits="w4")
    assert Evaluator(plan).result(plan.cases[0]).coverage.weights == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: 1 / 0,
            r"model 'mine': what was registered to make it raised ZeroDivisionError: .*test_wrapped.py:\d+\)",
        ),
        (lambda: None, r"model 'mine': NoneType has no preprocess; .* \(a NoneType was given; see Clip.wrap\)"),
        (OwnClip(), r"model 'mine': OwnClip has no preprocess"),
        (lambda: wrap(OwnClip(), logit_scale=-1), "model 'mine': logit_scale is -1; give"),
        (wrap(NoModule(), logit_scale=100.0), "NoModule is no torch module"),
    ],
)
def test_registered_models_that_cannot_be_used(make_plan_with, make, message, small_benchmark):
    plan = plan_of(make_plan_with, make, small_benchmark, bits="w8")
    with pytest.raises(InputError, match=message):
        Evaluator(plan).result(plan.cases[0])


def test_hugging_faces_clip(calibration):
    transformers = pytest.importorskip("transformers")
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        vision_config={**tower, "image_size": 16, "patch_size": 4},
        text_config={**tower, "vocab_size": 256, "max_position_embeddings": 8, "eos_token_id": 255},
        projection_dim=12,
    )

    def features(out):
        return out if isinstance(out, torch.Tensor) else out.pooler_output

    clip = wrap(
        transformers.CLIPModel(config),
        encode_image=lambda model, images: features(model.get_image_features(pixel_values=images)),
        encode_text=lambda model, tokens: features(model.get_text_features(**tokens)),
    )
    recipe = Catalog().recipe("minmax")
    for scope in ("vision", "text"):
        quantized = recipe.apply()(
            clip,
            Request(bits=Format.integers(4, 8), scope=scope, parameters=recipe.parameters, calibration=calibration),
        )
        assert coverage.measure(clip, quantized, Format.integers(4, 8), scope).missing == ()
