"""Outputs recorded elsewhere, for code that has no torch: the public name of `pytest_qreliab.data.recording`."""

from pytest_qreliab.data.recording import RecordedSet, Recording

__all__ = ["RecordedSet", "Recording"]
