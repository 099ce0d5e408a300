"""The figures of a case, from its measurements."""

import pytest
from PIL import Image

pytestmark = pytest.mark.usefixtures("everything_imported")

EVERY = {
    "reliability",
    "risk-coverage",
    "roc",
    "corruptions",
    "sqnr",
    "singular-values",
    "spectra",
    "error-maps",
    "weights",
}


def test_every_figure_of_a_case_is_written(pytester, tmp_path, small_benchmark, kept):
    pytest.importorskip("matplotlib")
    corruptions = "corruptions: {kinds: [fog, snow], severities: [1, 3], limit: 40}\n"
    (tmp_path / "b.yaml").write_text(small_benchmark.read_text() + corruptions)
    (tmp_path / "t.yaml").write_text(
        "version: 1\ngates: {corruption.accuracy: {max_drop: 0.5}, ood.auroc: {max_drop: 1}}\n"
    )
    options = (f"--qreliab-benchmarks={tmp_path}/b.yaml", f"--qreliab-thresholds={tmp_path}/t.yaml", "--qreliab-bits=4",
               f"--qreliab-cache-dir={kept}")  # fmt: skip
    result = pytester.runpytest_inprocess(*options, "--qreliab-figures=drawn/here", "-k", "ood")
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(["qreliab: figures go to drawn/here"])
    (folder,) = (pytester.path / "drawn" / "here").iterdir()
    assert folder.name == "tiny-digits_minmax_w4a8_b"
    assert {path.stem for path in folder.iterdir()} == EVERY
    for path in folder.iterdir():
        with Image.open(path) as image:
            assert image.mode == "RGBA"
            assert min(image.size) > 200
    plain = pytester.runpytest_inprocess(*options, "-k", "ood")
    plain.stdout.no_fnmatch_line("*figures*")


def test_a_file_in_the_place_of_the_folder_is_refused(pytester):
    pytester.makefile(".png", taken="")
    result = pytester.runpytest_inprocess("--qreliab-bits=4", "--qreliab-figures=taken.png")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--qreliab-figures: */taken.png is a file; give a folder, which need not exist yet"])


def test_a_missing_package_is_named_with_the_command_that_installs_it(pytester, monkeypatch):
    monkeypatch.setattr("pytest_qreliab.evaluation.planning.parse_settings.find_spec", lambda name: None)
    result = pytester.runpytest_inprocess("--qreliab-bits=4", "--qreliab-figures=drawn")
    result.stderr.fnmatch_lines(["*--qreliab-figures: drawing figures needs pip install 'pytest-qreliab?report?'"])
