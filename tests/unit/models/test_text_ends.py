"""Where texts end is seen from features: cut texts give the same ones, or are not cut."""

import numpy as np
import open_clip
import pytest
import torch
from torch import nn

from pytest_qreliab import Clip
from pytest_qreliab.models import text_ends
from pytest_qreliab.models.tiny_digits import ByteTokenizer

PROMPTS = ["a handwritten two.", "9", "seven", "a photo of a three, and of a four"]
TEXT = {"context_length": 48, "vocab_size": 258, "width": 32, "heads": 2, "layers": 2}
VISION = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}


def small(text=(), kind=open_clip.CLIP, **more) -> Clip:
    torch.manual_seed(0)
    module = kind(embed_dim=16, vision_cfg=VISION, text_cfg=TEXT | dict(text), **more).eval().requires_grad_(False)
    return Clip("small", module, open_clip.image_transform(16, is_train=False), ByteTokenizer(48))


@pytest.mark.parametrize(
    "make", [small, lambda: small(kind=open_clip.CustomTextCLIP)], ids=["causal", "causal-custom-text"]
)
def test_texts_of_a_causal_tower_end_at_the_end_token(make):
    clip = make()
    end = text_ends.find_text_end(clip, PROMPTS)
    tokens = clip.tokenizer(PROMPTS)
    assert end.lengths(tokens).tolist() == (tokens.argmax(1) + 1).tolist() == [len(text) + 2 for text in PROMPTS]
    for row, length in enumerate(end.lengths(tokens).tolist()):
        alone = text_ends.take_texts(tokens, torch.tensor([row]))
        torch.testing.assert_close(text_ends.encode_cut(clip, alone, length), clip.encode_text([PROMPTS[row]]))
    torch.testing.assert_close(
        text_ends.encode_cut(clip, tokens, int(end.lengths(tokens).max())), clip.encode_text(PROMPTS)
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: small({"no_causal_mask": True, "pool_type": "last"}, open_clip.CustomTextCLIP),
        lambda: small({"no_causal_mask": True}, open_clip.CustomTextCLIP),
        lambda: small({"pool_type": "last"}, open_clip.CustomTextCLIP),
        lambda: small({"embed_cls": True, "output_tokens": True}, open_clip.CoCa, multimodal_cfg=TEXT),
    ],
    ids=["siglip", "no-mask", "last-token", "coca"],
)
def test_texts_have_no_end_where_padding_or_length_changes_the_features(make):
    assert text_ends.find_text_end(make(), PROMPTS) is None


class Foreign(nn.Module):
    """A tower that takes what Hugging Face's tokenizers give, and masks what they say is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.mix, self.image = nn.Embedding(256, 16), nn.Linear(16, 16), nn.Linear(3, 16)
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def encode_image(self, images):
        return self.image(images.mean((2, 3)))

    def encode_text(self, tokens):
        mask = tokens["attention_mask"][..., None]
        return (self.mix(self.embedding(tokens["input_ids"])).tanh() * mask).sum(1)


class Whole(Foreign):
    """The same, but for texts of one length alone."""

    def encode_text(self, tokens):
        assert tokens["input_ids"].shape[1] == 48
        return super().encode_text(tokens)


def foreign(kind, padding):
    def tokenizer(texts):
        """Each text ends with the token 255, as does the padding if it is 255 too."""
        filled = [[*text.encode(), 255, *[padding] * 48][:48] for text in texts]
        lengths = torch.tensor([[len(text) + 1] for text in texts])
        return {"input_ids": torch.tensor(filled), "attention_mask": torch.arange(48) < lengths}

    torch.manual_seed(0)
    return Clip.wrap(
        kind(),
        preprocess=lambda image: torch.from_numpy(np.array(image.convert("RGB").resize((4, 4)))).permute(2, 0, 1) / 255,
        tokenizer=tokenizer,
    )


@pytest.mark.parametrize("padding", [0, 255])
def test_mappings_of_tokens_are_cut_and_a_padding_token_may_also_be_the_end(padding):
    clip = foreign(Foreign, padding)
    end = text_ends.find_text_end(clip, PROMPTS)
    tokens = clip.tokenizer(PROMPTS)
    assert end.lengths(tokens).tolist() == [len(text) + 1 for text in PROMPTS]
    cut = text_ends.encode_cut(clip, text_ends.take_texts(tokens, torch.tensor([1, 2])), 6)
    torch.testing.assert_close(cut, clip.encode_text(PROMPTS[1:3]))


def test_texts_are_not_cut_for_a_tower_that_takes_no_shorter_ones():
    assert text_ends.find_text_end(foreign(Whole, 0), PROMPTS) is None


def test_positions_and_masks_are_as_before_even_after_an_error():
    clip = small()
    positions, mask = clip.module.positional_embedding, clip.module.attn_mask
    tokens = clip.tokenizer(PROMPTS)
    with pytest.raises(IndexError):
        text_ends.encode_cut(clip, tokens + 1000, 40)
    text_ends.encode_cut(clip, tokens, 40)
    assert clip.module.positional_embedding is positions
    assert clip.module.attn_mask is mask


def test_a_tokenizer_that_returns_no_table_of_tokens_is_left_alone():
    clip = small()
    object.__setattr__(clip, "tokenizer", lambda texts: torch.zeros(len(texts), 3))
    assert text_ends.find_text_end(clip, PROMPTS) is None
