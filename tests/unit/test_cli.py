"""The console command, as a user meets it."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from pytest_qreliab import cli
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.metrics import registry
from pytest_qreliab.quantizers.recipe import Quantizer


def listed(capsys, *kinds: str) -> str:
    assert cli.main(["list", *kinds]) == 0
    return capsys.readouterr().out


def test_quantizers_with_what_they_can_do(capsys):
    lines = listed(capsys, "quantizers").splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("  percentile "))
    assert lines[at].endswith("round to nearest, ranges clip outliers")
    assert "bits: integers, w2 to w8 (w4g128: in groups), a2 to a8, fp16, bf16, fp8," in lines[at + 1]
    assert "needs calibration images for static activation ranges; covers 100%" in lines[at + 1]
    assert "share=99.9 (float above 50, at most 100)" in lines[at + 2]
    assert all(any(line.startswith(f"  {name} ") for line in lines) for name in Catalog().quantizers)


def test_a_quantizer_whose_package_is_missing_says_how_to_add_it(capsys, monkeypatch):
    def register(catalog):
        catalog.add_quantizer(
            Quantizer(
                name="far",
                help="elsewhere",
                function="no:where",
                bits=("w8",),
                extra="far",
                packages=("no_such_package",),
            )
        )

    monkeypatch.setattr(Catalog, "add_entry_points", register)
    out = listed(capsys, "quantizers")
    assert "not usable here, no_such_package is missing: pip install 'pytest-qreliab[far]'" in out
    assert "bits: w8 (" in out


def test_benchmarks_and_metrics(capsys):
    out = listed(capsys, "benchmarks", "metrics")
    assert re.search(r"digits +scikit-learn's handwritten digits", out)
    assert "measures accuracy, calibration, robustness, ood, spectrum" in out
    assert "calibration, lower is better: expected calibration error" in out
    assert "spectrum, any change is harm: share of the patch map" in out
    for metric in registry.names():
        assert metric in out or metric.rpartition(".")[2] in out


def test_models_have_one_line_each(capsys, monkeypatch, tiny):
    monkeypatch.setattr(Catalog, "add_entry_points", lambda self: self.add_model("mine", tiny, help="my own"))
    lines = listed(capsys, "models").splitlines()
    assert sum(line.startswith("  tiny-digits ") for line in lines) == 1
    (line,) = (line for line in lines if line.split()[:1] == ["ViT-B-32"])
    assert "openai, " in line
    assert "laion2b_s34b_b79k" in line
    assert any(line.split() == ["mine", "my", "own"] for line in lines)


def test_a_mistyped_kind(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["list", "quantizer"])
    assert end.value.code == 2
    assert "unknown kind 'quantizer'; did you mean 'quantizers'?" in capsys.readouterr().err


def test_an_entry_point_that_is_broken_is_one_message(capsys, monkeypatch):
    from pytest_qreliab.errors import InputError

    def register(catalog):
        raise InputError("entry point acme cannot be imported")

    monkeypatch.setattr(Catalog, "add_entry_points", register)
    assert cli.main(["list", "metrics"]) == 2
    assert capsys.readouterr().err == "qreliab: error: entry point acme cannot be imported\n"


def test_it_is_quick_and_plain_in_a_pipe():
    script = (
        "import sys; from pytest_qreliab import cli; cli.main(sys.argv[1:]); "
        "print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, "list", "quantizers", "benchmarks", "metrics"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal is needed")
@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_gets_lines_that_fit(no_color):
    import pty

    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm", "NO_COLOR": no_color}
    command = [sys.executable, "-m", "pytest_qreliab.cli", "list", "quantizers", "metrics"]
    process = subprocess.Popen(command, stdout=slave, env=environment)  # read meanwhile: the terminal holds little
    os.close(slave)
    text = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:
            break
        if not chunk:
            break
        text += chunk
    os.close(master)
    assert process.wait() == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text.decode())
    assert max(map(len, plain.splitlines())) <= 80
    assert "\x1b[3" not in text.decode()
    words = re.sub(r"\s+", " ", plain)
    assert "exp of the entropy of the squared singular values of the centred image features" in words


@pytest.mark.skipif(sys.platform == "win32", reason="a shell is needed")
def test_a_pipe_that_closes_early_is_no_error():
    command = f"{sys.executable} -m pytest_qreliab.cli list quantizers metrics | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("quantizers\n", "")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The store in pytest's cache of the folder that is the current one, with three entries."""
    from pytest_qreliab.config.settings import IN_PYTESTS_CACHE
    from pytest_qreliab.embedding.pixel_files import PixelFiles
    from pytest_qreliab.embedding.store import Store
    from pytest_qreliab.hashing import digest

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QRELIAB_CACHE_DIR", raising=False)
    store = Store(tmp_path / IN_PYTESTS_CACHE)
    for number in range(2):
        store.put(digest(number), {"x": np.zeros(100_000, np.uint8)}, {}, f"features {number}")
    with PixelFiles(store).rows(digest("images"), (10, 200_000), "10 images") as keep:
        for _ in range(10):
            keep(np.zeros(200_000, np.uint8))
    return store


