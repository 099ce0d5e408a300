import pytest

from pytest_qreliab.data.wording import counted, first_few


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(1, "image", "1 image"), (0, "image", "0 images"), (12345, "row", "12,345 rows"), (2, "class", "2 classes")],
)
def test_a_number_goes_with_its_noun(number, noun, text):
    assert counted(number, noun) == text


def test_five_names_are_shown_and_the_others_are_counted():
    names = [str(n) for n in range(1005)]
    assert first_few(names) == "0, 1, 2, 3, 4 and 1,000 more"
    assert first_few(names[:5]) == "0, 1, 2, 3, 4"
    assert first_few([]) == ""
    assert first_few(["é\n", "caf\udce9"]) == r"é\n, caf\udce9"
