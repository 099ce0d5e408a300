"""Recorded pairs in every file format go through every option and every writer, without an image."""

import json
import re

import numpy as np
import pytest

from pytest_qreliab import cli
from pytest_qreliab.config.settings import OPTIONS, SELF_CHECK
from pytest_qreliab.record import Recording
from pytest_qreliab.report import results_file

pytestmark = pytest.mark.usefixtures("everything_imported")

# The format of the file, and what it holds.
FORMS = {".npz": "image_features", ".safetensors": "logits", ".parquet": "probabilities"}
CLASSES = ["cat", "dog", "owl"]
COUNTS = {
    "in_distribution": 60,
    "calibration": 100,
    "shift.sketch": 30,
    "corruption.fog.2": 30,
    "corruption.fog.4": 30,
    "spurious.common": 30,
    "spurious.counter": 30,
    "ood.near.letters": 30,
    "ood.far.noise": 30,
}
METRICS = [
    "accuracy",
    "ece",
    "nll",
    "kl",
    "shift.accuracy",
    "corruption.ece",
    "spurious.gap",
    "ood.auroc",
    "ood.fpr95.msp",
]


def write_recording(path, *, noise: float = 0.0, bits: str | None = None, moved: str = ""):
    """Write a recording of every kind of image set; `moved` names a set whose first row is another."""
    kind = FORMS[path.suffix]
    head = {"text_features": np.eye(3, 8)} if kind == "image_features" else {}
    recording = Recording(CLASSES, logit_scale=20.0, bits=bits, **head)
    for number, (name, count) in enumerate(COUNTS.items()):
        rng, labels = np.random.default_rng(number), np.arange(count) % 3
        features = rng.normal(size=(count, 8)) * 0.4
        if not name.startswith("ood"):
            features[np.arange(count), labels] += 1
        features += noise * np.random.default_rng(99).normal(size=features.shape)
        features[0, 0] += name == moved
        logits = 20 * features[:, :3] / np.linalg.norm(features, axis=1, keepdims=True)
        powers = np.exp(logits)
        values = {"image_features": features, "logits": logits, "probabilities": powers / powers.sum(1, keepdims=True)}
        ids = [f"{name} {index}.jpg" for index in range(count)]
        recording.add(name, ids, labels=None if name.startswith("ood") else labels, **{kind: values[kind]})
    return recording.save(path)


@pytest.fixture(params=FORMS)
def pair(request, pytester, monkeypatch):
    """A recorded pair in the working directory, and no settings from outside: the suffix."""
    if request.param == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'pytest-qreliab[parquet]'")
    write_recording(pytester.path / f"full{request.param}")
    write_recording(pytester.path / f"quant{request.param}", noise=0.05, bits="fp16")
    gates = "".join(f"  {metric}: {{max_change: 9, max_drift: 0.5}}\n" for metric in METRICS)
    (pytester.path / "limits.yaml").write_text(f"version: 1\ngates:\n{gates}")
    return request.param


def every_option(suffix: str) -> dict[str, str]:
    """Return a value for each option of the table; the quantizer comes from the suite."""
    return {
        "suite": "suite.yaml",
        "models": f"recorded:full{suffix}",
        "quantizers": f"recorded:quant{suffix}",
        "bits": "w8",
        "scopes": "both",
        "benchmarks": f"recorded:full{suffix}",
        "thresholds": "limits.yaml",
        "controls": "weights",
        "figures": "figures",
        "device": "cpu",
        "compile": "no",
        "deterministic": "yes",
        "cache_dir": "kept",
        "cache_size": "1GB",
        "shard": "1/1",
        "snapshot": "accepted",
        "update": "new",
        "json": "results.json",
        "html": "page.html",
    }


def test_every_option_takes_a_recorded_pair(pair, pytester, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'pytest-qreliab[report]'")
    (pytester.path / "suite.yaml").write_text(f"version: 1\nmodels: [recorded:full{pair}]\n")
    given = every_option(pair)
    assert set(given) == {option.name for option in OPTIONS}
    flags = [f"{option.flag}={given[option.name]}" for option in OPTIONS]
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--junitxml=junit.xml", *flags)
    assert result.ret == 0
    assert "there is no image" not in result.stdout.str()
    result.stdout.fnmatch_lines(["*recorded outputs have no weights*", "*accepted into accepted: 1 new*"])

    results = results_file.read(pytester.path / "results.json")
    (record,) = results.cases
    assert (record["bits"], record["coverage"], record["size"]) == ("fp16", None, None)
    assert {gate["metric"] for gate in record["gates"]} == set(METRICS)
    assert all(gate["passed"] and not gate["problem"] for gate in record["gates"])
    assert record["data"]["in_distribution"].startswith("60 samples ")
    assert record["baseline"]["outputs"].startswith(f"full{pair} ")
    assert record["parameters"].startswith(f"outputs=quant{pair} ")
    for name in ("page.html", "junit.xml"):
        assert f"quant{pair}" in (pytester.path / name).read_text(encoding="utf-8")
    assert list((pytester.path / "figures").rglob("*.*"))

    written = [f"again{suffix}" for suffix in (".html", ".md", ".csv", *([".parquet"] if pair == ".parquet" else []))]
    assert cli.main(["report", "results.json", *(f"--output={name}" for name in written)]) == 0
    assert cli.main(["accept", "results.json", "--snapshot=other"]) == 0
    assert cli.main(["compare", "results.json", "results.json"]) == 0
    assert cli.main(["merge", "results.json"]) == 0
    assert cli.main(["check", f"recorded:full{pair}", "limits.yaml"]) == 0
    assert "60" in capsys.readouterr().out


@pytest.mark.parametrize("pair", [".npz"], indirect=True)
def test_the_self_check_takes_a_recorded_pair(pair, pytester):
    given = every_option(pair)
    flags = [f"--qreliab-{name}={given[name]}" for name in ("models", "quantizers", "benchmarks", "thresholds")]
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", SELF_CHECK, *flags)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*self-check*"])


