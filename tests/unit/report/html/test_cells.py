"""Signs and numbers of the tables."""

from pytest_qreliab.report.html import cells


def test_every_sign_has_words(read_page, small):
    signs = [of for of in read_page(small).all("b") if of.get("role") == "img"]
    words = {"✓": "pass", "✗": "fail", "?": "inconclusive"}
    assert {of["text"] for of in signs} == set(words)
    assert all(of["aria-label"] == words[of["text"]] for of in signs)


def test_numbers_are_written_as_everywhere():
    written = {0.12345: "0.1235", -0.5: "−0.5000", 1234.5: "1234", 1e7: "1e+07", -0.00001: "0.0000"}
    assert {value: cells.number_text(value) for value in written} == written
    assert cells.number_text(0.00001, "+") == "+0.0000"
