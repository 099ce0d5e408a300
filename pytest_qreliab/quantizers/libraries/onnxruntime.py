"""`onnxruntime`: towers exported to ONNX, quantized and run by ONNX Runtime.

w8a8 covers every matrix and convolution, with integer kernels. w2, w4 and w8 cover the matrices, as `MatMulNBits`.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.layout import OPEN_CLIP
from pytest_qreliab.models.onnx_towers import OnnxClip, load_tower
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.libraries import onnx_preparation, optional
from pytest_qreliab.quantizers.libraries.onnx_graph import Graph
from pytest_qreliab.quantizers.parameters import OnnxRuntime
from pytest_qreliab.quantizers.request import Request

OPSET = 18
LARGEST = 2**31  # bytes of one protobuf message


def quantize(clip: Clip, request: Request) -> Clip:
    """Return a copy whose towers in scope are quantized ONNX graphs.

    Raises:
        InputError: It has no such bits, or the model cannot be exported.
    """
    if clip.layout is not OPEN_CLIP:
        raise InputError(f"onnxruntime can export open_clip models only, and {clip.name} is none")
    copy, layers = engine_layers.unpack_layers(clip, request.scope)
    own = engine_layers.own_formats(copy, layers, request)
    formats = {name: own.get(name, request.bits) for name in layers}
    for text in sorted({str(form) for form in (request.bits, *formats.values()) if form is not None}):
        if text not in ("w8a8", "w2", "w4", "w8"):
            raise InputError(f"onnxruntime has no {text}: write w8a8, w2, w4 or w8")
    towers = {}
    for name in ("visual", "text"):
        if request.scope in ("both", "vision" if name == "visual" else "text"):
            graph = onnx_preparation.prepare(export(copy, name), layers)
            for form in _in_turn(request.bits, formats):
                others = [layer for layer, its in formats.items() if its != form]
                graph = _quantized(graph, name, clip, replace(request, bits=form), others)
            towers[name] = load_tower(graph.SerializeToString(), clip.device)
    rest = clip.module if len(towers) == 2 else clip.copy().module
    return replace(clip, module=OnnxClip(rest, towers).eval())


def export(clip: Clip, name: str) -> bytes:
    """Return a tower as an ONNX model with a free batch size.

    Its numbers are float32.

    Args:
        clip: The model, unpacked.
        name: The tower, "visual" or "text". "visual" gets a second output, the last patch map, if it shows one.

    Raises:
        InputError: The tower cannot be exported.
    """
    size = sum(parameter.numel() * 4 for parameter in _part(clip, name).parameters())
    if size >= LARGEST:
        raise InputError(
            f"{clip.name}: the {name} tower has {size / 2**30:.1f} GiB of weights, and an ONNX file holds 2 GiB"
        )
    module: nn.Module
    if name == "visual":
        x = engine_layers.probe_images(clip)[:2]
        mapped = clip.encode_image_with_map(x)[1] is not None
        module, outputs = _Visual(clip.module, mapped), ["features", "patch_map"][: 1 + mapped]
    else:
        x = clip.tokenizer(["a photo", "a"])
        module, outputs = _Text(clip.module), ["features"]
    try:
        with optional.quiet(), torch.no_grad():
            program = torch.onnx.export(
                module.eval().cpu(),
                (x,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["image" if name == "visual" else "text"],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
            serialised: bytes = cast(Any, program).model_proto.SerializeToString()
    except Exception as error:  # of any kind: the exporter's are its own
        reason = optional.first_line(error)[:300]
        raise InputError(f"{clip.name}: the {name} tower cannot be exported to ONNX: {reason}") from error
    return serialised


class _Visual(nn.Module):
    def __init__(self, clip: Any, mapped: bool) -> None:
        super().__init__()
        self.visual, self.mapped = clip.visual, mapped

    def forward(self, image: torch.Tensor) -> Any:
        if not self.mapped:
            return self.visual(image)
        out = self.visual.forward_intermediates(image, indices=1, output_fmt="NCHW")
        return out["image_features"], out["image_intermediates"][-1]


class _Text(nn.Module):
    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, text: torch.Tensor) -> Any:
        return self.clip.encode_text(text)


def _part(clip: Clip, name: str) -> nn.Module:
    if name == "visual":
        return clip.module.get_submodule("visual")
    return nn.ModuleList(child for key, child in clip.module.named_children() if key != "visual")


def _in_turn(bits: Format, formats: Mapping[str, Format | None]) -> list[Format]:
    """Return the formats to quantize to, integer kernels first: the weight-only tool leaves their nodes alone."""
    forms = dict.fromkeys([bits, *(form for form in formats.values() if form is not None)])
    return sorted(forms, key=lambda form: form.activations is None)


def _quantized(graph: Any, name: str, clip: Clip, request: Request, others: list[str]) -> Any:
    """Return a graph with all products in one format but those of the nodes that `others` names."""
    onnx, tools = optional.load("onnx"), optional.load("onnxruntime.quantization")
    parameters: OnnxRuntime = request.parameters
    with tempfile.TemporaryDirectory() as folder, optional.quiet():
        before, after = Path(folder, "full.onnx"), Path(folder, "quantized.onnx")
        if request.bits.activations is None:
            nbits = optional.load("onnxruntime.quantization.matmul_nbits_quantizer")
            quantizer = nbits.MatMulNBitsQuantizer(
                graph,
                bits=request.bits.weights.bits,
                block_size=parameters.block_size,
                is_symmetric=True,
                nodes_to_exclude=others,
            )
            quantizer.process()
            return quantizer.model.model
        onnx.save(graph, before)
        integer, static = parameters.products == "integer", parameters.activations == "static"
        products = [node.name for node in Graph(graph).activation_products()]  # the option is for dynamic ones alone
        common: dict[str, Any] = {
            "op_types_to_quantize": None if integer and static else ["MatMul", "Gemm", "Conv"],
            "nodes_to_exclude": [*others, *(onnx_preparation.masks(graph) if integer else products)],
            "per_channel": True,
            "reduce_range": overflows() if parameters.reduce_range is None else parameters.reduce_range,
            "weight_type": tools.QuantType.QInt8,
            "extra_options": {"MatMulConstBOnly": not integer},
        }
        if parameters.activations == "dynamic":
            tools.quantize_dynamic(before, after, **common)
        else:
            reader = _calibration_reader(tools, _batches(name, clip, request))
            tools.quantize_static(before, after, reader, activation_type=tools.QuantType.QInt8, **common)
        return onnx.load(after)


def _batches(name: str, clip: Clip, request: Request) -> Iterator[dict[str, Any]]:
    calibration = request.require_calibration()
    if name == "visual":
        for images in calibration.batches(clip, request.parameters.images):
            yield {"image": images.cpu().numpy()}
            request.advance(len(images))
    else:
        for prompts in calibration.prompt_batches():
            yield {"text": clip.tokenizer(list(prompts)).numpy()}


def _calibration_reader(tools: Any, batches: Iterable[dict[str, Any]]) -> Any:
    class CalibrationReader(tools.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.batches, None)

    return CalibrationReader()


def overflows() -> bool:
    """Return whether sums of 8-bit products can overflow on this CPU.

    x86 without VNNI adds them in 16 bits.
    """
    return platform.machine().lower() in ("x86_64", "amd64") and not torch.cpu._is_vnni_supported()
