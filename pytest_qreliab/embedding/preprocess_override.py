"""Give a model the preprocessing that a benchmark asks for."""

from __future__ import annotations

from dataclasses import replace

from open_clip import transform

from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.layout import OPEN_CLIP

RENAMED = {"resize": "resize_mode", "fill": "fill_color"}  # settings of benchmarks in open_clip's words


def with_preprocessing(clip: Clip, data: Dataset) -> Clip:
    """Return the model with the preprocessing that the benchmark asks for.

    Raises:
        InputError: The model brings its own, which cannot be changed.
    """
    given = {name: value for name, value in data.preprocessing if value is not None}
    if not given:
        return clip
    overrides = {RENAMED.get(name, name): tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    known = getattr(getattr(clip.module, "visual", None), "preprocess_cfg", None)
    if clip.layout is not OPEN_CLIP or known is None:
        raise InputError(
            f"{clip.name} brings its own preprocessing, which `preprocessing:` of a benchmark cannot change ("
            f"{', '.join(given)}); wrap it with another preprocess"
        )
    config = transform.PreprocessCfg(**transform.merge_preprocess_dict(known, overrides))
    return replace(clip, preprocess=transform.image_transform_v2(config, is_train=False))
