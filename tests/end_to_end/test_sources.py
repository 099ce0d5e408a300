"""What sources leave out, and labels that are missing, as a run says it."""

import json

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("everything_imported")


def run(pytester, write_thresholds, *args: str):
    limits = write_thresholds("accuracy: {max_drop: 0.9}")
    return pytester.runpytest_inprocess(
        "-p", "no:cacheprovider", f"--qreliab-thresholds={limits}", "--qreliab-bits=w8", *args
    )


def test_what_is_left_out_is_in_the_head_the_summary_and_the_results(pytester, folder_benchmark, write_thresholds):
    (folder_benchmark.parent / "images" / "cat" / "notes.txt").write_text("x")
    said = "folders: in_distribution: 1 file left out, without the suffix of an image that Pillow reads: cat/notes.txt"
    result = run(pytester, write_thresholds, f"--qreliab-benchmarks={folder_benchmark}", "--qreliab-json=r.json")
    result.stdout.fnmatch_lines([f"qreliab: warning: {said}", f"*warning: {said}"])
    (case,) = json.loads((pytester.path / "r.json").read_text())["cases"]
    assert said in case["warnings"]


def test_an_array_without_labels_ends_the_run_before_it_starts(pytester, tmp_path, write_thresholds):
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 8, 8), np.uint8))
    (tmp_path / "b.yaml").write_text("version: 1\nclasses: [a, b]\nin_distribution: {source: arrays, path: x.npz}\n")
    result = run(pytester, write_thresholds, f"--qreliab-benchmarks={tmp_path / 'b.yaml'}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*b.yaml:3: `labels:` is missing: the path of a .npy file *"])
    assert "Traceback" not in result.stderr.str() + result.stdout.str()
