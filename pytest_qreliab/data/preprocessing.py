"""The two halves of a model's preprocessing: to the size that it sees, and to the numbers that it takes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import Compose, ToTensor

from pytest_qreliab.data.corruptions import corrupt
from pytest_qreliab.data.images import Corruption

Preprocess = Callable[[Image.Image], torch.Tensor]


def corrupted(preprocess: Preprocess, corruption: Corruption) -> Preprocess:
    """The same preprocessing with the image corrupted once it has been resized and cropped, as ImageNet-C was.

    Where it is no torchvision `Compose` with one `ToTensor`, as open_clip's are, its halves are not known, and the
    image is corrupted at its own size.
    """
    steps = list(preprocess.transforms) if isinstance(preprocess, Compose) else []
    places = [place for place, step in enumerate(steps) if isinstance(step, ToTensor)]
    resize, finish = Compose([]), preprocess
    if len(places) == 1:
        resize, finish = Compose(steps[: places[0]]), Compose(steps[places[0] :])

    def apply(image: Image.Image) -> torch.Tensor:
        pixels = np.asarray(resize(image).convert("RGB"))
        tensor: torch.Tensor = finish(
            Image.fromarray(corrupt(pixels, corruption.kind, corruption.severity, corruption.seed))
        )
        return tensor

    return apply