def run(pytester, suffix: str, *args: str):
    given = every_option(suffix)
    flags = [
        f"--qreliab-{name}={given[name]}" for name in ("models", "quantizers", "benchmarks", "thresholds", "snapshot")
    ]
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", *flags, *args)


@pytest.mark.parametrize("moved", ["in_distribution", "corruption.fog.4"])
def test_changed_rows_are_other_data_and_are_said(pair, pytester, moved):
    assert run(pytester, pair, "--qreliab-update=new").ret == 0
    assert "was accepted" not in run(pytester, pair).stdout.str()
    write_recording(pytester.path / f"full{pair}", moved=moved)
    text = " ".join(run(pytester, pair).stdout.str().split())
    part = moved.partition(".")[0]
    assert re.search(
        rf"data of full: {part} \d+ (samples|sets) \w+ was accepted, \d+ (samples|sets) \w+ is there", text
    )


@pytest.mark.slow
@pytest.mark.parametrize("pair", [".npz"], indirect=True)
def test_workers_measure_a_recorded_pair(pair, pytester):
    pytest.importorskip("xdist")
    assert run(pytester, pair, "-n2", "--qreliab-update=new", "--qreliab-json=r.json").ret == 0
    assert len(json.loads((pytester.path / "r.json").read_text())["cases"]) == 1


@pytest.mark.parametrize("pair", [".npz"], indirect=True)
def test_two_recordings_of_one_name_are_told_apart(pytester, pair):
    for folder, noise, bits in (("a", 0.02, "w8"), ("b", 0.3, "bf16")):
        (pytester.path / folder).mkdir()
        write_recording(pytester.path / folder / f"quant{pair}", noise=noise, bits=bits)
    names = [f"recorded:{folder}/quant{pair}" for folder in ("a", "b")]
    args = (f"--qreliab-quantizers={','.join(names)}", "--qreliab-json=r.json", "--qreliab-html=r.html")
    result = run(pytester, pair, *args, "--qreliab-update=new")
    assert result.ret == 0
    one, other = results_file.read(pytester.path / "r.json").cases
    assert [one["quantization"], other["quantization"]] == [f"{names[0]} w8", f"{names[1]} bf16"]
    nll = [next(gate for gate in record["gates"] if gate["metric"] == "nll")["quantized"] for record in (one, other)]
    assert nll[0] != nll[1]
    for record in (one, other):
        result.stdout.fnmatch_lines([f"{record['quantization']} *"])
    (accepted,) = (pytester.path / "accepted").glob("*.json")
    assert len(json.loads(accepted.read_text())["cases"]) == 2


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"logit_scale": 4.6051702}, "quant.npz: logit_scale is 4.60517, the logarithm of 100; give the factor"),
        (
            {"value": -np.inf},
            "quant.npz: in_distribution: logits: NaN or infinity in 1 of 4 rows, the first is of id '1'",
        ),
        ({"softmax": True}, "quant.npz: in_distribution: logits: all rows lie in 0..1 with the sum 1: this is a softm"),
    ],
)
def test_a_bad_recording_ends_the_run_before_anything_is_measured(pytester, bad, message):
    logits = np.array([[9.0, 1.0], [2.0, 7.0], [3.0, 1.0], [2.0, 4.0]])
    head = {"classes": np.array(["cat", "dog"]), "in_distribution/ids": np.array(list("0123"))}
    head["in_distribution/labels"] = np.array([0, 1, 0, 1])
    np.savez(pytester.path / "full.npz", **head, **{"in_distribution/logits": logits})
    if "value" in bad:
        logits[1, 0] = bad["value"]
    if "softmax" in bad:
        logits /= logits.sum(axis=1, keepdims=True)
    more = {name: value for name, value in bad.items() if name == "logit_scale"}
    np.savez(pytester.path / "quant.npz", **head, **{"in_distribution/logits": logits}, **more)
    result = pytester.runpytest_inprocess(
        "-p",
        "no:cacheprovider",
        "--qreliab-models=recorded:full.npz",
        "--qreliab-quantizers=recorded:quant.npz",
        "--qreliab-benchmarks=recorded:full.npz",
    )
    assert result.ret == 4
    assert message in result.stderr.str()
    assert "Traceback" not in result.stderr.str()
