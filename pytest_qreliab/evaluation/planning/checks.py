"""Check that a benchmark has what the cases and gates of a plan need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pytest_qreliab.config import set_names
from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.config.cases import Case
from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.data.shared_images import check_training
from pytest_qreliab.errors import InputError, suggestion
from pytest_qreliab.metrics import registry
from pytest_qreliab.metrics.names import MetricName, SetName
from pytest_qreliab.quantizers.recipe import Recipe

FEWEST_HELD_OUT = 25  # images that one number can be fitted on
LABELLED = "give a source of the benchmark's classes: digits, or an image-folder with the same folder names"
# The key of a benchmark file that lists the image sets of a family of metrics.
KEYS = {"ood": "ood", "shift": "covariate_shift", "corruption": "corruptions", "spurious": "spurious"}


def check_calibration(case: Case, recipe: Recipe, benchmark: Benchmark, data: Dataset) -> None:
    """Raise InputError if the benchmark lacks calibration data that the case's quantizer needs."""
    if recipe.trains:
        check_training(f"{benchmark.where(('calibration',))}: {case.quantization}", data.shared)
    bits = case.build.bits
    needs = recipe.needs(bits)
    if needs == "images" and case.build.scope == "text":  # the text tower's ranges come from the prompts alone
        return
    if needs != "nothing" and data.calibration is None and data.captions is None:
        mend = f"add `calibration:` to {benchmark.where(())}"
        weights = replace(bits, activations=None)
        if recipe.needs(weights) == "nothing":
            mend += f", or quantize weights only, as in --qreliab-bits={weights}"
        raise InputError(f"{case.id}: {case.quantization} needs calibration images; {mend}")
    lack = ""
    if recipe.rescale:
        lack = _lack_of_labels(data, benchmark)
    elif needs == "pairs" and data.captions is None:
        lack = _lack_of_labels(data, benchmark)
        lack += "; or add `captions:` there, the image-caption pairs of a table or of shards" * bool(lack)
    if not lack and recipe.rescale and data.calibration is not None:
        lack = _lack_of_held_out(data.calibration, benchmark)
    if lack:
        raise InputError(f"{case.id}: {case.quantization} cannot be made: {lack}")


def lack_of_data(metric: str, benchmark: Benchmark, data: Dataset) -> str:
    """Say what a benchmark lacks to measure a metric.

    Args:
        metric: The name of a metric.
        benchmark: The benchmark.
        data: Its data.

    Returns:
        What is missing and how to mend it; empty if nothing is.
    """
    name = MetricName.parse(metric)
    if name.family == "recall":
        return _lack_of_class(name.part, benchmark, data)
    if not registry.image_sets(metric, data.sets):
        return _lack_of_sets(metric, benchmark, data)
    needs = registry.lookup(metric).needs
    if "negatives" in needs and not data.negatives and not data.recorded:  # which take no negatives
        return f"there are no negative labels; add `negatives:`, a list of words, to {benchmark.where(())}"
    if needs & {"calibration", "labels"} and data.calibration is None:
        mend = f"add `calibration:` to {benchmark.where(())}"
        if data.captions is not None:
            mend = f"add a `source:` of them to {benchmark.where(('calibration',))}"
        return f"there are no calibration images; {'record them as calibration' if data.recorded else mend}"
    lack = _lack_of_labels(data, benchmark) if "labels" in needs else ""
    if not lack and name.rescaled and data.calibration is not None:
        lack = _lack_of_held_out(data.calibration, benchmark)
    return lack


def lack_of_block(metric: str, model: str, blocks: Callable[[str], int | None]) -> str:
    """Say that a model has no block of a metric's number.

    Args:
        metric: The name of a metric.
        model: The name of the model.
        blocks: Returns the number of a model's blocks, if it is known.

    Returns:
        What is missing; empty if nothing is, as far as is known.
    """
    name = MetricName.parse(metric)
    if name.family != "spectral" or not name.part.isdecimal():
        return ""
    count = blocks(model)
    if count is None or int(name.part) <= count:
        return ""
    return f"the image tower of {model} has no block {name.part}; valid: 1 to {count}"


def _lack_of_class(name: str, benchmark: Benchmark, data: Dataset) -> str:
    """Say that a class, or any image of it, is missing."""
    if name not in data.classes:
        number = int(name) if name.isdecimal() else len(data.classes)
        meant = f" (label {name} is {data.classes[number]!r})" if number < len(data.classes) else ""
        return f"benchmark {benchmark.name!r} has no class {name!r}{meant}; {suggestion(name, data.classes)}"
    labels = data.in_distribution.labels
    if labels is not None and data.classes.index(name) not in labels:
        images = f"{len(data.in_distribution)} in-distribution samples"
        return f"none of the {images} of benchmark {benchmark.name!r} is of the class {name!r}"
    return ""


def _lack_of_sets(metric: str, benchmark: Benchmark, data: Dataset) -> str:
    """Say that the image sets of a metric are missing."""
    name = MetricName.parse(metric)
    sets = [of for of in data.sets if SetName.parse(of).category == name.family]
    if not sets:
        mend = f"add `{KEYS[name.family]}:` to {benchmark.where(())}"
        if data.recorded:
            forms = [form for form in set_names.FORMS if SetName.parse(form).category == name.family]
            mend = f"record them as {' or '.join(forms)}"
        return f"benchmark {benchmark.name!r} has no {name.family} images; {mend}"
    if not name.part:
        return f"benchmark {benchmark.name!r} lacks one of the sets common and counter; there are {', '.join(sets)}"
    parts = registry.parts(metric, data.classes, data.sets)
    return f"benchmark {benchmark.name!r} has no {name.family} images {name.part!r}; {suggestion(name.part, parts)}"


def _lack_of_labels(data: Dataset, benchmark: Benchmark) -> str:
    """Say that the calibration images have no labels."""
    if data.calibration is not None and data.calibration.labels is not None:
        return ""
    mend = "record them" if data.recorded else f"at {benchmark.where(('calibration',))} {LABELLED}"
    return f"it needs calibration images with labels; {mend}"


def _lack_of_held_out(images: ImageSet, benchmark: Benchmark) -> str:
    """Say that too few calibration images are held out."""
    if len(images) >= 4 * FEWEST_HELD_OUT:
        return ""
    return (
        f"a quarter of the calibration images is held out to refit the logit scale, and of the {len(images)} at "
        f"{benchmark.where(('calibration',))} that leaves fewer than {FEWEST_HELD_OUT}; give at least "
        f"{4 * FEWEST_HELD_OUT}"
    )
