"""Recorded outputs: what goes in comes out, in every format; what cannot be used is refused in one clear line."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pytest_qreliab.data.recording import Recording

SUFFIXES = (".npz", ".safetensors", ".parquet")
CLASSES = ["cat", "dog", "owl"]
LOGITS = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 0.0]], dtype=np.float32)


def assert_same(one: Recording, other: Recording) -> None:
    for name in ("classes", "logit_scale", "logit_bias", "model", "bits", "kind"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.sets.keys() == other.sets.keys()
    pairs = [(one.text_features, other.text_features)]
    for name in one.sets:
        assert one.sets[name].ids == other.sets[name].ids
        pairs += [(getattr(one.sets[name], part), getattr(other.sets[name], part)) for part in ARRAYS]
    for first, second in pairs:
        if first is None:
            assert second is None
        else:
            assert first.dtype == second.dtype
            np.testing.assert_array_equal(first, second)


ARRAYS = ("values", "labels", "among")
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
SETS = ("in_distribution", "calibration", "shift.a-1", "corruption.gaussian_noise.5", "spurious.B", "ood.near.c_2")


@st.composite
def recordings(draw) -> Recording:
    classes = draw(st.lists(TEXTS, min_size=2, max_size=4, unique=True))
    kind = draw(st.sampled_from(["image_features", "logits", "probabilities"]))
    number = st.floats(5, 1e4)
    dim = draw(st.integers(1, 3))
    matrix = lambda rows, width: draw(npst.arrays(np.float32, (rows, width), elements=FLOATS))  # noqa: E731
    text_features = matrix(len(classes), dim) if kind == "image_features" or draw(st.booleans()) else None
    if text_features is not None:
        text_features[~text_features.any(axis=1), 0] = 1
    recording = Recording(
        classes=classes,
        logit_scale=draw(number if kind == "image_features" else st.none() | number),
        text_features=text_features,
        logit_bias=draw(st.none() | st.floats(-20, 20)),
        model=draw(st.none() | TEXTS),
        bits=draw(st.sampled_from([None, "w8", "w4a8", "bf16"])),
    )
    for name in draw(st.lists(st.sampled_from(SETS), min_size=1, max_size=3, unique=True)):
        ids = draw(st.lists(TEXTS, min_size=1, max_size=4, unique=True))
        values = matrix(len(ids), dim if kind == "image_features" else len(classes))
        if kind == "probabilities":
            values = np.zeros_like(values)
            values[:, draw(st.integers(0, len(classes) - 1))] = 1
        elif kind == "logits":
            values[0, 0] = 2  # these are no probabilities
        among = draw(st.none() | st.lists(st.integers(0, len(classes) - 1), min_size=2, unique=True))
        labels = None
        if name not in ("calibration", "ood.near.c_2") or (name == "calibration" and draw(st.booleans())):
            label = st.sampled_from(among or range(len(classes)))
            labels = draw(st.lists(label, min_size=len(ids), max_size=len(ids)))
        recording.add(name, ids, labels=labels, among=among, **{kind: values})
    return recording


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recording=recordings())
def test_what_is_saved_is_loaded(recording, suffix, tmp_path):
    path = recording.save(tmp_path / f"recording{suffix}")
    assert path == tmp_path / f"recording{suffix}"
    assert_same(Recording.load(path), recording)
    assert list(tmp_path.iterdir()) == [path]  # no temporary file stays


def test_the_real_openai_clip(realdata, suffix, tmp_path):
    """The ten lines of docs/recorded.md, on the outputs of two real models for Caltech-101."""
    archive = np.load(realdata / "clip_caltech101" / "openai_zeroshot.npz")
    for name in ("vitb32", "vitb16"):
        recording = Recording(classes=archive["classnames"], logit_scale=100.0)
        recording.add("in_distribution", range(1640), probabilities=archive[f"probs_{name}"], labels=archive["labels"])
        recording.save(tmp_path / f"{name}{suffix}")
        loaded = Recording.load(tmp_path / f"{name}{suffix}")
        (recorded,) = loaded.sets.values()
        assert loaded.kind == "probabilities"
        assert len(recorded) == 1640
        assert recorded.ids[-1] == "1639"
        assert recorded.labels.dtype == np.int64
        np.testing.assert_array_equal(recorded.values, archive[f"probs_{name}"])
        right = (recorded.values.argmax(axis=1) == recorded.labels).sum()
        assert right == {"vitb32": 1406, "vitb16": 1403}[name]


def test_torch_is_not_needed(tmp_path):
    program = f"""if True:
        import sys
        import pytest_qreliab
        heavy = {{"torch", "numpy", "pydantic", "scipy", "sklearn", "PIL"}}
        assert heavy.isdisjoint(sys.modules), heavy & set(sys.modules)
        from pytest_qreliab.record import Recording
        recording = Recording(classes=["cat", "dog"])
        import numpy as np
        recording.add("in_distribution", ["a"], logits=np.zeros((1, 2)), labels=[0])
        assert "safetensors" not in sys.modules and "pyarrow" not in sys.modules
        for suffix in (".npz", ".safetensors"):
            Recording.load(recording.save({str(tmp_path / "r")!r} + suffix))
        assert (heavy - {{"numpy"}}).isdisjoint(sys.modules), heavy & set(sys.modules)
        """
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_rows_are_found_by_id(small, refusal):
    (recorded,) = small().sets.values()
    assert recorded.rows(["b", "a", "b"]).tolist() == [1, 0, 1]
    assert recorded.rows([]).dtype == np.int64
    assert refusal(recorded.rows, ["a", "x", "y"]).startswith("in_distribution lacks 2 of 3 samples, the first is 'x'")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_floats_of_any_width_become_float32(dtype, suffix, tmp_path):
    recording = Recording(classes=CLASSES)
    given = np.array([[1 / 3, 1e-7, 9.0], [0.1, -5.0, 6e4]]).astype(dtype)
    recording.add("in_distribution", [1, 2], logits=np.asfortranarray(given), labels=np.array([1, 2], dtype=np.uint8))
    given_then = given.copy()
    given[:] = 0  # a runtime's buffer is written again
    loaded = Recording.load(recording.save(tmp_path / f"r{suffix}")).sets["in_distribution"]
    assert loaded.values.dtype == np.float32
    np.testing.assert_array_equal(loaded.values, given_then.astype(np.float32))
    assert loaded.labels.dtype == np.int64
    assert loaded.ids == ("1", "2")


def test_bfloat16_is_taken():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    recording = Recording(classes=CLASSES)
    recording.add("in_distribution", ["a", "b"], logits=LOGITS.astype(ml_dtypes.bfloat16), labels=[2, 0])
    np.testing.assert_array_equal(recording.sets["in_distribution"].values, LOGITS)


def test_the_softmax_of_float16_passes_as_probabilities():
    rng = np.random.default_rng(0)
    powers = np.exp(rng.normal(size=(50, 1000)).astype(np.float16))
    recording = Recording(classes=range(1000))
    recording.add("calibration", range(50), probabilities=powers / powers.sum(axis=1, keepdims=True))
    assert recording.kind == "probabilities"


def test_tensors_are_taken_but_not_those_with_a_gradient(refusal):
    import torch

    recording = Recording(classes=CLASSES, logit_scale=torch.tensor(100.0))
    recording.add("in_distribution", ["a", "b"], logits=torch.tensor(LOGITS), labels=torch.tensor([2, 0]))
    np.testing.assert_array_equal(recording.sets["in_distribution"].values, LOGITS)
    tensor = torch.tensor(LOGITS, requires_grad=True)
    text = refusal(recording.add, "calibration", ["a", "b"], logits=tensor)
    assert text.startswith("calibration: logits: NumPy makes no array of it")
    assert ".detach().float().cpu().numpy()" in text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"classes": ["cat"]}, "classes: give at least two"),
        ({"classes": "cat"}, "classes must be a sequence of strings, found only 'cat'"),
        ({"classes": np.array("cat")}, "classes must be a sequence of strings, found only 'cat'"),
        ({"classes": ["cat", "dog", "cat"]}, "classes must differ: numbers 0 and 2 are both 'cat'"),
        ({"classes": ["cat", 1.5]}, "number 1 is of type float"),
        ({"classes": ["cat", b"dog"]}, "number 1 is of type bytes"),
        ({"classes": ["cat", ""]}, "must be text that is not empty, number 1 is ''"),
        ({"classes": ["cat", "dog\0"]}, "must be text that is not empty"),
        ({"classes": ["cat", "\ud800"]}, "must be text that is not empty"),
        ({"classes": 3}, "classes must be a sequence of strings, found int"),
        ({"logit_scale": 0.0}, "logit_scale is 0; give the factor from cosines to logits, as in 100.0"),
        ({"logit_scale": -100.0}, "logit_scale is -100; give the factor"),
        ({"logit_scale": np.log(100)}, "logit_scale is 4.60517, the logarithm of 100; give the factor"),
        ({"logit_scale": np.float32(np.log(1 / 0.07))}, "logit_scale is 2.65926, the logarithm of 1 / 0.07"),
        ({"logit_scale": 2.7e43}, "logit_scale is 2.7e+43, beyond 10000; give the factor"),
        ({"logit_scale": float("nan")}, "logit_scale must be a finite number, found nan"),
        ({"logit_scale": True}, "logit_scale must be a finite number, found True"),
        ({"logit_scale": "100"}, "logit_scale must be a finite number, found '100'"),
        ({"logit_bias": float("inf")}, "logit_bias must be a finite number"),
        ({"text_features": np.zeros((2, 4))}, "text_features must have the shape (3, dim), a row for each class"),
        ({"text_features": np.zeros((3, 4), dtype=np.int8)}, "must be floats, dequantized if need be; found int8"),
        ({"text_features": [[1.0], [1.0, 2.0], [1.0]]}, "text_features: NumPy makes no array of it"),
        ({"bits": "8"}, "bits: '8' does not say of what; write w8 (weights only) or w8a8"),
        ({"bits": "int8"}, "bits: 'int8' is no format"),
        ({"bits": "fp64"}, "of recorded outputs also fp16, bf16, fp32"),
        ({"model": ""}, "model must be text that is not empty"),
    ],
)
def test_what_a_recording_refuses(given, message, refusal):
    assert message in refusal(Recording, **{"classes": CLASSES, **given})


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("in_distributon", {}, "unknown set 'in_distributon'; did you mean 'in_distribution'?; valid: calibration, co"),
        ("ood.textures", {}, "unknown set 'ood.textures'"),
        ("shift.", {}, "NAME is of letters, digits, _ and -"),
        ("shift.a\n", {}, "unknown set"),
        ("shift.a/b", {}, "unknown set"),
        ("corruption.fog.6", {}, "SEVERITY from 1 to 5"),
        ("corruption.fog", {}, "unknown set"),
        ("in_distribution", {}, "is there already"),
        ("calibration", {"ids": ["a", "a"]}, "calibration: ids must differ: numbers 0 and 1 are both 'a'"),
        ("calibration", {"ids": []}, "calibration: ids: there are none"),
        ("calibration", {"ids": [True, False]}, "number 0 is of type bool"),
        ("calibration", {"ids": np.array([1.0, 2.0])}, "number 0 is of type float"),
        ("calibration", {"logits": LOGITS[:1]}, "logits must have the shape (2, 3), a row for each id; found (1, 3)"),
        ("calibration", {"logits": LOGITS[:, :2]}, "logits must have the shape (2, 3)"),
        ("calibration", {"logits": LOGITS[0]}, "found (3,)"),
        ("calibration", {"logits": LOGITS.astype(int)}, "logits must be floats, dequantized if need be; found int64"),
        ("calibration", {"logits": None}, "give one of image_features, logits, probabilities, found none"),
        ("calibration", {"probabilities": LOGITS}, "found logits and probabilities"),
        ("calibration", {"logits": None, "probabilities": LOGITS}, "holds probabilities, but in_distribution holds lo"),
        ("shift.a", {}, "shift.a: needs labels, one integer for each id"),
        ("corruption.fog.3", {}, "needs labels"),
        ("spurious.a", {}, "needs labels"),
        ("ood.near.a", {"labels": [0, 1]}, "ood.near.a: labels are refused"),
        ("shift.a", {"labels": [0]}, "labels must have the shape (2,), one for each id; found (1,)"),
        ("shift.a", {"labels": [0.0, 1.0]}, "labels must be integers, found float64"),
        ("shift.a", {"labels": [False, True]}, "labels must be integers, found bool"),
        (
            "shift.a",
            {"labels": [0, 3]},
            "1 of 2 are not among the 3 classes, numbered from 0; the first is 3 at id",
        ),
        ("shift.a", {"labels": [0, -1]}, "the first is -1 at id 'd'"),
        ("shift.a", {"labels": np.array([0, 2**64 - 1], dtype=np.uint64)}, "the first is 18446744073709551615"),
        ("shift.a", {"labels": [0, 1], "among": [0, 2]}, "labels: 1 of 2 are not among 'among'; the first is 1"),
        ("shift.a", {"labels": [0, 1], "among": [0, 3]}, "among: 1 of 2 are not among the 3 classes"),
        ("shift.a", {"labels": [0, 1], "among": [0, 1, 0]}, "among must be two or more distinct"),
    ],
)
def test_what_a_set_refuses(name, given, message, small, refusal):
    recording = small()
    text = refusal(lambda: recording.add(name, **{"ids": ["c", "d"], "logits": LOGITS, **given}))
    assert message in text
    assert list(recording.sets) == ["in_distribution"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[5.0, -2.0, 1.0], [0.2, 0.3, 0.5]], "1 of 2 rows do not lie in 0..1 with the sum 1, the first is of id 'a'"),
        ([[5.0, -2.0, 1.0], [0.2, 0.3, 0.5]], "these look like logits, give them as logits="),
        ([[0.2, 0.3, 0.5], [0.2, 0.3, 0.4]], "the first is of id 'b'"),
        ([[1.1, -0.1, 0.0], [0.2, 0.3, 0.5]], "the first is of id 'a' (from -0.1 to 1.1, sum 1)"),
    ],
)
def test_probabilities_must_be_such(rows, message, refusal):
    text = refusal(Recording(classes=CLASSES).add, "calibration", ["a", "b"], probabilities=rows)
    assert text.startswith("calibration: probabilities: ")
    assert message in text


def test_features_need_what_makes_logits_of_them(refusal):
    features = np.ones((1, 4), dtype=np.float32)
    for head in ({}, {"logit_scale": 100.0}, {"text_features": np.eye(3)}):
        text = refusal(Recording(classes=CLASSES, **head).add, "calibration", ["a"], image_features=features)
        assert "image_features need text_features and a logit_scale" in text
    recording = Recording(classes=CLASSES, logit_scale=100.0, text_features=np.eye(3, 5))
    assert "shape (1, 5)" in refusal(recording.add, "calibration", ["a"], image_features=features)


@pytest.mark.parametrize("bits", ["w8", "w4a8", "fp16", "BF16", "fp32"])
def test_bits_of_integers_and_floats_are_kept(bits, suffix, small, tmp_path):
    assert Recording.load(small(bits=bits).save(tmp_path / f"r{suffix}")).bits == bits.lower()


def test_an_unusual_logit_scale_is_said():
    assert Recording(CLASSES, logit_scale=14.3).warnings == []
    (text,) = Recording(CLASSES, logit_scale=1.0).warnings
    assert text.startswith("logit_scale is 1, and CLIP's is about 100")


def test_nothing_recorded_is_nothing_to_save(tmp_path, refusal):
    assert "nothing is recorded" in refusal(Recording(classes=CLASSES).save, tmp_path / "r.npz")
    assert "nothing is recorded" in refusal(lambda: Recording(classes=CLASSES).kind)


def test_a_file_by_hand(tmp_path, small, npz_of):
    assert_same(Recording.load(npz_of(tmp_path / "r.npz")), small())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": None}, "lacks 'classes'"),
        ({"classes": np.array(CLASSES, dtype=object)}, "strings must be of a 'U' dtype, not object"),
        ({"classes": np.array(CLASSES, dtype="S")}, "classes must be strings or integers, number 0 is of type bytes"),
        ({"classes": np.array([CLASSES])}, "number 0 is of type list"),
        ({"classes": np.array([*CLASSES, "fox"])}, "in_distribution: logits must have the shape (2, 4)"),
        ({"in_distribution/ids": None}, "lacks 'in_distribution/ids'"),
        (
            {"in_distribution/ids": np.array(["a", "a"])},
            "in_distribution: ids must differ: numbers 0 and 1 are both",
        ),
        ({"in_distribution/logits": None}, "in_distribution: give one of image_features, logits, probabilities, found"),
        ({"in_distribution/labels": None}, "in_distribution: needs labels"),
        ({"in_distribution/label": np.array([0, 1])}, "unknown array 'in_distribution/label'; did you mean 'in_distri"),
        ({"indistribution/logits": LOGITS}, "unknown set 'indistribution'; did you mean 'in_distribution'?"),
        ({"logitscale": np.array(100.0)}, "unknown array 'logitscale'; did you mean 'logit_scale'?"),
        ({"logit_scale": np.array([1.0, 2.0])}, "logit_scale must be a finite number"),
        ({"model": np.array(3)}, "model must be"),
        ({"version": np.array(2)}, "is of format version 2, this reads 1: a newer pytest-qreliab wrote it, upgrade"),
        ({"version": np.array("1")}, "version must be a finite number"),
    ],
)
def test_what_a_file_by_hand_may_have_wrong(changes, message, tmp_path, refusal, npz_of):
    path = npz_of(tmp_path / "r.npz", **changes)
    text = refusal(Recording.load, path)
    assert text.startswith(f"{path}: ")
    assert message in text


def test_a_file_without_sets(tmp_path, refusal):
    np.savez(tmp_path / "r.npz", classes=np.array(CLASSES))
    assert "lacks the outputs of any set" in refusal(Recording.load, tmp_path / "r.npz")


def test_the_page_s_writer_runs(tmp_path, monkeypatch):
    """The example of docs/recorded.md, as it stands there."""
    page = (Path(__file__).parents[3] / "docs" / "recorded.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    rng = np.random.default_rng(0)
    context = {
        "names": CLASSES,
        "text": rng.normal(size=(3, 8)).astype(np.float16),
        "paths": ["cat/0.jpg", "dog/1.jpg"],
        "features": rng.normal(size=(2, 8)),
        "labels": [0, 1],
        "texture_paths": ["t.png"],
        "texture_features": rng.normal(size=(1, 8)),
    }
    monkeypatch.chdir(tmp_path)
    exec(example, context)
    assert list(Recording.load("phone.npz").sets) == ["in_distribution", "ood.far.textures"]
