"""What the tests of training share: data of a tenth of a second's training, and what a trained model is compared by."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pytest_qreliab.config.formats import Format
from pytest_qreliab.data import images
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.calibration import Calibration
from pytest_qreliab.quantizers.request import Request

CLASSES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
W3 = Format.integers(3)
TEMPLATES = ["a photo of the digit {}.", "a handwritten {}.", "{}"]


@pytest.fixture(scope="session")
def calibration():
    """Forty noise images of ten classes, and three templates."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 8, 8), dtype=np.uint8)
    noise = images.from_arrays("noise", pixels, np.arange(40) % 10)
    return Calibration(images=noise, held_out=None, classes=CLASSES, templates=TEMPLATES)


@pytest.fixture(scope="session")
def pixels(tiny, calibration):
    return torch.stack([tiny.preprocess(calibration.images.load(i)) for i in range(8)])


@pytest.fixture(scope="session")
def train():
    """Trains a copy of a model for a few steps, by a method of the catalogue."""

    def quantize(clip: Clip, calibration: Calibration, method: str = "lsq", bits: Format = W3, **given) -> Clip:
        recipe = Catalog().recipe(method)
        request = {key: given.pop(key) for key in ("scope", "advance", "checkpoints") if key in given}
        parameters = recipe.quantizer.parameters(**({"steps": 4, "batch": 8} | given))
        asked = Request(bits=bits, **({"scope": "both"} | request), parameters=parameters, calibration=calibration)
        return recipe.apply()(clip, asked)

    return quantize


@pytest.fixture(scope="session")
def feature_error():
    """Mean squared distance of unit image and text features, summed."""

    def measure(clip: Clip, other: Clip, pixels: torch.Tensor) -> float:
        texts = [caption.replace("{}", CLASSES[3]) for caption in TEMPLATES]
        return sum(
            float((F.normalize(a, dim=-1) - F.normalize(b, dim=-1)).square().sum(1).mean())
            for a, b in (
                (clip.encode_image(pixels), other.encode_image(pixels)),
                (clip.encode_text(texts), other.encode_text(texts)),
            )
        )

    return measure


@pytest.fixture(scope="session")
def state():
    """Weights, and what the input quantizers make of a ramp: all that a quantized model is."""

    def read(clip: Clip) -> dict[str, torch.Tensor]:
        found = dict(clip.module.state_dict())
        for name, layer in clip.module.named_modules():
            for hook in layer._forward_pre_hooks.values():
                if hook.round is not None:
                    found[f"{name}.grid"] = hook.round(torch.linspace(-20, 20, 1001)[None])
        return found

    return read


@pytest.fixture(scope="session")
def same(state):
    """Whether two quantized models are the same bit for bit."""

    def compare(clip: Clip, other: Clip) -> bool:
        a, b = state(clip), state(other)
        return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)

    return compare


LAYERS = {
    "linear": lambda: nn.Linear(12, 6),
    "without bias": lambda: nn.Linear(12, 6, bias=False),
    "convolution": lambda: nn.Conv2d(12, 6, 2, stride=2),
    "grouped": lambda: nn.Conv2d(12, 6, 2, groups=3),
}


@pytest.fixture(params=LAYERS)
def layer(request) -> nn.Module:
    """A layer of each kind, with 12 inputs and 6 outputs, or of the kinds that `indirect` names."""
    torch.manual_seed(0)
    return LAYERS[request.param]()


@pytest.fixture(scope="session")
def random():
    """Seeded normal values of a shape."""

    def make(*shape: int, seed: int = 0) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    return make


@pytest.fixture(scope="session")
def full_range():
    """A one for each output channel of a layer, in a shape that broadcasts with its weight."""

    def make(layer: nn.Module) -> torch.Tensor:
        weight = layer.weight
        return torch.ones(len(weight), *(1,) * (weight.ndim - 1))

    return make
