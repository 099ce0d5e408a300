"""The commands of `qreliab` on results files."""

from pathlib import Path

import pytest


def test_report_writes_every_format_or_shows_the_table(results_path, command, tmp_path):
    code, lines = command("report", results_path)
    assert code == 0
    assert "tiny-digits on small (120 samples, cpu)" in lines
    assert lines[-5] == "smallest passing: minmax w8a8, 0.33 of full size"
    assert [line.partition(":")[0] for line in lines[-4:-1]] == ["not judged"] * 3
    assert lines[-1] == "2 cases: 1 passed, 1 failed, 0 without result, 10 gated metrics not judged"
    names = [tmp_path / f"r.{suffix}" for suffix in ("md", "html", "csv", "parquet")]
    code, lines = command("report", results_path, *(f"--output={name}" for name in names))
    assert (code, len(lines)) == (0, 1)
    assert all(name.stat().st_size > 1000 for name in names)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["report", "R", "--output=r.txt"], "--output: r.txt ends in none of .html, .md, .csv, .parquet"),
        (["report", "R", "--output=no/r.md"], "--output: no/r.md cannot be written: No such file or directory"),
        (["report", "none.json"], "none.json: cannot be read: No such file or directory"),
        (["compare", "R", "none.json"], "none.json: cannot be read: No such file or directory"),
        (["compare", "R", "R", "--thresholds=defalt"], "unknown thresholds file 'defalt'; did you mean 'default'?*"),
        (["accept", "R", "--snapshot=R"], "--snapshot: * is a file; give a folder, which need not exist yet"),
    ],
)
def test_arguments_that_cannot_be_used(results_path, command, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    code, lines = command(*(arg.replace("R", str(results_path)) if arg.endswith("R") else arg for arg in args))
    assert code == 2
    head, _, tail = f"qreliab: error: {message}".partition("*")
    assert lines[0].startswith(head)
    assert lines[0].endswith(tail) or message.endswith("*")


def test_accept_takes_what_passed(results_path, command, tmp_path):
    folder = tmp_path / "accepted"
    code, lines = command("accept", results_path, f"--snapshot={folder}")
    assert code == 1
    assert lines == [
        f"accepted into {folder}: 1 new",
        "not accepted, as a gate fails: tiny-digits/minmax/w2a8/small",
    ]
    assert [path.name for path in folder.iterdir()] == ["tiny-digits.json"]
    assert Path(folder / "tiny-digits.json").read_text().count("minmax") == 1
