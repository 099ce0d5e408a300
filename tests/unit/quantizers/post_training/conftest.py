import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pytest_qreliab.data.images import from_arrays
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.models import loading
from pytest_qreliab.quantizers.calibration import Calibration
from pytest_qreliab.quantizers.request import Request

TEMPLATES = ("a photo of a {}.", "a low resolution photo of a {}.", "{}")


@pytest.fixture(scope="session")
def images(tiny, calibration):
    """Six of the calibration images, preprocessed."""
    return next(iter(calibration.batches(tiny, 6)))


@pytest.fixture(scope="session")
def on_cifar(realdata):
    """Measures a quantizer on a trained CLIP and 600 photographs: agreement with full precision, and KL divergence."""
    clip = loading.load_model(f"local-dir:{realdata / 'cifar_clip'}")
    classes = sorted(path.name for path in (realdata / "cifar10_test").iterdir())

    def read(start, count):
        files = [
            path for name in classes for path in sorted((realdata / "cifar10_test" / name).iterdir())[start:][:count]
        ]
        pixels = np.stack([np.array(Image.open(path).convert("RGB")) for path in files])
        return from_arrays("photographs", pixels, np.arange(len(files)) // count)

    calibration = Calibration.split(read(500, 20), classes, TEMPLATES)
    batches = list(Calibration(images=read(0, 60), held_out=None, classes=(), templates=()).batches(clip, 600))

    @torch.no_grad()
    def log_probabilities(model):
        seen = F.normalize(torch.cat([model.encode_image(batch) for batch in batches]), dim=-1)
        texts = torch.stack(
            [
                F.normalize(model.encode_text(calibration.captions(label)), dim=-1).mean(0)
                for label in range(len(classes))
            ]
        )
        return (model.module.logit_scale.exp() * seen @ F.normalize(texts, dim=-1).T).log_softmax(-1)

    full = log_probabilities(clip)

    def measure(quantizer, bits, **parameters):
        recipe = Catalog().recipe(quantizer)
        chosen = recipe.quantizer.parameters.model_validate(parameters) if parameters else recipe.parameters
        request = Request(bits=bits, scope="both", parameters=chosen, calibration=calibration)
        found = log_probabilities(recipe.apply()(clip, request))
        agreement = (found.argmax(1) == full.argmax(1)).float().mean()
        return float(agreement), float((full.exp() * (full - found)).sum(1).mean())

    return measure
