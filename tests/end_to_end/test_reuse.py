"""What is kept for later runs: used where nothing changed, and nowhere else."""

import gc
import os
import shutil

import numpy as np
import pytest
import torch

from pytest_qreliab.embedding import forward
from pytest_qreliab.embedding.store import Store
from pytest_qreliab.evaluation.evaluator import Evaluator
from pytest_qreliab.evaluation.model_pool import ModelPool
from pytest_qreliab.models.layout import Layout

GATES = "accuracy: {max_drop: 0.5}\nood.auroc: {max_drop: 0.5}\n"


@pytest.fixture
def passes(monkeypatch):
    """Counts the images and prompts that go through models from here on."""
    counted = []

    def counting(name):
        function = getattr(Layout, name)

        def count(self, module, batch, *device):
            counted.append(len(batch))
            return function(self, module, batch, *device)

        monkeypatch.setattr(Layout, name, count)

    for name in ("encode_image", "encode_image_with_map", "encode_image_with_local", "encode_text"):
        counting(name)
    return counted


@pytest.fixture
def evaluated(make_plan, small_benchmark, tmp_path, write_thresholds):
    """The result of the first case of a run, as every run makes it: with the store that all share."""
    given = {"benchmarks": str(small_benchmark), "bits": "w4", "thresholds": str(write_thresholds(GATES))}

    def evaluated(store=None, **more):
        plan = make_plan(**{**given, **more})
        evaluator = Evaluator(plan, store=store or Store(tmp_path / "store"))
        results = [evaluator.result(case) for case in plan.cases]
        return results[0]

    return evaluated


def unreachable(*args: object) -> None:
    raise AssertionError("a model is loaded")


def values(result) -> dict:
    return {name: (change.baseline, change.quantized) for name, change in result.changes.items()}


def test_a_second_run_makes_no_model_and_says_the_same(evaluated, passes, monkeypatch):
    first = evaluated()
    assert first.cost.encoded == 2 * (120 + 120 + 20)
    assert sum(passes) >= first.cost.encoded
    passes.clear()
    monkeypatch.setattr(ModelPool, "baseline", unreachable)
    second = evaluated()
    assert not passes
    assert (second.cost.encoded, second.cost.known) == (0, first.cost.encoded)
    assert values(second) == values(first)
    assert second.verdicts == first.verdicts
    assert second.coverage == first.coverage


def test_other_thresholds_cost_no_pass_but_for_what_they_ask_for_anew(evaluated, passes, write_thresholds):
    evaluated()
    passes.clear()
    evaluated(thresholds=str(write_thresholds("ece: {max: 1}\nspectral.effective_rank: {max_relative_change: 9}\n")))
    assert not passes
    result = evaluated(thresholds=str(write_thresholds("spectral.map_error.2: {max: 9}\naccuracy: {max_drop: 1}\n")))
    assert result.cost.encoded == 2 * 120  # the blocks' spectra, of the in-distribution images alone
    assert np.isfinite(result.changes["spectral.map_error.2"].quantized)
    passes.clear()
    again = evaluated(thresholds=str(write_thresholds("spectral.map_error.2: {max: 1}\n")))
    assert not passes
    assert again.changes["spectral.map_error.2"].quantized == result.changes["spectral.map_error.2"].quantized


@pytest.mark.parametrize(
    ("more", "full", "quantized"),
    [
        ({"bits": "w5"}, 0, 260),
        ({"quantizers": "mse"}, 0, 260),
        ({"scopes": "vision"}, 0, 240),  # the text tower, and so the prompts, are those of full precision
        ({"scopes": "text"}, 0, 20),
        ({"quantizers": "minmax+rescale"}, 0, 260),
    ],
)
def test_another_quantized_model_shares_what_it_has_of_full_precision(evaluated, more, full, quantized):
    evaluated()
    assert evaluated(**more).cost.encoded == full + quantized
    assert evaluated(**more).cost.encoded == 0


def test_a_changed_template_costs_the_prompts_alone(evaluated, small_benchmark, tmp_path):
    evaluated()
    path = tmp_path / "small.yaml"
    path.write_text(small_benchmark.read_text().replace('"{}"', '"the {}"'))
    assert evaluated(benchmarks=str(path)).cost.encoded == 2 * 20


def test_what_a_static_range_is_taken_from_is_part_of_the_model(evaluated, small_benchmark, tmp_path):
    """Other calibration images, or prompts, are another quantized model."""
    evaluated(bits="w4a8")
    path = tmp_path / "small.yaml"
    path.write_text(small_benchmark.read_text().replace("limit: 100", "limit: 90"))
    assert evaluated(bits="w4a8", benchmarks=str(path)).cost.encoded == 260
    assert evaluated(bits="w4", benchmarks=str(path)).cost.encoded == 2 * 260 - 260  # which looks at none


def test_calibration_images_are_observed_once_for_all_widths_and_methods(evaluated, monkeypatch, tmp_path):
    from pytest_qreliab.quantizers.engine import observers

    observed = []
    observe = observers.observe
    monkeypatch.setattr(observers, "observe", lambda *args: observed.append(args) or observe(*args))
    anew = values(evaluated(Store(tmp_path / "other"), bits="w4a6"))
    assert len(observed) == 1
    evaluated(bits="w4a8")
    assert len(observed) == 2
    assert values(evaluated(bits="w4a6")) == anew
    evaluated(bits="w4a8", quantizers="mse")
    assert len(observed) == 2
    evaluated(bits="w4a8", scopes="vision")  # in which the layers are others
    assert len(observed) == 3


