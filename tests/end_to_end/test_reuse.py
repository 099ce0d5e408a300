"""What is kept for later runs: used where nothing changed, and nowhere else."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from pytest_qreliab.data import batches
from pytest_qreliab.data.images import Corruption, ImageSet
from pytest_qreliab.data.sources.builtin import digits, photo_patches
from pytest_qreliab.embedding import forward
from pytest_qreliab.embedding.reader import Reader
from pytest_qreliab.embedding.store import Store
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.evaluator import Evaluator
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


# Runs


def test_a_second_run_makes_no_model_and_says_the_same(evaluated, passes, monkeypatch):
    first = evaluated()
    assert first.work.encoded == 2 * (120 + 120 + 20)
    assert sum(passes) >= first.work.encoded
    passes.clear()
    monkeypatch.setattr(Evaluator, "baseline", unreachable)
    second = evaluated()
    assert not passes
    assert (second.work.encoded, second.work.known) == (0, first.work.encoded)
    assert values(second) == values(first)
    assert second.verdicts == first.verdicts
    assert second.coverage == first.coverage


def test_other_thresholds_cost_no_pass_but_for_what_they_ask_for_anew(evaluated, passes, write_thresholds):
    evaluated()
    passes.clear()
    evaluated(thresholds=str(write_thresholds("ece: {max: 1}\nspectral.effective_rank: {max_relative_change: 9}\n")))
    assert not passes
    result = evaluated(thresholds=str(write_thresholds("spectral.map_error.2: {max: 9}\naccuracy: {max_drop: 1}\n")))
    assert result.work.encoded == 2 * 120  # the blocks' spectra, of the in-distribution images alone
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
    assert evaluated(**more).work.encoded == full + quantized
    assert evaluated(**more).work.encoded == 0


def test_a_changed_template_costs_the_prompts_alone(evaluated, small_benchmark, tmp_path):
    evaluated()
    path = tmp_path / "small.yaml"
    path.write_text(small_benchmark.read_text().replace('"{}"', '"the {}"'))
    assert evaluated(benchmarks=str(path)).work.encoded == 2 * 20


def test_what_a_static_range_is_taken_from_is_part_of_the_model(evaluated, small_benchmark, tmp_path):
    """Other calibration images, or prompts, are another quantized model."""
    evaluated(bits="w4a8")
    path = tmp_path / "small.yaml"
    path.write_text(small_benchmark.read_text().replace("limit: 100", "limit: 90"))
    assert evaluated(bits="w4a8", benchmarks=str(path)).work.encoded == 260
    assert evaluated(bits="w4", benchmarks=str(path)).work.encoded == 2 * 260 - 260  # which looks at none


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
    assert evaluated(benchmarks=str(folder_benchmark)).work.encoded > 0


def test_a_checkpoint_is_told_by_its_content(evaluated, write_local_model, tmp_path):
    write_local_model(folder := tmp_path / "model")
    first = evaluated(models=f"local-dir:{folder}")
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert evaluated(models=f"local-dir:{moved}").work.encoded == 0
    weights = next(path for path in moved.iterdir() if path.suffix == ".safetensors")
    content = bytearray(weights.read_bytes())
    content[-2] ^= 1
    weights.write_bytes(content)
    assert evaluated(models=f"local-dir:{moved}").work.encoded == first.work.encoded


def test_a_change_of_libraries_device_or_code_makes_everything_again(evaluated, monkeypatch):
    from pytest_qreliab.embedding import keys

    everything = evaluated().work.encoded
    monkeypatch.setattr(keys, "_own_code", lambda: "another")
    assert evaluated().work.encoded == everything
    monkeypatch.undo()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
    assert evaluated().work.encoded == everything
    monkeypatch.undo()
    assert evaluated().work.encoded == 0


def test_controls_and_weights_are_kept_as_well(evaluated, passes, write_thresholds, monkeypatch):
    gates = write_thresholds("accuracy: {max_drop: 0.5}\nspectral.weight_error: {max: 9}\n")
    first = evaluated(controls="features", thresholds=str(gates))
    assert first.controls.explanations
    passes.clear()
    monkeypatch.setattr(Evaluator, "baseline", unreachable)
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
        catalog.add_quantizer(Quantizer("own", "", ranges.minmax, ranges_parameters(), version=quantizer))
        given = {"models": "mine", "quantizers": "own", "bits": "w4", "benchmarks": str(small_benchmark)}
        given["thresholds"] = str(write_thresholds(GATES))
        settings = config_settings.resolve(lambda ini: given.get(ini.removeprefix("qreliab_")), lambda ini: None)
        made = planning_make_plan.make_plan(settings, catalog)
        return Evaluator(made, store=Store(tmp_path / "store")).result(made.cases[0]).work.encoded

    def ranges_parameters():
        return Catalog().quantizer("minmax").parameters

    assert [run("1", "1"), run("1", "1"), run("1", "2"), run("1", ""), run("1", "")] == [520, 0, 260, 260, 260]
    assert [run("2", "1"), run("", "1"), run("", "1")] == [520, 520, 520]


def test_nothing_outlives_a_run_without_a_store(make_plan, small_benchmark, write_thresholds, tmp_path):
    plan = make_plan(benchmarks=str(small_benchmark), bits="w4", thresholds=str(write_thresholds(GATES)))
    evaluator = Evaluator(plan)
    evaluator.result(plan.cases[0])
    folder = evaluator._passing.folder
    assert any(folder.rglob("*.safetensors"))
    del evaluator
    import gc

    gc.collect()
    assert not folder.exists()


# Images


def test_each_image_is_decoded_once_for_all_that_see_it_alike(tiny, tmp_path):
    loaded = []
    images = photo_patches().first_evenly(30)
    counted = replace(images, load=lambda i: loaded.append(i) or images.load(i))
    corrupted = replace(counted, corruption=Corruption("fog", 2, 0))
    reader = Reader(Store(tmp_path), "tests")
    for of_set in (counted, corrupted, counted.take(np.array([7, 3])), counted):
        expected = torch.cat(list(batches.batches(of_set, tiny.preprocess)))
        loaded.clear() if of_set is not counted or len(loaded) > 60 else None
        assert torch.equal(torch.cat(list(reader.batches(of_set, tiny.preprocess, 8))), expected)
    before = len(loaded)
    list(Reader(Store(tmp_path), "tests").batches(counted, tiny.preprocess))
    assert len(loaded) == before
    list(Reader(Store(tmp_path), "others").batches(counted, tiny.preprocess))
    assert len(loaded) == before + 30


def test_images_are_kept_once_for_every_preprocessing_of_the_same_size(tiny, tmp_path):
    from torchvision.transforms import Compose, Normalize, Resize

    store, images = Store(tmp_path), digits("test").first_evenly(20)
    *steps, _ = tiny.preprocess.transforms
    other = Compose([*steps, Normalize((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))])
    reader = Reader(store, "tests")
    for preprocess in (tiny.preprocess, other, Compose([Resize(20), *steps[1:]])):
        expected = torch.cat(list(batches.batches(images, preprocess)))
        assert torch.equal(torch.cat(list(reader.batches(images, preprocess))), expected)
    assert len([entry for entry in store.stored(read=True) if "resized" in entry.about]) == 2


def test_images_that_cannot_be_read_are_an_error_and_are_not_kept(tiny, tmp_path):
    def load(index: int):
        if index == 5:
            raise InputError("image 5 cannot be decoded")
        return digits("test").load(index)

    store = Store(tmp_path)
    images = ImageSet("broken", list(map(str, range(9))), load, content=str)
    for _ in range(2):
        with pytest.raises(InputError, match="broken: 1 of 9 images cannot be read; the first: image 5"):
            list(Reader(store, "tests").batches(images, tiny.preprocess))
    assert not list(store.stored())


def test_a_preprocessing_that_keeps_sizes_is_refused(tiny, tmp_path):
    from PIL import Image
    from torchvision.transforms import Compose, ToTensor

    images = ImageSet("mixed", ["a", "b"], lambda i: Image.new("RGB", (8 + i, 8)), content=str)
    with pytest.raises(InputError, match=r"mixed: .* different sizes, \(8, 9\) and \(8, 8\)"):
        list(Reader(Store(tmp_path), "tests").batches(images, Compose([ToTensor()])))


# Forward passes


class Narrow:
    """Runs out of memory beyond so many images."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, []

    def __call__(self, batch):
        self.taken.append(len(batch))
        if len(batch) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return batch * 2


