"""Say in words what a quantizer is trained on, and whether those are the classes that it is tested on."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.config.cases import Case
from pytest_qreliab.config.set_names import CALIBRATION
from pytest_qreliab.config.sources import CaptionedImages
from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.quantizers.recipe import Recipe


@dataclass(frozen=True)
class TrainingData:
    """The data that shape a quantized model as training data do."""

    words: str  # to stand behind "trained on"; empty for a quantizer that does not train
    warning: str = ""  # if the model learns the labels of the classes that it is tested on


def describe_training(case: Case, recipe: Recipe, benchmark: Benchmark, data: Dataset) -> TrainingData:
    """Return what a case's quantizer is trained on.

    Args:
        case: The case.
        recipe: The recipe of its quantizer.
        benchmark: The benchmark, which the quantizer is also tested on.
        data: Its data.
    """
    trained = recipe.matched or recipe  # a control errs as what it matches
    needs = trained.quantizer.needs
    parts, warning = [], ""
    if trained.steps or needs == "pairs":
        labelled = needs == "pairs" and data.captions is None
        if needs in ("both", "pairs"):
            parts.append(_of_pairs(benchmark) or _of_both(benchmark, labelled=labelled))
        else:
            parts.append(_of_towers(case.build.scope, benchmark))
        if labelled:
            warning = (
                f"{benchmark.name}: {recipe.name} is trained on labels of the classes that it is tested on, so that "
                f"its results hold for these classes alone; add `captions:` to {benchmark.where((CALIBRATION,))}, or "
                "take a quantizer that needs no labels, such as lsq"
            )
    if recipe.rescale:
        parts.append(f"labelled calibration images of {benchmark.name} (the logit scale alone)")
    return TrainingData("; ".join(parts), warning)


def _of_towers(scope: str, benchmark: Benchmark) -> str:
    """Name what the towers in scope are trained on, each by itself."""
    calibration = benchmark.definition.calibration
    pairs = _of_pairs(benchmark)
    if not pairs and scope == "both":
        return _of_both(benchmark, labelled=False)
    if isinstance(calibration, CaptionedImages) and scope == "both":
        return pairs
    images, texts = f"calibration images of {benchmark.name}, without labels", f"class prompts of {benchmark.name}"
    if isinstance(calibration, CaptionedImages):
        images = f"images of {pairs}"
    if pairs:
        texts = f"captions of {pairs}"
    return {"vision": images, "text": texts, "both": f"{images}, and {texts}"}[scope]


def _of_pairs(benchmark: Benchmark) -> str:
    """Name the image-caption pairs; empty if there are none."""
    calibration = benchmark.definition.calibration
    captions = None if calibration is None else calibration.captions
    return "" if captions is None else f"image-caption pairs in {captions.path}"


def _of_both(benchmark: Benchmark, *, labelled: bool) -> str:
    return f"calibration images and class prompts of {benchmark.name}, with{'' if labelled else 'out'} labels"
