"""The preprocessing that a benchmark asks for."""

from dataclasses import replace

import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.data import loading
from pytest_qreliab.embedding.preprocess_override import with_preprocessing
from pytest_qreliab.errors import InputError

BASE = """\
version: 1
templates: ["a {}."]
in_distribution: {source: image-folder, path: images, limit: 9}
"""


def write(path, text: str):
    path.write_text(text)
    return str(path)


def test_a_benchmark_changes_the_preprocessing_of_open_clips_models_alone(image_folders, tiny):
    text = (
        BASE + "preprocessing: {resize: squash, interpolation: bilinear, mean: [0.5, 0.5, 0.5], std: [0.2, 0.2, 0.2]}\n"
    )
    loaded = loading.load(Benchmark.load(write(image_folders / "b.yaml", text)))
    config = dict(tiny.module.visual.preprocess_cfg)
    config.update(resize_mode="squash", interpolation="bilinear", mean=(0.5,) * 3, std=(0.2,) * 3)
    expected = image_transform_v2(PreprocessCfg(**config), is_train=False)
    image = loaded.in_distribution.load(3)
    assert torch.equal(with_preprocessing(tiny, loaded).preprocess(image), expected(image))
    assert not torch.equal(expected(image), tiny.preprocess(image))
    foreign = replace(tiny, layout=object())
    with pytest.raises(InputError, match="brings its own preprocessing"):
        with_preprocessing(foreign, loaded)


def test_a_model_stays_as_it_is_where_nothing_is_asked_for(image_folders, tiny):
    loaded = loading.load(Benchmark.load(write(image_folders / "b.yaml", BASE)))
    foreign = replace(tiny, layout=object())
    assert with_preprocessing(tiny, loaded) is tiny
    assert with_preprocessing(foreign, loaded) is foreign
