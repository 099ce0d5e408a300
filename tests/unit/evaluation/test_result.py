"""The result of one case."""

from dataclasses import fields
from types import SimpleNamespace

from pytest_qreliab.evaluation.result import Result


def test_verdicts_are_those_of_one_aspect_or_all(make_gate):
    verdicts = tuple(SimpleNamespace(gate=make_gate(metric)) for metric in ("accuracy", "ece", "balanced_accuracy"))
    skipped = {"recall.dog": "no dogs", "ood.auroc": "no images"}
    empty = dict.fromkeys(field.name for field in fields(Result))
    result = Result(**{**empty, "verdicts": verdicts, "skipped": skipped})
    assert result.skipped_for("accuracy") == {"recall.dog": "no dogs"}
    assert result.skipped_for("calibration") == {}
    assert result.skipped_for(None) == skipped
    assert result.verdicts_for("accuracy") == [verdicts[0], verdicts[2]]
    assert result.verdicts_for("ood") == []
    assert result.verdicts_for(None) == list(verdicts)
