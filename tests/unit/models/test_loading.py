import pytest

from pytest_qreliab.errors import InputError
from pytest_qreliab.models import loading


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny-digit", "unknown model 'tiny-digit'; did you mean 'tiny-digits'"),
        ("vit-b-32/openai", "did you mean 'ViT-B-32'"),
        ("ViT-B-32", "names no weights; write ViT-B-32/TAG with one of .*openai"),
        ("ViT-B-32/opnai", "did you mean 'openai'"),
        ("ViT-B-32/missing.pt", "there is no checkpoint /"),
        ("ViT-B-32/./missing", "there is no checkpoint /"),
        ("hf-hub:only-a-name", "ORGANISATION/REPOSITORY"),
        ("local-dir:/nowhere", "open_clip_config.json cannot be read"),
    ],
)
def test_names_that_cannot_be_loaded(name, message):
    with pytest.raises(InputError, match=message):
        loading.check_model_name(name)


def test_names_that_can():
    for name in ("tiny-digits", "ViT-B-32/openai", "ViT-B-32/laion2b-s34b-b79k", "hf-hub:org/name"):
        loading.check_model_name(name)
