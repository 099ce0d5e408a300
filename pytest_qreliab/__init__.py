"""pytest-qreliab: a release gate for the reliability of quantized CLIP models."""

__version__ = "0.1.0"