def test_images_are_told_by_their_content(evaluated, folder_benchmark, passes):
    from PIL import Image

    before = evaluated(benchmarks=str(folder_benchmark))
    images = sorted(path for path in folder_benchmark.parent.rglob("*") if path.suffix == ".png")
    for path in images:
        os.utime(path, (1, 1))
    passes.clear()
    assert values(evaluated(benchmarks=str(folder_benchmark))) == values(before)
    assert not passes
    inside = next(path for path in images if "calib" not in str(path))
    with Image.open(inside) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(inside)
    assert evaluated(benchmarks=str(folder_benchmark)).cost.encoded > 0


def test_a_checkpoint_is_told_by_its_content(evaluated, write_local_model, tmp_path):
    write_local_model(folder := tmp_path / "model")
    first = evaluated(models=f"local-dir:{folder}")
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert evaluated(models=f"local-dir:{moved}").cost.encoded == 0
    weights = next(path for path in moved.iterdir() if path.suffix == ".safetensors")
    content = bytearray(weights.read_bytes())
    content[-2] ^= 1
    weights.write_bytes(content)
    assert evaluated(models=f"local-dir:{moved}").cost.encoded == first.cost.encoded


def test_a_change_of_libraries_device_or_code_makes_everything_again(evaluated, monkeypatch):
    from pytest_qreliab.embedding import keys

    everything = evaluated().cost.encoded
    monkeypatch.setattr(keys, "_own_code", lambda: "another")
    assert evaluated().cost.encoded == everything
    monkeypatch.undo()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
    assert evaluated().cost.encoded == everything
    monkeypatch.undo()
    assert evaluated().cost.encoded == 0


def test_controls_and_weights_are_kept_as_well(evaluated, passes, write_thresholds, monkeypatch):
    gates = write_thresholds("accuracy: {max_drop: 0.5}\nspectral.weight_error: {max: 9}\n")
    first = evaluated(controls="features", thresholds=str(gates))
    assert first.controls.explanations
    passes.clear()
    monkeypatch.setattr(ModelPool, "baseline", unreachable)
    second = evaluated(controls="features", thresholds=str(gates))
    assert not passes
    assert second.controls == first.controls
    assert second.changes["spectral.weight_error"].quantized == first.changes["spectral.weight_error"].quantized


def test_what_is_registered_is_kept_under_a_version_alone(small_benchmark, tmp_path, write_thresholds, tiny):
    from pytest_qreliab import Quantizer
    from pytest_qreliab.config import settings as config_settings
    from pytest_qreliab.evaluation.planning import make_plan as planning_make_plan
    from pytest_qreliab.evaluation.planning.catalog import Catalog
    from pytest_qreliab.quantizers.post_training import ranges

    def run(model: str, quantizer: str) -> int:
        catalog = Catalog()
        catalog.add_model("mine", tiny.copy, version=model)
        catalog.add_quantizer(
            Quantizer(name="own", help="", function=ranges.minmax, parameters=ranges_parameters(), version=quantizer)
        )
        given = {"models": "mine", "quantizers": "own", "bits": "w4", "benchmarks": str(small_benchmark)}
        given["thresholds"] = str(write_thresholds(GATES))
        settings = config_settings.resolve(lambda ini: given.get(ini.removeprefix("qreliab_")), lambda ini: None)
        made = planning_make_plan.make_plan(settings, catalog)
        return Evaluator(made, store=Store(tmp_path / "store")).result(made.cases[0]).cost.encoded

    def ranges_parameters():
        return Catalog().quantizer("minmax").parameters

    assert [run("1", "1"), run("1", "1"), run("1", "2"), run("1", ""), run("1", "")] == [520, 0, 260, 260, 260]
    assert [run("2", "1"), run("", "1"), run("", "1")] == [520, 520, 520]


def test_nothing_outlives_a_run_without_a_store(make_plan, small_benchmark, write_thresholds, tmp_path):
    plan = make_plan(benchmarks=str(small_benchmark), bits="w4", thresholds=str(write_thresholds(GATES)))
    evaluator = Evaluator(plan)
    evaluator.result(plan.cases[0])
    folder = evaluator.model_cache.passing.folder
    assert any(folder.rglob("*.safetensors"))
    del evaluator
    gc.collect()
    assert not folder.exists()


def test_a_smaller_batch_is_remembered(tiny, tmp_path, monkeypatch, make_plan, small_benchmark, write_thresholds):
    encode = forward.Clip.encode_image
    taken = []

    def narrow(self, batch):
        taken.append(len(batch))
        if len(batch) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(self, batch)

    monkeypatch.setattr(forward.Clip, "encode_image", narrow)
    plan = make_plan(benchmarks=str(small_benchmark), bits="w4,w5", thresholds=str(write_thresholds(GATES)))
    for case in plan.cases:
        Evaluator(plan, store=Store(tmp_path / "store")).result(case)
    assert sum(size > 16 for size in taken) == 2  # 60, then 30: never again
