"""What is announced at the head of pytest's output."""

import dataclasses
from pathlib import Path

import pytest

from pytest_qreliab.config.settings import Setting
from pytest_qreliab.config.thresholds import Thresholds
from pytest_qreliab.evaluation.planning import shards
from pytest_qreliab.plugin.header import header_lines, underpowered_lines
from pytest_qreliab.report.snapshot import Snapshot

GENEROUS = "accuracy: {max_drop: 0.9}\nnll: {max_rise: 99}"


@pytest.fixture
def plan(make_plan, small_benchmark, write_thresholds):
    """Makes a plan on the small benchmark with two gates for each case, which hide nothing."""

    def plan(gates: str = GENEROUS, **given: str):
        return make_plan(benchmarks=str(small_benchmark), thresholds=str(write_thresholds(gates)), **given)

    return plan


def test_the_axes_and_the_gates_are_counted(plan):
    first, second, *_ = header_lines(plan(bits="w8,w4"))
    assert first == "qreliab: 2 cases: tiny-digits x minmax w8, minmax w4 x small"
    assert second.startswith("qreliab: 4 gates of ")
    assert second.endswith("limits.yaml, 95% confidence over all of them, device auto")
    assert header_lines(plan(bits="w8", deterministic="yes"))[1].endswith(", device auto, deterministic")


def test_one_case_and_one_gate_are_no_plural(plan):
    first, second, *_ = header_lines(plan("accuracy: {max_drop: 0.9}", bits="w8"))
    assert first.startswith("qreliab: 1 case: ")
    assert second.startswith("qreliab: 1 gate of ")


def test_a_shard_says_how_many_of_the_cases_are_its_own(plan):
    made = plan(bits="w8,w4,w2")
    shard = shards.select(Setting(text="2/3", origin="--qreliab-shard", given=True), made.cases)
    assert header_lines(made, shard=shard)[-1] == "qreliab: shard 2 of 3: 1 of 3 cases"


@pytest.mark.parametrize(
    ("update", "more"),
    [("none", ""), ("new", "; what it has not is accepted"), ("all", "; all of it is accepted anew")],
)
def test_a_snapshot_says_what_is_accepted_into_it(plan, update, more):
    snapshot = Snapshot(Path("accepted"), {}, update)
    assert header_lines(plan(bits="w8"), snapshot=snapshot)[-1] == f"qreliab: 0 gates on the drift from accepted{more}"


def test_what_cannot_be_measured_is_named(plan):
    skipping = "".join(f"\nshift.{name}: {{max: 9, where_missing: skip}}" for name in ("nll", "ece"))
    (line,) = [line for line in header_lines(plan(GENEROUS + skipping, bits="w8,w4")) if "not judged" in line]
    assert line.startswith(
        "qreliab: not judged: shift.nll, shift.ece: benchmark 'small' has no shift images; add `covariate_shift:` to "
    )


def test_what_quantizers_are_trained_on_is_said_once(plan):
    lines = header_lines(plan(quantizers="minmax,lsq,dsq", bits="w8,w4"))
    assert [line for line in lines if "trained" in line] == [
        "qreliab: lsq, dsq: trained on calibration images and class prompts of small, without labels"
    ]


def test_an_override_that_holds_for_no_case_is_named(plan):
    overrides = "\n".join(
        f"- {{match: {{bits: {bits}}}, gates: {{ece: {{max: 9}}}}}}" for bits in ("w4", "w5", "'w*a8'")
    )
    made = plan(GENEROUS, bits="w8,w4")
    (policy, *_) = made.thresholds.values()
    policy.document.path.write_text(f"{policy.document.path.read_text()}\noverrides:\n{overrides}\n")
    loaded = Thresholds.load(str(policy.document.path))
    made = dataclasses.replace(made, thresholds=dict.fromkeys(made.cases, loaded))
    lines = [line for line in header_lines(made) if "this override" in line]
    assert [line.rpartition("limits.yaml:")[2] for line in lines] == [
        "7: this override matches no case of the run", "8: this override matches no case of the run",
    ]  # fmt: skip


def test_gates_of_several_cases_that_cannot_show_anything_share_a_line(plan):
    head, *lines = underpowered_lines(plan("accuracy: {max_drop: 0.02}\nece: {max_rise: 0}", bits="w8,w4"))
    assert head.startswith("qreliab: underpowered")
    assert len(lines) == 2
    assert "accuracy max_drop 0.02: 120 samples of small show" in lines[0]
    assert lines[1].endswith("no number of samples would do")


def test_gates_that_can_show_their_limit_need_no_warning(plan):
    assert underpowered_lines(plan(bits="w8")) == []
