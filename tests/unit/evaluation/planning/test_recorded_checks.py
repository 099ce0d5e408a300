"""Recorded outputs that do not go with a case or its benchmark."""

import re

import numpy as np
import pytest

from pytest_qreliab.data.recording import Recording
from pytest_qreliab.errors import InputError

MORE = "covariate_shift: {printed: {source: printed-digits, limit: 60}}\n"
GATES = "accuracy: {max_drop: 0.5}\nshift.accuracy: {max_drop: 0.5}\nood.auroc: {max_drop: 0.5}\n"


@pytest.fixture
def say(tmp_path, make_plan, small_benchmark, write_thresholds):
    """Tells what is said of outputs that were changed; they are of no model."""
    benchmark = tmp_path / "six.yaml"
    benchmark.write_text(small_benchmark.read_text() + MORE)
    data, rng = make_plan(benchmarks=str(benchmark)).data["six"], np.random.default_rng(0)
    whole = Recording(data.classes, logit_scale=10.0)
    for name, images in data.sets.items():
        logits = rng.normal(size=(len(images), len(data.classes)))
        whole.add(name, list(images.ids), labels=images.labels, logits=logits)
    whole.save(tmp_path / "full.npz")
    given = {
        "models": f"recorded:{tmp_path / 'full.npz'}",
        "quantizers": f"recorded:{tmp_path / 'changed.npz'}",
        "benchmarks": str(benchmark),
        "thresholds": str(write_thresholds(GATES)),
    }

    def say(changes: dict[str, object], **settings: str) -> str:
        copied(whole, **changes).save(tmp_path / "changed.npz")
        settings = {name: text.format(folder=tmp_path) for name, text in settings.items()}
        with pytest.raises(InputError) as error:
            make_plan(**{**given, **settings})
        return str(error.value)

    return say


def copied(old: Recording, classes=None, leave_out: str = "", rows=slice(None), shift: int = 0) -> Recording:
    new = Recording(classes or old.classes, logit_scale=old.logit_scale)
    for name, recorded in old.sets.items():
        if name != leave_out:
            labels = None if recorded.labels is None else (recorded.labels[rows] + shift) % 10
            new.add(name, recorded.ids[rows], labels=labels, logits=recorded.values[rows])
    return new


def test_what_does_not_fit_is_told(say):
    digits = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight"]
    assert re.search(r"changed.npz: in_distribution lacks \d+ of 120 samples", say({"rows": slice(50)}))
    assert "labels of in_distribution are not the benchmark's" in say({"shift": 1})
    assert "lacks the set ood.near.letters" in say({"leave_out": "ood.near.letters"})
    assert "its classes are not those of six" in say({"classes": [*digits, "ten"]})
    assert "holds recorded samples and no images" in say(
        {}, benchmarks="recorded:{folder}/full.npz", quantizers="minmax"
    )
    assert "+rescale needs the model" in say({}, models="recorded:{folder}/full.npz", quantizers="minmax+rescale")


def test_outputs_that_do_not_say_of_which_model_cannot_be_quantized(say):
    assert "holds outputs, no model" in say({}, models="recorded:{folder}/changed.npz", quantizers="minmax")


def test_a_recorded_pair_is_described_and_its_doubts_are_told_with_each_file(make_plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, probability in (("full", 0.2), ("changed", 0.0)):
        recording = Recording(["cat", "dog"], logit_scale=100.0 if name == "full" else 3.0)
        rows = [[1 - probability, probability], [0.3, 0.7]]
        recording.add("in_distribution", ["a", "b"], labels=[1, 1], probabilities=rows)
        recording.save(tmp_path / f"{name}.npz")
    (tmp_path / "t.yaml").write_text("version: 1\ngates: {accuracy: {max_drop: 0.5}}\n")
    files = {"models": "recorded:full.npz", "quantizers": "recorded:changed.npz", "benchmarks": "recorded:full.npz"}
    plan = make_plan(**files, thresholds="t.yaml")
    facts = plan.descriptions["recorded:full.npz"].facts
    assert (facts["recorded"], facts["recorded logit scale"]) == ("probabilities", "100")
    assert re.fullmatch(r"full\.npz [0-9a-f]{8}", facts["outputs"])
    outputs = plan.recipes["recorded:changed.npz"].parameters.model_dump()["outputs"]
    assert re.fullmatch(r"changed\.npz [0-9a-f]{8}", outputs)
    (case,) = plan.cases
    assert case.quantization == "recorded:changed.npz unknown"
    empty, scale, zeros = plan.warnings(case)
    assert empty == "full: in_distribution: 1 of 2 classes without samples: 'cat'"
    assert scale.startswith("changed.npz: logit_scale is 3")
    assert zeros.startswith("changed.npz: in_distribution: the label's probability is 0 in 1 of 2 rows")
