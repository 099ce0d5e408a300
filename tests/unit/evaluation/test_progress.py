"""Progress of long work."""

import pytest

from pytest_qreliab.evaluation.progress import short_name


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("tiny-digits", "tiny-digits"),
        ("ViT-B-32/weights.pt", "weights.pt"),
        ("local-dir:/models/mine/", "mine"),
        ("hf-hub:org/model", "model"),
    ],
)
def test_a_model_is_called_by_the_last_part_of_its_path(name, short):
    assert short_name(name) == short
