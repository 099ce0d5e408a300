"""Recorded outputs: the public name of `pytest_qreliab.data.recording`, which needs no torch."""

from pytest_qreliab.data.recording import RecordedSet, Recording

__all__ = ["RecordedSet", "Recording"]