def test_the_batch_is_halved_until_it_fits_and_stays_so():
    size, narrow = forward.BatchSize(64), Narrow(20)
    found = [part for _ in range(2) for _, part in size.run(narrow, torch.arange(50))]
    assert torch.equal(torch.cat(found), torch.arange(50).repeat(2) * 2)
    assert size.value == 12  # 50 is too much, so is 25
    assert narrow.taken == [50, 25, 12, 12, 12, 12, 2, 12, 12, 12, 12, 2]


def test_a_model_that_leaves_no_room_for_one_image_is_an_error():
    with pytest.raises(InputError, match="does not hold the model and one image"):
        list(forward.BatchSize(4).run(Narrow(0), torch.arange(5)))


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def broken(batch):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        list(forward.BatchSize(4).run(broken, torch.arange(5)))


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


def test_padding_is_left_out_where_that_changes_nothing(tiny):
    texts = [["a handwritten seven.", "nine"], ["a much longer prompt of a zero", "0"]]
    seen = []
    handle = tiny.module.transformer.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    try:
        found = forward.classifier(tiny, texts, forward.BatchSize(64))
    finally:
        handle.remove()
    whole = [torch.nn.functional.normalize(tiny.encode_text(of), dim=-1).mean(0) for of in texts]
    expected = torch.nn.functional.normalize(torch.stack(whole), dim=-1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert seen[-1] == len("a much longer prompt of a zero") + 2 < tiny.module.context_length
    assert tiny.module.positional_embedding.shape[0] == tiny.module.context_length == len(tiny.module.attn_mask)


def test_padding_stays_where_a_range_is_taken_over_it(tiny):
    clip = tiny.copy()

    def over_all_tokens(module, args):
        return (args[0] / args[0].abs().amax() * args[0].shape[1],)

    clip.module.ln_final.register_forward_pre_hook(over_all_tokens)
    clip.module.ln_final.weight.data.mul_(1 + torch.rand(64))
    clip.module.transformer.resblocks[0].register_forward_pre_hook(over_all_tokens)
    found = forward.classifier(clip, [["one"], ["two"]], forward.BatchSize(64))
    expected = torch.nn.functional.normalize(clip.encode_text(["one", "two"]), dim=-1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
