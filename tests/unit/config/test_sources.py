import pytest
from pydantic import TypeAdapter, ValidationError

from pytest_qreliab.config import sources
from pytest_qreliab.config.sources import Source

READ = TypeAdapter(Source).validate_python


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"source": "digits", "part": "test"}, sources.Digits),
        ({"source": "image-folder", "path": "a", "pattern": "{label} */common-*/*"}, sources.ImageFolder),
        ({"source": "arrays", "path": "a.npy", "part": "{severity}/5"}, sources.Arrays),
        ({"source": "arrays", "path": "a.npy", "part": "2/5"}, sources.Arrays),
        ({"source": "huggingface", "name": "cifar10"}, sources.HuggingFace),
        ({"source": "huggingface", "name": "org/name", "revision": "v1"}, sources.HuggingFace),
    ],
)
def test_the_name_of_a_source_decides_what_else_it_takes(given, kind):
    assert type(READ(given)) is kind


@pytest.mark.parametrize(
    "given",
    [
        {"source": "digits"},
        {"source": "letters", "labelled_by": "key"},
        {"source": "letters", "limit": 0},
        {"source": "held-out", "limit": 5},  # for calibration alone
        {"source": "recorded", "path": "a.npz"},  # for the in-distribution set alone
        {"source": "flat-folder", "path": " "},
        {"source": "image-folder", "path": "a", "pattern": "*/*"},
        {"source": "image-folder", "path": "a", "pattern": "{label}/{label}"},
        {"source": "image-folder", "path": "a", "pattern": "{label}/{name}"},
        {"source": "table", "path": "a.csv", "delimiter": ", "},
        {"source": "arrays", "path": "a.npy", "part": "0/5"},
        {"source": "arrays", "path": "a.npy", "part": "2"},
        {"source": "huggingface", "path": "a", "name": "b"},
        {"source": "huggingface"},
        {"source": "huggingface", "path": "a", "revision": "v1"},
    ],
    ids=str,
)
def test_what_a_source_does_not_take_is_refused(given):
    with pytest.raises(ValidationError):
        READ(given)
