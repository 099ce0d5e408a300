"""Recorded outputs: written, read back, and refused where they cannot be right."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_qreliab.errors import InputError
from pytest_qreliab.record import KINDS, Recording

SUFFIXES = (".npz", ".safetensors", ".parquet")
RNG = np.random.default_rng(0)
CLASSES = ["cat", "dog", "owl"]
TEXT = RNG.normal(size=(3, 4)).astype(np.float32)


def outputs(kind: str, n: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(n, 4 if kind == "image_features" else 3)).astype(np.float32)
    return np.exp(values) / np.exp(values).sum(axis=1, keepdims=True) if kind == "probabilities" else values


def recording(kind: str = "image_features", **more) -> Recording:
    given = {"logit_scale": 100.0, "text_features": TEXT} if kind == "image_features" else {}
    found = Recording(CLASSES, **{**given, **more})
    found.add("in_distribution", [f"{i}.png" for i in range(5)], labels=[0, 1, 2, 1, 0], **{kind: outputs(kind, 5)})
    return found


def assert_same(one: Recording, other: Recording) -> None:
    for name in ("classes", "logit_scale", "logit_bias", "model", "bits"):
        assert getattr(one, name) == getattr(other, name)
    np.testing.assert_array_equal(one.text_features, other.text_features)
    assert one.sets.keys() == other.sets.keys()
    assert one.kind == other.kind
    for name, found in one.sets.items():
        assert found.ids == other.sets[name].ids
        for part in ("values", "labels", "among"):
            np.testing.assert_array_equal(getattr(found, part), getattr(other.sets[name], part))
            if getattr(found, part) is not None:
                assert getattr(found, part).dtype == getattr(other.sets[name], part).dtype


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1, unique=True),
    st.booleans(),
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read_back(tmp_path_factory, suffix, kind, ids, rich):
    written = recording(kind, **({"logit_bias": -10.0, "model": "tiny-digits", "bits": "w8a8"} if rich else {}))
    n = len(ids)
    written.add("ood.far.textures", ids, **{kind: outputs(kind, n, 1)})
    written.add("calibration", range(n), **{kind: outputs(kind, n, 2)})
    written.add("shift.r", ids, labels=np.arange(n) % 2 * 2, among=[0, 2], **{kind: outputs(kind, n, 3)})
    path = written.save(tmp_path_factory.mktemp("r") / f"a{suffix}")
    assert [path] == list(path.parent.iterdir())
    assert_same(Recording.load(path), written)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_not_a_number_is_kept_for_the_gates_to_see(tmp_path, suffix):
    values = outputs("logits", 2)
    values[1, 2] = np.nan
    found = Recording(CLASSES)
    found.add("in_distribution", ["a", "b"], labels=[0, 1], logits=values)
    read = Recording.load(found.save(tmp_path / f"a{suffix}"))
    np.testing.assert_array_equal(read.sets["in_distribution"].values, values)


def test_rows_are_found_by_id():
    found = recording().sets["in_distribution"]
    assert found.rows(["3.png", "0.png"]).tolist() == [3, 0]
    with pytest.raises(InputError, match=r"lacks 2 of 3 samples, the first is 'x.png'; its own first id is '0.png'"):
        found.rows(["1.png", "x.png", "y.png"])


NAMED = {"ids": ["a", "b"], "labels": [0, 1], "logits": outputs("logits", 2)}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("in_distribution", {"ids": ["a", "a"]}, "ids must differ: numbers 0 and 1 are both 'a'"),
        ("in_distribution", {"ids": "ab"}, "ids must be a sequence of strings, found the one string"),
        ("in_distribution", {"ids": [1.5, 2.0]}, "number 0 is of type float"),
        ("in_distribution", {"labels": [0, 3]}, "labels: 1 of 2 are not among the classes' indices .* 3 at id 'b'"),
        ("in_distribution", {"labels": [0.0, 1.0]}, "labels must be integers, found float64"),
        ("in_distribution", {"labels": [0]}, r"labels must have the shape \(2,\), one for each id; found \(1,\)"),
        ("in_distribution", {"labels": None}, "needs labels"),
        ("in_distribution", {"logits": np.ones((2, 4))}, r"shape \(2, 3\), a row for each id; found \(2, 4\)"),
        ("in_distribution", {"logits": np.ones((2, 3), int)}, "logits must be floats, dequantized"),
        ("in_distribution", {"logits": None}, "give one of image_features, logits, probabilities, found none"),
        (
            "in_distribution",
            {"logits": None, "image_features": np.ones((2, 4))},
            "need text_features and a logit_scale",
        ),
        ("in_distribution", {"logits": None, "probabilities": NAMED["logits"] * 9}, "these look like logits"),
        ("in_distribution", {"logits": None, "probabilities": np.full((2, 3), 0.4)}, "the sum 1, .* softmax over the"),
        ("shift.v2", {"among": [1, 2]}, "labels: 1 of 2 are not among 'among'"),
        ("ood.far.x", {}, "labels are refused"),
        ("ood.x", {"labels": None}, "unknown set 'ood.x'"),
        ("corruption.fog.6", {}, "unknown set"),
    ],
)
def test_what_cannot_be_right_is_refused(name, change, message):
    with pytest.raises(InputError, match=message):
        Recording(CLASSES).add(name, **{**NAMED, **change})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"classes": ["cat"]}, "give at least two"),
        ({"classes": ["cat", "cat"]}, "must differ"),
        ({"logit_scale": 0.0}, "greater than 0"),
        ({"logit_scale": float("nan")}, "finite number"),
        ({"text_features": np.ones((2, 4))}, r"shape \(3, dim\)"),
        ({"bits": "8"}, r"write w8 \(weights only\) or w8a8"),
        ({"bits": "w9"}, "out of range"),
    ],
)
def test_what_cannot_describe_a_model_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        Recording(**{"classes": CLASSES, **given})


def damaged_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


PARTS = {"classes": np.array(CLASSES), **{f"in_distribution/{name}": np.array(value) for name, value in NAMED.items()}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": None}, "lacks 'classes'"),
        ({"classes": np.array(CLASSES, dtype=object)}, "its strings need a 'U' dtype"),
        ({"in_distribution/ids": None}, "lacks 'in_distribution/ids'"),
        ({"in_distribution/label": np.array([0, 1])}, "unknown array .*did you mean 'in_distribution/labels'"),
        ({"in_distribution/labels": np.array([0, 9])}, "in_distribution: labels: 1 of 2"),
        ({"version": np.array(2)}, "of format version 2, .* upgrade"),
    ],
)
def test_a_file_that_another_program_wrote_wrongly(tmp_path, change, message):
    arrays = {name: value for name, value in {**PARTS, **change}.items() if value is not None}
    path = damaged_npz(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=message) as error:
        Recording.load(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_damaged_or_not_there(tmp_path, suffix):
    path = recording().save(tmp_path / f"a{suffix}")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=f"cannot be read as {suffix}"):
        Recording.load(path)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        Recording.load(path)
    with pytest.raises(InputError, match=r"unknown suffix '.pt'.*valid: .npz"):
        Recording.load(tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"cannot be written: .*No such file"):
        recording().save(tmp_path / "nowhere" / f"a{suffix}")


def test_neither_writing_nor_reading_needs_torch(tmp_path):
    code = (
        "import sys, numpy as np; from pytest_qreliab.record import Recording\n"
        "r = Recording(['a', 'b']); r.add('in_distribution', ['x'], labels=[0], logits=np.ones((1, 2)))\n"
        "[Recording.load(r.save(sys.argv[1] + s)) for s in ('.npz', '.safetensors', '.parquet')]\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "r")], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
