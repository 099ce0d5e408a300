"""The settings that weights of a CLIP were trained with and do not hold: the image transform and the activation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pytest_qreliab.errors import InputError

IMAGE_SETTINGS = ("mean", "std", "interpolation", "resize_mode", "fill_color")
WORDS = {
    "interpolation": ("bicubic", "bilinear", "random"),
    "resize_mode": ("shortest", "longest", "squash"),
    "mode": ("RGB",),
}


@dataclass(frozen=True, kw_only=True)
class EncodingSettings:
    """The settings of a model's weights; those of open_clip for weights that it knows nothing of by default."""

    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)  # of each channel, in units of the largest pixel
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0  # around an image that is fitted by its longest side
    quick_gelu: bool = False  # the activation is QuickGELU in place of GELU

    def with_image_settings(self, given: Mapping[str, Any]) -> EncodingSettings:
        """Return these settings with those of a `preprocess_cfg` of open_clip in place of its own."""
        known = {name: given[name] for name in IMAGE_SETTINGS if given.get(name) is not None}
        for name in ("mean", "std"):
            if name in known:
                value = known[name]
                known[name] = (float(value),) * 3 if isinstance(value, int | float) else tuple(map(float, value))
        return replace(self, **known)

    @property
    def image_settings(self) -> dict[str, Any]:
        """The settings of the image transform, as open_clip takes them."""
        return {name: getattr(self, name) for name in IMAGE_SETTINGS}

    def facts(self) -> dict[str, str]:
        """Return the settings in words, by what they are."""
        return {
            "mean": _numbers(self.mean),
            "std": _numbers(self.std),
            "interpolation": self.interpolation,
            "resize mode": self.resize_mode + (f", filled with {self.fill_color}" if self.fill_color else ""),
            "activation": "QuickGELU" if self.quick_gelu else "GELU",
        }

    def differences(self, other: EncodingSettings) -> dict[str, str]:
        """Return the facts of other settings that are not those of these."""
        mine = self.facts()
        return {what: value for what, value in other.facts().items() if value != mine[what]}


def check_image_settings(given: Mapping[str, Any], where: str) -> None:
    """Raise InputError if open_clip would not take a `preprocess_cfg`, or would take it for something else.

    Args:
        given: The settings.
        where: What holds them, at the start of the message.
    """
    for name, allowed in WORDS.items():
        if given.get(name) is not None and given[name] not in allowed:
            raise InputError(f"{where} has {name} {given[name]!r}; open_clip has {', '.join(allowed)}")
    for name in ("mean", "std"):
        value = given.get(name)
        numbers = value if isinstance(value, list | tuple) and len(value) == 3 else [value]
        if value is not None and not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
            raise InputError(f"{where} has {name} {value!r}; three finite numbers are needed")
        if value == 0 or (name == "std" and 0 in numbers):  # a mean of 0 alone is open_clip's default
            mend = "; write [0, 0, 0]" if name == "mean" else ""
            raise InputError(f"{where} has {name} {value!r}, which open_clip cannot use{mend}")


def _numbers(values: tuple[float, ...]) -> str:
    shown = [f"{value:.4g}" for value in values]
    return shown[0] if len(set(shown)) == 1 else " ".join(shown)
