"""What the tests of the HTML share: results, and a parser of pages."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest

from pytest_qreliab.report.html import page

VOID = {"meta", "input", "wbr", "br"}


class Page(HTMLParser):
    """The elements of a page, each with its attributes and the text in it, and a check that they are nested."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self._open = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, name, attributes):
        element = {"name": name, "text": "", **{key: value or "" for key, value in attributes}}
        self.elements.append(element)
        if name not in VOID:
            self._open.append(element)

    def handle_endtag(self, name):
        assert self._open.pop()["name"] == name

    def handle_data(self, text):
        for element in self._open:
            element["text"] += text

    def all(self, name, **attributes):
        return [of for of in self.elements if of["name"] == name and attributes.items() <= of.items()]

    def data(self):
        return json.loads(self.all("script", id="data")[0]["text"])


@pytest.fixture
def read_page():
    """Renders results and parses the page."""
    return lambda results: Page(page.render(results))


@pytest.fixture(scope="session")
def small(build):
    """Four cases of one model, two of which fail; tests must not change them."""
    return build.four_cases()
