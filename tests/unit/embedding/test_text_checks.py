"""Prompts that are cut, and classes whose text features are equal."""

import numpy as np
import open_clip
import pytest
import torch

from pytest_qreliab.embedding.text_checks import CutWatch, check_distinct, cut_warning
from pytest_qreliab.errors import InputError
from pytest_qreliab.models.tiny_digits import ByteTokenizer

LENGTH = 8  # of which two are the start and the end


def simple(texts, **options):
    return open_clip.SimpleTokenizer(context_length=LENGTH)(texts, **options)


def words(texts):
    """A tokenizer of whole words that takes no context length."""
    tokens = torch.zeros(len(texts), LENGTH, dtype=torch.long)
    for row, text in zip(tokens, texts, strict=True):
        known = [1, *[2 + hash(word) % 1000 for word in text.split()][: LENGTH - 2], 3000]
        row[: len(known)] = torch.tensor(known)
    return tokens


def left_padded(texts, context_length=LENGTH):
    tokens = words(texts) if context_length == LENGTH else None
    if tokens is None:
        tokens = torch.zeros(len(texts), context_length, dtype=torch.long)
        for row, text in zip(tokens, texts, strict=True):
            known = [1, *[2 + hash(word) % 1000 for word in text.split()][: context_length - 2], 3000]
            row[: len(known)] = torch.tensor(known)
    counts = (tokens != 0).sum(dim=1)
    return torch.stack([row.roll(len(row) - int(count)) for row, count in zip(tokens, counts, strict=True)])


def as_mapping(texts):
    return {"input_ids": words(texts), "attention_mask": words(texts) != 0}


FITS, FULL, CUT = "a photo", "a photo of a red cat", "a photo of a red cat outside"


@pytest.mark.parametrize("tokenizer", [simple, words, left_padded, as_mapping])
def test_a_prompt_is_cut_if_its_end_is_lost_and_not_if_it_just_fits(tokenizer):
    watch = CutWatch(tokenizer)
    watch([FITS, CUT])
    watch([FULL, "a cat"])
    assert watch.cut() == [CUT]


def test_one_byte_too_many_is_a_cut():
    watch = CutWatch(ByteTokenizer(8))
    watch(["abcdef", "abcdefg", "abc def"])
    assert watch.cut() == ["abcdefg", "abc def"]


def test_a_word_of_which_one_token_is_lost_is_a_cut():
    tokens = simple(["a photo of a xylophonist"])
    assert (tokens != 0).all()  # three tokens or more
    watch = CutWatch(simple)
    watch(["a photo of a xylophonist"])
    assert watch.cut() == ["a photo of a xylophonist"]


def test_the_tokens_are_passed_on():
    assert torch.equal(CutWatch(words)([FITS, CUT]), words([FITS, CUT]))
    assert CutWatch(as_mapping)([FITS]).keys() == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(
    "tokenizer",
    [
        lambda texts: torch.tensor([ord(text[0]) for text in texts]),
        lambda texts: torch.rand(len(texts), 4),
        lambda texts: [text.split() for text in texts],
        lambda texts: {"tokens": 3},
    ],
)
def test_of_other_tokens_nothing_is_known(tokenizer):
    watch = CutWatch(tokenizer)
    watch([CUT])
    assert watch.cut() == []


def test_the_warning_has_the_number_and_the_first():
    assert (
        cut_warning("m", 3, "a cat", 20) == "model 'm': its tokenizer cuts 3 of 20 prompts, the first of them: 'a cat'"
    )


@pytest.fixture
def classifier():
    rows = np.random.default_rng(0).standard_normal((2000, 16)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_classes_of_equal_text_features_are_named(classifier):
    names = [f"class {i}" for i in range(2000)]
    check_distinct("m", names, classifier)
    classifier[1999] = classifier[3] * np.float32(1 + 1e-7)
    with pytest.raises(
        InputError, match=r"model 'm': the classes 'class 3' and 'class 1999' have the same text feat.*own"
    ):
        check_distinct("m", names, classifier)
    with pytest.raises(InputError, match="cuts their prompts; write shorter ones"):
        check_distinct("m", names, classifier, cut=True)


def test_near_classes_are_not_equal_ones(classifier):
    classifier[1] = classifier[0] + np.float32(1e-5)
    check_distinct("m", ["a", "b"], classifier[:2] / np.linalg.norm(classifier[:2], axis=1, keepdims=True))


def test_nan_is_no_equality():
    check_distinct("m", ["a", "b"], np.full((2, 4), np.nan, np.float32))
