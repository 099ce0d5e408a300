"""Check that a benchmark has what the cases and gates of a plan need."""

from __future__ import annotations

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.config.cases import Bits, Case
from pytest_qreliab.config.thresholds import Gate
from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.errors import InputError
from pytest_qreliab.metrics import registry
from pytest_qreliab.metrics.names import MetricName
from pytest_qreliab.quantizers.recipe import Recipe

FEWEST_HELD_OUT = 25  # images that one number can be fitted on
LABELLED = "give a source of the benchmark's classes: digits, or an image-folder with the same folder names"


def check_calibration(case: Case, recipe: Recipe, benchmark: Benchmark, data: Dataset) -> None:
    """Raise InputError if the benchmark lacks calibration data that the case's quantizer needs."""
    bits = case.build.bits
    needs = recipe.needs(bits)
    if needs == "images" and case.build.scope == "text":  # the text tower's ranges come from the prompts alone
        return
    if needs != "nothing" and data.calibration is None:
        mend = f"add `calibration:` to {benchmark.where(())}"
        if recipe.needs(Bits(bits.weights)) == "nothing":
            mend += f", or quantize weights only, as in --qreliab-bits=w{bits.weights}"
        raise InputError(f"{case.id}: {case.quantization} needs calibration images; {mend}")
    if needs == "pairs":
        _check_labels(f"{case.id}: {case.quantization}", data, benchmark)
    if recipe.rescale and data.calibration is not None:
        _check_held_out(case.id, data.calibration, benchmark)


def check_needs(gate: Gate, benchmark: Benchmark, data: Dataset) -> None:
    """Raise InputError if the benchmark lacks anything that a gated metric is measured with."""
    needs = registry.lookup(gate.metric).needs
    if "negatives" in needs and not data.negatives:
        raise InputError(f"{gate.where}: {gate.metric} needs `negatives:`, a list of words, in {benchmark.where(())}")
    if needs & {"calibration", "labels"} and data.calibration is None:
        raise InputError(
            f"{gate.where}: {gate.metric} needs calibration images; add `calibration:` to {benchmark.where(())}"
        )
    if "labels" in needs:
        _check_labels(f"{gate.where}: {gate.metric}", data, benchmark)
    if MetricName.parse(gate.metric).rescaled and data.calibration is not None:
        _check_held_out(f"{gate.where}: {gate.metric}", data.calibration, benchmark)


def _check_labels(what: str, data: Dataset, benchmark: Benchmark) -> None:
    """Raise InputError if the calibration images have no labels."""
    if data.calibration is None or data.calibration.labels is None:
        raise InputError(
            f"{what} needs calibration images with labels; at {benchmark.where(('calibration',))} {LABELLED}"
        )


def _check_held_out(what: str, images: ImageSet, benchmark: Benchmark) -> None:
    """Raise InputError if too few calibration images are left to refit the logit scale on."""
    if len(images) < 4 * FEWEST_HELD_OUT:
        raise InputError(
            f"{what}: every fourth calibration image is held out to refit the logit scale, and of the {len(images)} at "
            f"{benchmark.where(('calibration',))} that leaves fewer than {FEWEST_HELD_OUT}; give at least "
            f"{4 * FEWEST_HELD_OUT}"
        )
