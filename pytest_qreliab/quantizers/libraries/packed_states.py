"""State dicts in the packed formats of other tools: read where that is exact, else named with what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from pytest_qreliab.errors import InputError
from pytest_qreliab.quantizers.engine import packed_weights

State = Mapping[str, torch.Tensor]

# Names of tensors that only one kind of file has, and what it is. The first that fits counts.
FORMATS = {
    r"\.quant_state\.bitsandbytes__|\.weight\.absmax$": "4-bit weights of bitsandbytes (Linear4bit)",
    r"\.g_idx$": "packed weights of GPTQ (qweight, qzeros, scales, g_idx)",
    r"\.qweight$|\.qzeros$": "packed weights of AWQ or GPTQ (qweight, qzeros, scales)",
    r"\.weight_packed$": "packed weights of compressed-tensors (weight_packed, weight_scale)",
    r"\._packed_params|\._packed_params\.": "modules of torch.ao.quantization (_packed_params)",
    r"\.weight\._data$": "weights of optimum-quanto (weight._data, weight._scale)",
    r"\.W_q$": "weights of HQQ (W_q)",
    r"\.weight_scale(_inv)?$|\.scale_weight$": "weights with their scales beside them (weight_scale)",
    r"qdata$": "weights of torchao, taken apart (qdata, scale)",
}
DEQUANTIZE = "save the dequantized weights: floats, under the names that they have in the full-precision model"
BITSANDBYTES = "or name the quantizer bitsandbytes, which makes the same weights from the full-precision model"
SCALES = ".SCB"  # the largest magnitude of each row of bitsandbytes' int8 weights
ROWS = 0  # the `weight_format` of int8 weights in their own order


def readable(path: Path, state: State) -> dict[str, torch.Tensor]:
    """Return a state dict with int8 weights of bitsandbytes as the floats that they stand for.

    A row of int8 weights q with the largest magnitude s stands for `q * s / 127`.

    Args:
        path: The file, for messages.
        state: Its tensors by name.

    Raises:
        InputError: The file is in another packed format, or holds integers without a scale.
    """
    for pattern, what in FORMATS.items():
        found = next((name for name in state if re.search(pattern, name)), None)
        if found is not None:
            more = f" {BITSANDBYTES}" if "bitsandbytes" in what else ""
            raise InputError(
                f"artifact {path} holds {what}, as {found} shows, a format that cannot be read: {DEQUANTIZE}{more}"
            )
    floats = dict(state)
    for layer in [name.removesuffix(SCALES) for name in state if name.endswith(SCALES)]:
        scales, order = floats.pop(f"{layer}{SCALES}"), floats.pop(f"{layer}.weight_format", None)
        codes = floats.get(f"{layer}.weight")
        if codes is None or codes.dtype != torch.int8 or (order is not None and int(order) != ROWS):
            raise InputError(
                f"artifact {path} holds int8 weights of bitsandbytes, and those of {layer} are not in rows: "
                f"{DEQUANTIZE} {BITSANDBYTES}"
            )
        floats[f"{layer}.weight"] = codes.float() * scales.float()[:, None] / 127
    for name, value in floats.items():
        integer = not value.is_floating_point() and not packed_weights.is_library_tensor(value)
        if integer and value.ndim >= 2 and name.endswith("weight"):
            kind = str(value.dtype).removeprefix("torch.")
            raise InputError(
                f"artifact {path} holds {name} as {kind}, and nothing that is known here to scale it: {DEQUANTIZE}"
            )
    return floats
