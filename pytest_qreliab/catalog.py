"""The catalogue: every quantizer and model that has a name, ours and those that are registered."""

from __future__ import annotations

from pytest_qreliab.errors import InputError, unknown
from pytest_qreliab.quantizers import RESCALE, Quantizer, Recipe
from pytest_qreliab.quantizers.builtin import BUILTIN
from pytest_qreliab.quantizers.parameters import Control


class Catalog:
    """What `--qreliab-quantizers` and `--qreliab-models` may name. Starts with what the package ships."""

    def __init__(self) -> None:
        self.quantizers = {quantizer.name: quantizer for quantizer in BUILTIN}

    def add_quantizer(self, quantizer: Quantizer) -> None:
        """Register a quantizer. Raises InputError if its name is taken."""
        if quantizer.name in self.quantizers:
            raise InputError(f"a quantizer {quantizer.name!r} is there already; give the new one another name")
        self.quantizers[quantizer.name] = quantizer

    def recipe(self, name: str) -> Recipe:
        """The quantizer of that name, `NAME+rescale` included. Raises InputError, with the nearest valid name."""
        plain = name.removesuffix(RESCALE)
        if plain not in self.quantizers:
            raise unknown("quantizer", plain, self.quantizers)
        quantizer = self.quantizers[plain]
        parameters = quantizer.parameters()
        matched = self.recipe(parameters.match) if isinstance(parameters, Control) else None
        return Recipe(name, quantizer, parameters, plain != name, matched)
