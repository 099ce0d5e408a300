"""`qt-dog`: rounding as a noise that leads training to flat minima (Javed et al. 2025, arXiv 2410.06020).

The model is trained for its task, first in full precision and then with rounded weights, by LSQ. A CLIP's task is to
tell which caption belongs to an image. Without captions there is no task that needs no labels. The model is then
trained towards its own features, and a start in full precision, which would change nothing, is left out.
"""

from __future__ import annotations

from dataclasses import replace

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.request import Request
from pytest_qreliab.quantizers.training.loop import quantize
from pytest_qreliab.quantizers.training.losses import contrastive, feature_mse
from pytest_qreliab.quantizers.training.parametrize import learn_steps, learn_weights


def qt_dog(clip: Clip, request: Request) -> Clip:
    """Return a copy trained on captions first without and then with rounding, or else towards its own features."""
    if request.require_calibration().pairs is None:
        return quantize(clip, request, "qt-dog", loss=feature_mse, parametrize=learn_steps)
    steps = request.parameters.steps
    first = round(request.parameters.unrounded * steps)
    if first:
        start = _with_steps(request, first)
        clip = quantize(clip, start, "qt-dog-start", loss=contrastive, parametrize=learn_weights, compared="pairs")
    rest = _with_steps(request, steps - first)
    return quantize(clip, rest, "qt-dog", loss=contrastive, parametrize=learn_steps, compared="pairs")


def _with_steps(request: Request, steps: int) -> Request:
    return replace(request, parameters=request.parameters.model_copy(update={"steps": steps}))
