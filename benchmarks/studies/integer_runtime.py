"""Hold `products: integer` against ONNX Runtime's static quantization, and show how far its own reruns spread.

    python benchmarks/studies/integer_runtime.py local-dir:CLIP IMAGES

IMAGES is a folder with a folder of images for each class. Every fifth image is measured; the others calibrate, in four
parts. For each way to quantize to w8a8 it prints the agreement with full precision, the KL divergence of the softmax
outputs, and the mean distance of unit features: images with the image tower quantized, texts with the text tower.

ONNX Runtime quantizes by its defaults (QDQ, per channel), once for each part, and with symmetric activations, 7-bit
weights, unsigned activations and with its graph optimisations. Masks stay floats, as its defaults lose every text tower
that has one: see `onnx_preparation.masks`.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from onnxruntime import quantization
from PIL import Image

from pytest_qreliab.config.formats import Format
from pytest_qreliab.data.images import from_arrays
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.models import loading
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.calibration import Calibration
from pytest_qreliab.quantizers.engine.layers import unpack_layers
from pytest_qreliab.quantizers.libraries import onnx_preparation
from pytest_qreliab.quantizers.libraries import onnxruntime as towers
from pytest_qreliab.quantizers.request import Request

TEMPLATES = ("a photo of a {}.", "a blurry photo of a {}.", "a low resolution photo of a {}.", "{}")
PART = 128  # images that calibrate
MEASURED = 2000
BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Data:
    """Preprocessed images and prompts."""

    classes: tuple[str, ...]
    measured: torch.Tensor
    parts: tuple[torch.Tensor, ...]  # that calibrate

    @property
    def prompts(self) -> list[str]:
        """The prompts, class by class."""
        return [template.replace("{}", name) for name in self.classes for template in TEMPLATES]


def read(clip: Clip, folder: Path) -> Data:
    """Return the images of a folder of classes, every fifth to measure on."""
    classes = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))

    def some(start: int, count: int) -> torch.Tensor:
        each = -(-count // len(classes))
        paths = [path for name in classes for path in sorted((folder / name).iterdir())[start::5][:each]]
        return torch.stack([clip.preprocess(Image.open(path).convert("RGB")) for path in paths])

    parts = tuple(some(start, PART) for start in range(1, 5))
    return Data(classes=classes, measured=some(0, MEASURED), parts=parts)


def encoded(encode: Callable[[Any], torch.Tensor], x: torch.Tensor | list[str]) -> torch.Tensor:
    """Return unit features."""
    batches = [x[start : start + BATCH] for start in range(0, len(x), BATCH)]
    return F.normalize(torch.cat([encode(batch) for batch in batches]), dim=-1)


def compared(clip: Clip, data: Data, image: torch.Tensor, text: torch.Tensor, tower: str) -> str:
    """Return what quantizing a tower does, in words, given the features that it leaves and makes."""
    full_image, full_text = encoded(clip.encode_image, data.measured), encoded(clip.encode_text, data.prompts)
    moved = (image - full_image if tower == "visual" else text - full_text).norm(dim=-1).mean()

    def logits(images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        of_class = F.normalize(texts.reshape(len(data.classes), len(TEMPLATES), -1).mean(1), dim=-1)
        return clip.logit_scale * images @ of_class.T

    full, other = logits(full_image, full_text), logits(image, text)
    divergence = (full.softmax(1) * (full.log_softmax(1) - other.log_softmax(1))).sum(1).mean()
    agreement = (full.argmax(1) == other.argmax(1)).float().mean()
    return f"agreement {agreement:.4f}  KL {divergence:.5f}  features {moved:.4f}"


def ours(clip: Clip, data: Data, part: torch.Tensor, tower: str, parameters: Mapping[str, Any]) -> Clip:
    """Return the model quantized by `minmax`."""
    recipe = Catalog().recipe("minmax")
    recipe = replace(recipe, parameters=recipe.quantizer.parameters.model_validate(dict(parameters)))
    calibration = Calibration(
        images=from_arrays("part", part.movedim(1, -1).mul(0).byte().numpy()),
        held_out=None,
        classes=data.classes,
        templates=TEMPLATES,
        read=lambda images, preprocess: iter(part.split(BATCH)),
    )
    scope = "vision" if tower == "visual" else "text"
    request = Request(bits=Format.of("w8a8"), scope=scope, parameters=recipe.parameters, calibration=calibration)
    return recipe.quantize(clip, request)


def theirs(graph: Any, inputs: list[Any], x: list[Any], options: Mapping[str, Any], *, optimised: bool) -> torch.Tensor:
    """Return unit features of a graph that ONNX Runtime quantizes."""
    name = graph.graph.input[0].name

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        left: Iterator[Any] = iter(inputs)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.left, None)
            return None if batch is None else {name: batch}

    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = 3
    if not optimised:
        session_options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "full.onnx"), Path(folder, "quantized.onnx")
        onnx.save(graph, before)
        quantization.quantize_static(
            before, after, Reader(), nodes_to_exclude=onnx_preparation.masks(graph), **{"per_channel": True, **options}
        )
        session = onnxruntime.InferenceSession(str(after), session_options, providers=["CPUExecutionProvider"])
    return F.normalize(torch.cat([torch.from_numpy(session.run(None, {name: b})[0]) for b in x]), dim=-1)


def main(model: str, folder: str) -> None:
    """Print a table for each tower."""
    logging.disable(logging.CRITICAL)
    clip = loading.load_model(model)
    data, unpacked = read(clip, Path(folder)), unpack_layers(clip, "both")[0]
    full = {"visual": encoded(clip.encode_image, data.measured), "text": encoded(clip.encode_text, data.prompts)}
    tokens = [
        clip.tokenizer(data.prompts[start : start + BATCH]).numpy() for start in range(0, len(data.prompts), BATCH)
    ]
    unsigned = {"activation_type": quantization.QuantType.QUInt8}
    for tower in ("visual", "text"):
        graph = onnx.load_from_string(towers.export(unpacked, tower))

        def show(what: str, features: torch.Tensor, tower: str = tower) -> None:
            outputs = full | {tower: features}
            print(f"{tower:7} {what:44} {compared(clip, data, outputs['visual'], outputs['text'], tower)}", flush=True)

        for products in ("float", "integer"):
            for symmetric in (True, False):
                parameters = {"products": products, "symmetric_activations": symmetric}
                quantized = ours(clip, data, data.parts[0], tower, parameters)
                x, encode = (
                    (data.measured, quantized.encode_image)
                    if tower == "visual"
                    else (data.prompts, quantized.encode_text)
                )
                show(f"ours, {products}, {'symmetric' if symmetric else 'asymmetric'}", encoded(encode, x))
        x = [batch.numpy() for batch in data.measured.split(BATCH)] if tower == "visual" else tokens
        reruns: dict[str, tuple[int, dict[str, Any], bool]] = {
            **{f"images {part + 1}": (part, {}, False) for part in range(len(data.parts) if tower == "visual" else 1)},
            "graph optimisations": (0, {}, True),
            "symmetric activations": (0, {"extra_options": {"ActivationSymmetric": True}}, False),
            "unsigned activations, 7-bit weights": (0, {**unsigned, "reduce_range": True}, True),
        }
        for what, (part, options, optimised) in reruns.items():
            batches = [batch.numpy() for batch in data.parts[part].split(BATCH)] if tower == "visual" else tokens
            show(f"ONNX Runtime, {what}", theirs(graph, batches, x, options, optimised=optimised))


if __name__ == "__main__":
    main(*sys.argv[1:])
