import pytest

from pytest_qreliab.config.formats import Format
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.quantizers.builtin import BUILTIN
from pytest_qreliab.quantizers.recipe import RESCALE, import_function


@pytest.mark.parametrize("quantizer", BUILTIN, ids=lambda quantizer: quantizer.name)
def test_every_entry_can_be_imported_and_says_what_it_does(quantizer):
    if quantizer.missing():
        pytest.skip(f"the extra pytest-qreliab[{quantizer.extra}] is not installed")
    assert quantizer.help
    assert quantizer.packages == () or quantizer.extra
    if quantizer.name == "artifact":
        return
    recipe = Catalog().recipe(quantizer.name)
    assert callable(recipe.apply())
    assert Catalog().recipe(quantizer.name + RESCALE).rescale
    widths = [Format.parse(text) for text in quantizer.bits or ("w2", "w4a8", "w8a8")]
    assert all(recipe.bits(width, "both") == width for width in widths)


@pytest.mark.parametrize("quantizer", BUILTIN, ids=lambda quantizer: quantizer.name)
def test_every_function_that_is_named_in_a_string_is_there(quantizer):
    """Their modules import no optional package, which may be missing here."""
    for place in (quantizer.function, quantizer.read_bits):
        if place is not None:
            assert place.startswith("pytest_qreliab.quantizers.")
            assert callable(import_function(place))