def test_the_cache_is_listed_with_what_each_entry_is(cache, capsys):
    assert cli.main(["cache", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1].strip() for line in lines[:-1]] == ["features 0", "features 1", "10 images"]
    assert "1.9 MiB  10 images" in lines[2]
    assert lines[-1].endswith(": 2.1 MiB")


def test_the_cache_is_pruned_to_a_size(cache, capsys):
    assert cli.main(["cache", "prune", "--size=2.05MB"]) == 0
    assert capsys.readouterr().out.strip().endswith("97.8 KiB removed, 2.0 MiB left")
    assert cli.main(["cache", "prune"]) == 0
    assert not list(cache.folder.rglob("*.safetensors"))


def test_the_cache_is_verified_and_what_is_damaged_goes(cache, capsys):
    assert cli.main(["cache", "verify"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    for path in (next(cache.folder.rglob("*.npy")), next(cache.folder.rglob("*.safetensors"))):
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)
    assert cli.main(["cache", "verify"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum("damaged" in line and line.endswith("; removed") for line in lines) == 2
    assert lines[-1].endswith("2 damaged")
    assert cli.main(["cache", "verify"]) == 0
    assert len(list(cache.folder.rglob("*.safetensors"))) == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [(["list", "--dir=none"], "there is no cache at"), (["prune", "--size=5"], "--size: '5' is no size; write 500MB")],
)
def test_a_cache_that_is_not_there_and_a_size_that_is_none(cache, capsys, args, message):
    assert cli.main(["cache", *args]) == 2
    assert message in capsys.readouterr().err


def test_check_counts_what_is_measured_says_what_is_left_out_and_goes_on_after_a_wrong_file(
    image_folders, capsys, monkeypatch
):
    monkeypatch.chdir(image_folders)
    (image_folders / "images" / "cat" / "notes.txt").write_text("x")
    text = "version: 1\nin_distribution: {source: image-folder, path: %s, limit: 9}\n"
    (image_folders / "wrong.yaml").write_text(text % "nowhere")
    (image_folders / "right.yaml").write_text(text % "images" + "calibration: {source: held-out, limit: 3}\n")
    assert cli.main(["check", "wrong.yaml", "right.yaml"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "wrong",
        f"  wrong    wrong.yaml:2: {image_folders / 'nowhere'}: the folder cannot be read: No such file or directory",
        "right",
        "  present  in_distribution: 9 images of 18 (3 held out for calibration, 6 over the limit)",
        "  present  calibration: 3 images",
        "  warning: right: in_distribution: 1 file left out, without the suffix of an image that Pillow reads: "
        "cat/notes.txt",
    ]
    assert cli.main(["check", "right.yaml"]) == 0
