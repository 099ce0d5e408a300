"""A CLIP whose towers are ONNX graphs, run by ONNX Runtime."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


class Tower(nn.Module):
    """One tower: images (n, 3, height, width) or tokens (n, context) to features (n, dim).

    Args:
        source: The graph itself, serialised, or its file, which may keep its weights in files beside it.
        device: Where it runs: on a GPU if ONNX Runtime has a provider for it, else on the CPU.
    """

    def __init__(self, source: bytes | Path, device: torch.device) -> None:
        super().__init__()
        self.source, self.device = source, device
        self.preprocess_cfg: Any = None  # that of the tower that it stands for, if any
        runtime = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = torch.get_num_threads()
        providers = ["CPUExecutionProvider"]
        if device.type == "cuda" and "CUDAExecutionProvider" in runtime.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        self.session = runtime.InferenceSession(
            source if isinstance(source, bytes) else str(source), options, providers=providers
        )

    def __deepcopy__(self, memo: object) -> Tower:
        return type(self)(self.source, self.device)

    def graph(self) -> Any:
        """Return the graph as an `onnx.ModelProto`, weights included."""
        onnx = importlib.import_module("onnx")
        return onnx.load_from_string(self.source) if isinstance(self.source, bytes) else onnx.load(str(self.source))

    def batches(self, x: torch.Tensor) -> list[npt.NDArray[Any]]:
        """Cut inputs into batches that the graph takes; a fixed batch size fills the last one up."""
        given = self.session.get_inputs()[0]
        array = x.detach().cpu().numpy().astype(DTYPES[given.type])
        size = given.shape[0] if isinstance(given.shape[0], int) else max(1, len(array))
        batches = [array[start : start + size] for start in range(0, len(array), size)]
        short = size - len(batches[-1])
        if short:
            batches[-1] = np.concatenate([batches[-1], np.repeat(batches[-1][-1:], short, axis=0)])
        return batches

    def run(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return all outputs for a batch of any size but 0, on the device of `x`."""
        name = self.session.get_inputs()[0].name
        parts: list[list[npt.NDArray[Any]]] = [self.session.run(None, {name: batch}) for batch in self.batches(x)]
        outputs = (np.concatenate(of_batches)[: len(x)] for of_batches in zip(*parts, strict=True))
        return [torch.from_numpy(output).float().to(x.device) for output in outputs]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features, (n, dim)."""
        return self.run(x)[0]


class MappedTower(Tower):
    """An image tower whose second output is the last patch map (n, channels, rows, columns)."""

    def forward_intermediates(self, images: torch.Tensor, **options: object) -> dict[str, Any]:
        """Return the features and the patch map under the names that open_clip's towers use."""
        features, patch_map = self.run(images)[:2]
        return {"image_features": features, "image_intermediates": [patch_map]}


def load_tower(source: bytes | Path, device: torch.device) -> Tower:
    """Load the tower of a graph, with its patch map if it has one."""
    plain = Tower(source, device)
    outputs = plain.session.get_outputs()
    if len(outputs) < 2 or len(outputs[1].shape) != 4:
        return plain
    plain.__class__ = MappedTower  # the session is not made twice
    return plain


class OnnxClip(nn.Module):
    """A CLIP with one or both towers as ONNX graphs; the other tower is the original's.

    Args:
        original: A CLIP of open_clip.
        towers: The graphs, by `visual` and `text`.
    """

    def __init__(self, original: Any, towers: Mapping[str, Tower]) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(original.logit_scale.detach().clone(), requires_grad=False)
        bias = getattr(original, "logit_bias", None)
        self.logit_bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.visual: nn.Module = towers.get("visual", original.visual)
        self.text = towers.get("text")
        self.original: Any = original if self.text is None else None
        if "visual" in towers:  # so that a benchmark can change it, as that of the original
            towers["visual"].preprocess_cfg = getattr(original.visual, "preprocess_cfg", None)

    def towers(self) -> dict[str, Tower]:
        """Return the graphs, by `visual` and `text`."""
        both = {"visual": self.visual, "text": self.text}
        return {name: tower for name, tower in both.items() if isinstance(tower, Tower)}

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """Return image features, (n, dim)."""
        out = self.visual(images)
        features: torch.Tensor = out[0] if isinstance(out, tuple) else out  # CoCa's tower gives its tokens as well
        return features

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return text features, (n, dim)."""
        features: torch.Tensor = self.original.encode_text(tokens) if self.text is None else self.text(tokens)
        return features
