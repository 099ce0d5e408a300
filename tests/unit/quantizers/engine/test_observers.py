"""What observers keep of what layers read, at the shapes of real models, and which layers read the same."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pytest_qreliab import Clip
from pytest_qreliab.config.formats import Format
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.engine import observers


def test_ranges_are_those_of_all_calibration_images_and_prompts(tiny, ask):
    clip, layers = engine_layers.unpack_layers(tiny, "both")
    seen = observers.observe(clip, layers, ask(Format.integers(4, 8)), observers.ValueObserver)
    assert seen.keys() == layers.keys()
    data = ask(Format.integers(4, 8)).calibration
    images = torch.cat(list(data.batches(clip, 128)))
    assert len(images) == len(data.images) == 12  # a quarter of the sixteen is held out
    assert seen["visual.conv1"].row().max() == images.max()
    assert seen["visual.conv1"].row().min() == images.min()
    one = observers.observe(clip, layers, ask(Format.integers(4, 8), images=1), observers.ValueObserver)
    assert one["visual.conv1"].row().max() == next(iter(data.batches(clip, 1))).max()


def test_layers_are_grouped_by_what_they_read_and_the_norm_behind_it_is_known(tiny, ask):
    clip, layers = engine_layers.unpack_layers(tiny, "both")
    found = observers.find_shared_inputs(clip, layers, ask(Format.integers(4)))
    assert sorted(name for shared in found for name in shared.layers) == sorted(layers)
    block = "visual.transformer.resblocks.0"
    by_first = {shared.layers[0]: shared for shared in found}
    qkv = by_first[f"{block}.attn.q_proj"]
    assert qkv.layers == tuple(f"{block}.attn.{which}_proj" for which in "qkv")
    assert qkv.norm is clip.module.get_submodule(f"{block}.ln_1")
    assert by_first[f"{block}.mlp.c_fc"].norm is clip.module.get_submodule(f"{block}.ln_2")
    assert by_first[f"{block}.mlp.c_proj"].norm is None
    assert by_first["visual.conv1"].norm is None


# Tokens and channels of towers, whose batches of 64 a fixed step met at two tokens and a twelfth of the channels.
SHAPES = [(50, 768), (197, 768), (257, 1024), (196, 768), (64, 768), (77, 512)]


@pytest.mark.parametrize(("tokens", "channels"), SHAPES, ids=str)
def test_values_are_kept_of_every_channel_and_every_token(tokens, channels):
    layer = nn.Linear(1, 1)
    observer = observers.ValueObserver(layer)
    places = torch.arange(64 * tokens * channels, dtype=torch.int32).view(64, tokens, channels)
    for _ in range(2):
        observer.observe(layer, places)
    kept = observer.row()[0, :-2]  # without the extremes
    assert len(kept) == observers.ValueObserver.MOST
    assert len((kept % channels).unique()) == channels
    assert len((kept // channels % tokens).unique()) == tokens
    assert len((kept // (tokens * channels)).unique()) == 64


@pytest.mark.parametrize(("tokens", "channels"), SHAPES, ids=str)
def test_rows_are_kept_of_every_token(tokens, channels):
    """Of all tokens at most shapes; of 257 and fewer rows, of as many as so many draws meet."""
    layer = nn.Linear(1, 1)
    met = set()
    for _ in range(2):
        observer = observers.SampleObserver(layer)
        for batch in range(12):
            places = torch.arange(tokens).repeat(64)[:, None].view(64, tokens, 1)
            observer.observe(layer, places)
            if batch < 2:
                met |= set(observer.all().flatten().tolist())
        met |= set(observer.all().flatten().tolist())
    assert len(observer.all()) == observers.SampleObserver.ROWS
    assert len(met) > 0.85 * tokens
    assert len(observer.all().unique()) > 0.55 * tokens


@settings(max_examples=20)
@given(st.integers(1, 150))
def test_a_batch_of_any_size_is_met_at_all_tokens_and_channels(batch):
    layer = nn.Linear(1, 1)
    observer, rows = observers.ValueObserver(layer), observers.SampleObserver(layer)
    places = torch.arange(batch * 50 * 64, dtype=torch.int32).view(batch, 50, 64)
    observer.observe(layer, places)
    rows.observe(layer, places)
    kept = observer.row()[0, :-2]
    assert len((kept % 64).unique()) == 64
    assert len((kept // 64 % 50).unique()) == 50
    assert len((rows.all()[:, 0] // 64 % 50).unique()) >= 40


@given(st.lists(st.integers(1, 400), min_size=1, max_size=8), st.integers(1, 300))
def test_each_tensor_of_a_stream_is_in_the_sample_by_its_share(sizes, most):
    sample = observers.RowSample(most)
    for number, size in enumerate(sizes):
        sample.add(torch.full((size,), number))
    kept = torch.bincount(sample.rows(), minlength=len(sizes)).tolist()
    assert sum(kept) == min(most, sum(sizes))
    for size, count in zip(sizes, kept, strict=True):
        assert count == pytest.approx(sum(kept) * size / sum(sizes), abs=len(sizes) + 1)


def test_extremes_are_kept_wherever_they_are_and_the_same_data_give_the_same_sample():
    layer = nn.Linear(1, 1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 64, 50, 96, generator=generator)
    for place, value in ((123_457, 90.0), (777_777, -80.0)):
        x.view(-1)[place] = value
    first, second = (observers.ValueObserver(layer) for _ in range(2))
    for observer in (first, second):
        for batch in x:
            observer.observe(layer, batch)
    assert (first.row().min(), first.row().max()) == (-80, 90)
    assert torch.equal(first.row(), second.row())


def test_maps_of_a_convolution_are_kept_whole():
    layer = nn.Conv2d(3, 1, 1)
    observer = observers.SampleObserver(layer)
    x = torch.randn(40, 3, 5, 5)
    observer.observe(layer, x)
    kept = observer.all()
    assert kept.shape == (8, 3, 5, 5)
    assert all(any(torch.equal(one, other) for other in x) for one in kept)


class Rows:
    """An observer that counts the rows that a layer reads."""

    def __init__(self, layer: nn.Module) -> None:
        self.count = 0

    def observe(self, layer: nn.Module, x: torch.Tensor) -> None:
        self.count += observers.tokens(layer, x).shape[0]


@pytest.mark.parametrize(("name", "cut"), [("vit", True), ("custom-text", True), ("siglip-like", False)])
def test_padding_is_seen_only_where_features_depend_on_it(architecture_of, ask, name, cut):
    clip, layers = engine_layers.unpack_layers(architecture_of(name), "text")
    request = ask(Format.integers(4, 8), "text")
    texts = [prompt for batch in request.calibration.prompt_batches() for prompt in batch]
    found = observers.observe(clip, layers, request, Rows)
    expected = sum(len(text) + 2 for text in texts) if cut else 24 * len(texts)
    per_token = {found[layer].count for layer in layers if "resblocks" in layer}
    assert per_token == {expected}
    assert found[next(layer for layer in layers if "text_projection" in layer)].count == len(texts)


class Branching(nn.Module):
    """A tower whose second layer reads what the first one does, unless an image is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(3, 4) for _ in range(3))
        self.text = nn.Embedding(256, 4)

    def encode_image(self, images):
        x = images.mean((2, 3))
        other = x + 1 if x.mean() > 0.9 else x
        return self.first(x) + self.second(other) + self.third(x)

    def encode_text(self, tokens):
        return self.text(tokens)


