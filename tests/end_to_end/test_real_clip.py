"""Recorded features of the real OpenAI CLIP: every writer, and values that NumPy and scikit-learn find too."""

from __future__ import annotations

import csv
from itertools import pairwise

import numpy as np
import pytest
from sklearn import metrics

from pytest_qreliab import cli
from pytest_qreliab.record import Recording
from pytest_qreliab.report import results_file

pytestmark = pytest.mark.usefixtures("everything_imported")

OOD = ("dtd", "flowers", "ucf101")
SCORES = ("mcm", "msp", "energy", "maxlogit", "knn")
PLAIN = (
    "accuracy",
    "top5_accuracy",
    "balanced_accuracy",
    "agreement",
    "flips.lost",
    "flips.gained",
    "kl",
    "nll",
    "brier",
    "ece",
    "mce",
    "confidence_gap",
    "aurc",
    "failure.auroc",
)
GATED = [*PLAIN, *(f"ood.{name}.{score}.{of}" for name in ("auroc", "fpr95") for score in SCORES for of in OOD)]


class Recorded:
    """One recording, and what an independent computation in float64 finds in it."""

    def __init__(self, held, *, features: str, text: str, bits: str | None, levels: int | None, step: int) -> None:
        def of(name: str) -> np.ndarray:
            values = held[name][::step].astype(np.float32)
            if levels is not None:  # symmetric rounding of each row
                scale = np.abs(values).max(axis=1, keepdims=True) / levels
                values = (np.round(values / scale) * scale).astype(np.float32)
            return values

        labels = features.replace("features", "labels").removesuffix("_rerun")
        self.features, self.labels = of(features), held[labels][::step].astype(np.int64)
        self.calibration, self.ood = of("features_2shot"), {name: of(f"ood_{name}") for name in OOD}
        self.text = held[text].astype(np.float32)
        self.recording = Recording(
            [f"{number:04d} {name}" for number, name in enumerate(held["classnames"])],
            text_features=self.text,
            logit_scale=100.0,
            bits=bits,
        )
        add = self.recording.add
        add("in_distribution", range(len(self.features)), image_features=self.features, labels=self.labels)
        calibration_labels = held["labels_2shot"][::step].astype(np.int64)
        add("calibration", range(len(self.calibration)), image_features=self.calibration, labels=calibration_labels)
        for name, values in self.ood.items():
            add(f"ood.far.{name}", range(len(values)), image_features=values)

    @property
    def log_probs(self) -> np.ndarray:
        logits = 100 * unit(self.features) @ unit(self.text).T
        return logits - log_sum(logits)[:, None]

    def scores(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """Higher means more out-of-distribution."""
        cosines = unit(features) @ unit(self.text).T
        near = np.sort(unit(features) @ unit(self.calibration).T, axis=1)[:, -50]
        return {
            "mcm": log_sum(cosines) - cosines.max(axis=1),
            "msp": log_sum(100 * cosines) - 100 * cosines.max(axis=1),
            "energy": -log_sum(100 * cosines),
            "maxlogit": -100 * cosines.max(axis=1),
            "knn": -near,
        }


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def log_sum(logits: np.ndarray) -> np.ndarray:
    most = logits.max(axis=1)
    return most + np.log(np.exp(logits - most[:, None]).sum(axis=1))


def gaps(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of each of 15 bins (lo, hi] that is not empty, and its gap."""
    inside = [(lo < confidence) & (confidence <= hi) for lo, hi in pairwise(np.arange(16) / 15)]
    held = [mask for mask in inside if mask.any()]
    return np.array([mask.mean() for mask in held]), np.array([(confidence - right)[mask].mean() for mask in held])


def plain_values(baseline: Recorded, quantized: Recorded) -> dict[str, float]:
    full, log_probs, labels = baseline.log_probs, quantized.log_probs, quantized.labels
    p, rows = np.exp(log_probs), np.arange(len(labels))
    predicted, before = p.argmax(axis=1), full.argmax(axis=1)
    right, was_right, confidence = predicted == labels, before == labels, p.max(axis=1)
    share, gap = gaps(confidence, right)
    by_confidence = np.argsort(-confidence)
    return {
        "accuracy": metrics.accuracy_score(labels, predicted),
        # The first of equal classes is the better one, as for argmax; scikit-learn takes the last.
        "top5_accuracy": (np.argsort(-log_probs, axis=1, kind="stable")[:, :5] == labels[:, None]).any(axis=1).mean(),
        "balanced_accuracy": np.mean([right[labels == label].mean() for label in np.unique(labels)]),
        "agreement": (predicted == before).mean(),
        "flips.lost": (was_right & ~right).mean(),
        "flips.gained": (right & ~was_right).mean(),
        "kl": (np.exp(full) * (full - log_probs)).sum(axis=1).mean(),
        "nll": -log_probs[rows, labels].mean(),
        "brier": ((p - np.eye(1000)[labels]) ** 2).sum(axis=1).mean(),
        "ece": (share * np.abs(gap)).sum(),
        "mce": np.abs(gap).max(),
        "confidence_gap": confidence.mean() - right.mean(),
        "aurc": ((~right[by_confidence]).cumsum() / (rows + 1)).mean(),
        "failure.auroc": metrics.roc_auc_score(~right, -confidence),
    }


def ood_values(recorded: Recorded) -> dict[str, float]:
    found, inside = {}, recorded.scores(recorded.features)
    for of, features in recorded.ood.items():
        for score, outside in recorded.scores(features).items():
            is_ood = np.repeat([0, 1], [len(inside[score]), len(outside)])
            both = np.concatenate([inside[score], outside])
            found[f"ood.auroc.{score}.{of}"] = metrics.roc_auc_score(is_ood, both)
            accepted, passed, _ = metrics.roc_curve(1 - is_ood, -both, drop_intermediate=False)
            found[f"ood.fpr95.{score}.{of}"] = accepted[passed >= 0.95][0]
    return found


@pytest.fixture
def run(realdata, pytester, monkeypatch):
    """Records two of the real CLIP's outputs, and gates one against the other with all writers."""
    held = np.load(realdata / "real_clip" / "imagenet_vitb32" / "imagenet_vitb32.npz", allow_pickle=False)

    def run(full: dict[str, object], quantized: dict[str, object], thresholds: str, step: int):
        pair = [Recorded(held, **{"levels": None, "bits": None, "step": step, **of}) for of in (full, quantized)]
        for name, recorded in zip(("full", "quantized"), pair, strict=True):
            recorded.recording.save(pytester.path / f"{name}.npz")
        result = pytester.runpytest_inprocess(
            "-p",
            "no:cacheprovider",
            "--qreliab-models=recorded:full.npz",
            "--qreliab-quantizers=recorded:quantized.npz",
            "--qreliab-benchmarks=recorded:full.npz",
            f"--qreliab-thresholds={thresholds}",
            "--qreliab-json=r.json",
            "--qreliab-html=r.html",
            "--qreliab-figures=figures",
            "--qreliab-snapshot=accepted",
            "--qreliab-update=new",
            "--junitxml=junit.xml",
        )
        return result, pair

    return run


@pytest.mark.parametrize("step", [8, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("full", "quantized"),
    [
        pytest.param({"text": "text_b"}, {"text": "text_b", "bits": "w4", "levels": 7}, id="rounded to 4 bits"),
        pytest.param(
            {"text": "text_b"}, {"text": "text_a", "bits": "w8a8"}, id="other prompts", marks=pytest.mark.slow
        ),
    ],
)
def test_values_are_those_of_numpy_and_scikit_learn(run, pytester, full, quantized, step):
    gates = "".join(f"  {metric}: {{max_change: 9, max_drift: 0.01}}\n" for metric in GATED)
    (pytester.path / "limits.yaml").write_text(f"version: 1\ngates:\n{gates}")
    full, quantized = ({"features": "features", **of} for of in (full, quantized))
    result, (one, other) = run(full, quantized, "limits.yaml", step)
    assert result.ret == 0
    (record,) = results_file.read(pytester.path / "r.json").cases
    found = {of["metric"]: (of["baseline"], of["quantized"]) for of in record["metrics"]}
    before, after = ({**plain_values(one, of), **ood_values(of)} for of in (one, other))
    assert set(GATED) == set(after)
    off = {name: max(abs(found[name][0] - before[name]), abs(found[name][1] - after[name])) for name in GATED}
    of_knn = {name: off.pop(name) for name in GATED if ".knn." in name}  # products in float32
    print("largest deviation", max(off.values()), "of", max(off, key=off.__getitem__), "and", max(of_knn.values()))
    assert max(off.values()) < 1e-6
    assert max(of_knn.values()) < 1e-4

    for suffix in ("md", "csv", "parquet", "html"):
        if suffix == "parquet":
            pytest.importorskip("pyarrow")
        assert cli.main(["report", "r.json", f"--output=again.{suffix}"]) == 0
    rows = list(csv.DictReader((pytester.path / "again.csv").read_text().splitlines()))
    nll = next(row for row in rows if row["metric"] == "nll")
    assert float(nll["quantized"]) == found["nll"][1]
    assert cli.main(["compare", "r.json", "r.json"]) == 0
    for name in ("r.html", "junit.xml", "again.md"):
        assert "quantized.npz" in (pytester.path / name).read_text(encoding="utf-8")
    assert len(list((pytester.path / "figures").rglob("*.*"))) > 3
    assert "1 new" in result.stdout.str()


def test_the_same_images_encoded_by_two_people_raise_no_alarm(run):
    of = {"text": "text_b"}
    full, rerun = {"features": "features_1shot", **of}, {"features": "features_1shot_rerun", "bits": "w8a8", **of}
    result, _ = run(full, rerun, "default", 1)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["*warning: full.npz: text_features: those of '0264 Cardigan, *' are equal, and 2 more pairs are"]
    )
