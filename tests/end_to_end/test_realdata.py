"""Real images, a real trained CLIP and outputs of the real OpenAI CLIP: skipped where they are absent."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from torchmetrics.functional.classification import multiclass_calibration_error

from pytest_qreliab.evaluation.evaluator import Evaluator
from pytest_qreliab.evaluation.measurement.comparison import compare
from pytest_qreliab.evaluation.measurement.measure import values
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.metrics import classification

CIFAR = """\
version: 1
templates: ["a photo of a {{}}.", "a blurry photo of a {{}}.", "a low resolution photo of a {{}}.", "{{}}",
            "a picture of the {{}}."]
in_distribution: {{source: image-folder, path: {root}/cifar10_test, limit: {limit}}}
calibration: {{source: image-folder, path: {root}/cifar10_test, limit: 64}}
ood:
  near: {{background: {{source: flat-folder, path: {root}/caltech_background, limit: 200}}}}
  far: {{textures: {{source: image-folder, path: {root}/textures, limit: 200}}}}
"""


@pytest.fixture
def cifar(realdata, tmp_path, make_plan):
    """Makes a plan on CIFAR-10 test images with the small CLIP that was trained on its training images."""

    def make(limit: int, **settings: str):
        path = tmp_path / "cifar.yaml"
        path.write_text(CIFAR.format(root=realdata, limit=limit))
        return make_plan(models=f"local-dir:{realdata}/cifar_clip", benchmarks=str(path), **settings)

    return make


def test_a_trained_clip_on_image_folders(cifar):
    plan = cifar(500, bits="w8,w2")
    evaluator = Evaluator(plan)
    fine, broken = (evaluator.result(case) for case in plan.cases)
    assert fine.changes["accuracy"].baseline == pytest.approx(0.62, abs=0.05)
    assert all(verdict.passed for verdict in fine.verdicts)
    assert {verdict.gate.metric for verdict in broken.verdicts if verdict.outcome == "fail"} >= {
        "accuracy",
        "balanced_accuracy",
        "nll",
        "ood.auroc",
    }


@pytest.mark.slow
def test_the_trained_clip_has_its_published_figures_on_all_of_cifar10(cifar):
    plan = cifar(10_000, bits="w8")
    values = {name: change.baseline for name, change in Evaluator(plan).result(plan.cases[0]).changes.items()}
    assert values["accuracy"] == pytest.approx(0.6199, abs=5e-5)
    assert values["ece"] == pytest.approx(0.0218, abs=5e-4)
    assert values["nll"] == pytest.approx(1.058, abs=5e-4)
    assert values["accuracy"] + values["confidence_gap"] == pytest.approx(0.639, abs=5e-4)


@pytest.fixture
def openai(realdata):
    """Labels and the log probabilities of ViT-B/32 and ViT-B/16 on 1,640 Caltech-101 images."""
    recorded = np.load(realdata / "clip_caltech101" / "openai_zeroshot.npz")

    def logits(name: str) -> np.ndarray:
        return np.log(np.maximum(recorded[name].astype(np.float64), 1e-12))

    return recorded["labels"].astype(np.int64), logits("probs_vitb32"), logits("probs_vitb16")


def of(labels: np.ndarray, logits: np.ndarray) -> Measurement:
    predictions = classification.predict(torch.from_numpy(logits), labels)
    found = Measurement(classes=(), samples=len(labels), predictions=predictions)
    found.values.update(values(found))
    return found


def test_metrics_on_the_real_clips_outputs_agree_with_other_libraries(openai):
    labels, *both = openai
    for logits in both:
        ours = of(labels, logits).values
        assert ours["accuracy"] == accuracy_score(labels, logits.argmax(1))
        assert ours["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, logits.argmax(1)))
        probabilities = torch.from_numpy(logits).softmax(1)
        theirs = multiclass_calibration_error(probabilities, torch.from_numpy(labels), num_classes=101, n_bins=15)
        assert ours["ece"] == pytest.approx(float(theirs), abs=2e-4)


def test_two_clips_that_differ_in_many_answers_but_not_in_accuracy(openai):
    labels, b32, b16 = openai
    wanted = ["accuracy", "balanced_accuracy", "ece", "brier", "eaurc"]
    changes = compare(of(labels, b32), of(labels, b16), wanted)
    assert changes["accuracy"].method == "paired score; McNemar p = 0.86, 70 lost, 67 gained"
    bounds = {name: changes[name].bounds(0.05) for name in wanted}
    assert bounds["accuracy"].low < 0 < bounds["accuracy"].high
    assert all(low < changes[name].delta < high for name, (low, high) in bounds.items())


@pytest.mark.slow
def test_a_full_size_vit_with_a_local_checkpoint_on_image_folders(pytester, realdata, tmp_path):
    """ViT-B-32 with random weights: nothing to recognise, but the whole path at full size."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(open_clip.create_model("ViT-B-32").state_dict(), tmp_path / "random.safetensors")
    for name in ("butterfly", "camera", "chair", "Faces"):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / name).symlink_to(realdata / "caltech101" / name)
    (tmp_path / "caltech.yaml").write_text(
        "version: 1\nin_distribution: {source: image-folder, path: images, limit: 40}\n"
        f"calibration: {{source: flat-folder, path: {realdata}/caltech_background, limit: 8}}\n"
        f"ood: {{far: {{background: {{source: flat-folder, path: {realdata}/caltech_background, limit: 40}}}}}}\n"
    )
    (tmp_path / "limits.yaml").write_text(
        "version: 1\ngates:\n  nll: {max_rise: 0.1}\n  ood.auroc: {max_drop: 0.5}\n"
        "  spectral.high_band_energy: {max_relative_change: 0.2}\n"
    )
    result = pytester.runpytest_subprocess(
        f"--qreliab-models=ViT-B-32/{tmp_path}/random.safetensors",
        f"--qreliab-benchmarks={tmp_path}/caltech.yaml",
        f"--qreliab-thresholds={tmp_path}/limits.yaml",
        "--qreliab-bits=8,4",
    )
    result.assert_outcomes(passed=6)
    assert result.stdout.str().count("100.0/98.") >= 2


@pytest.mark.slow
def test_the_trained_clip_is_gated_on_cifar10_corrupted_and_ood_by_a_yaml(pytester, realdata, tmp_path, monkeypatch):
    (file,) = (realdata / "notmnist_t10k").glob("*images*.gz")
    pixels = np.frombuffer(gzip.decompress(file.read_bytes())[16:], np.uint8)
    np.save(tmp_path / "notmnist.npy", pixels.reshape(-1, 28, 28))
    monkeypatch.setenv("QRELIAB_REALDATA", str(realdata))
    monkeypatch.setenv("QRELIAB_SCRATCH", str(tmp_path))
    result = pytester.runpytest_subprocess(
        f"--qreliab-models=local-dir:{realdata / 'cifar_clip'}",
        f"--qreliab-benchmarks={Path(__file__).parent / 'cifar10_clip.yaml'}",
        "--qreliab-bits=w8a8",
    )
    assert sum(result.parseoutcomes().get(name, 0) for name in ("passed", "failed")) == 5
    result.stdout.fnmatch_lines(["*cifar_clip on cifar10_clip (2000 samples, *", "minmax w8a8 *"])