def test_layers_that_one_image_alone_would_group_are_told_apart(ask):
    torch.manual_seed(0)
    clip = Clip.wrap(
        Branching(),
        preprocess=lambda image: torch.full((3, 4, 4), sum(image.convert("L").getextrema()) / 510),
        tokenizer=lambda texts: torch.tensor([ord(text[0]) for text in texts]),
        logit_scale=10.0,
    )
    clip, layers = engine_layers.unpack_layers(clip, "vision")
    found = observers.find_shared_inputs(clip, layers, ask(Format.integers(4), "vision"))
    assert [shared.layers for shared in found] == [("first", "third"), ("second",)]


class InPlace(nn.Module):
    """A tower that changes a tensor in place after one layer has read it, and whose last layer reads half of one."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.first, self.second, self.part = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(2, 4)
        self.text = nn.Embedding(256, 4)

    def encode_image(self, images):
        x = self.norm(images.flatten(2).mean(1)[:, :4])
        y = self.first(x) + self.part(x[:, :2])
        return y + self.second(x.relu_())

    def encode_text(self, tokens):
        return self.text(tokens)


def test_a_tensor_that_changes_in_place_or_is_read_in_part_is_another_one(ask):
    torch.manual_seed(0)
    clip = Clip.wrap(
        InPlace(),
        preprocess=lambda image: torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)),
        tokenizer=lambda texts: torch.tensor([ord(text[0]) for text in texts]),
        logit_scale=10.0,
    )
    clip, layers = engine_layers.unpack_layers(clip, "vision")
    found = observers.find_shared_inputs(clip, layers, ask(Format.integers(4), "vision"))
    assert [shared.layers for shared in found] == [("first",), ("part",), ("second",)]
    assert [shared.norm is not None for shared in found] == [True, False, False]
