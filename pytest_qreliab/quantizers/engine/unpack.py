"""Turn every weight matrix of a tower into an `nn.Linear`, exactly.

That holds for open_clip's towers, and for attention anywhere.

open_clip hides a third of its matmul weights from quantizers. `nn.MultiheadAttention` packs the query, key and value
projections into one bare parameter and reads `out_proj.weight` without calling `out_proj`. `AttentionPool2d` does the
same with its four Linears. The final projections are bare parameters. After this pass each of them is a Linear whose
forward is really called, so that one mechanism reaches all of them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip


class Attention(nn.Module):
    """An `nn.MultiheadAttention` with its four projections as Linears.

    It returns no attention weights.
    """

    # `nn.TransformerEncoderLayer` asks for these, to pass all its Linears by in one fused operation: it must not.
    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(self, packed: nn.MultiheadAttention) -> None:
        super().__init__()
        if packed.bias_k is not None or packed.bias_v is not None or packed.add_zero_attn:
            raise InputError("attention with bias_k, bias_v or add_zero_attn cannot be quantized")
        if packed.in_proj_weight is not None:
            weights = packed.in_proj_weight.chunk(3)
        else:
            weights = (packed.q_proj_weight, packed.k_proj_weight, packed.v_proj_weight)
        biases = (None,) * 3 if packed.in_proj_bias is None else packed.in_proj_bias.chunk(3)
        self.q_proj, self.k_proj, self.v_proj = map(_linear, weights, biases)
        self.out_proj = _linear(packed.out_proj.weight, packed.out_proj.bias)
        self.q_norm, self.k_norm = nn.Identity(), nn.Identity()  # of (batch, heads, places, channels), as in timm's
        self.num_heads, self.batch_first, self.dropout = packed.num_heads, packed.batch_first, packed.dropout

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = False,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, None]:
        """Return the attention output, for the arguments of `nn.MultiheadAttention.forward`, and None."""
        if query.ndim == 2:  # no batch
            axis = 0 if self.batch_first else 1
            query, key, value = (x.unsqueeze(axis) for x in (query, key, value))
            padding = None if key_padding_mask is None else key_padding_mask[None]
            return self(query, key, value, padding, attn_mask=attn_mask)[0].squeeze(axis), None
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (
            _split(projection(x), self.num_heads)
            for projection, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        q, k = self.q_norm(q), self.k_norm(k)
        mask = None if attn_mask is None else _additive(attn_mask, q)
        if mask is not None and mask.ndim == 3:  # (batch * heads, target, source)
            mask = mask.reshape(-1, self.num_heads, *mask.shape[1:])
        if key_padding_mask is not None:
            padding = _additive(key_padding_mask, q)[:, None, None, :]
            mask = padding if mask is None else mask + padding
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0)
        x = self.out_proj(x.transpose(1, 2).flatten(2))
        return (x if self.batch_first else x.transpose(0, 1)), None


class AttentionPool2d(nn.Module):
    """The attention pool of open_clip's ResNets, with its four Linears called."""

    def __init__(self, packed: Any) -> None:
        super().__init__()
        self.positional_embedding = packed.positional_embedding
        self.q_proj, self.k_proj = packed.q_proj, packed.k_proj
        self.v_proj, self.c_proj = packed.v_proj, packed.c_proj
        self.q_norm, self.k_norm = nn.Identity(), nn.Identity()
        self.num_heads = packed.num_heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the pooled features, (batch, dim).

        The map `x` is (batch, channels, height, width).
        """
        x = x.flatten(2).transpose(1, 2)  # (batch, places, channels)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.positional_embedding
        q, k, v = (
            _split(projection(y), self.num_heads)
            for projection, y in ((self.q_proj, x[:, :1]), (self.k_proj, x), (self.v_proj, x))
        )
        q, k = self.q_norm(q), self.k_norm(k)
        pooled: torch.Tensor = self.c_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return pooled[:, 0]


class Projection(nn.Linear):
    """A Linear that can stand in a product `pooled @ self.proj`."""

    def __rmatmul__(self, x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = self(x)
        return product


def unpack(clip: Clip, scope: str) -> None:
    """Replace all packed projections of the towers in `scope`, in place.

    The outputs stay the same up to rounding.

    Raises:
        InputError: An attention module has extra keys or values.
    """
    unpacked: dict[nn.Module, nn.Module] = {}  # a module that is used in two places is unpacked once
    for path, module in list(clip.module.named_modules()):
        prefix = f"{path}." if path else ""
        for name, child in list(module._modules.items()):
            if child is None or not clip.in_scope(prefix + name, scope):
                continue
            if type(child).forward is nn.MultiheadAttention.forward:
                unpacked.setdefault(child, Attention(child).train(child.training))
            elif type(child).__name__ == "AttentionPool2d" and _is_open_clips(child):
                unpacked.setdefault(child, AttentionPool2d(child).train(child.training))
            elif isinstance(child, nn.TransformerEncoder):
                child.use_nested_tensor = False  # another way past the Linears, which reads packed weights
            setattr(module, name, unpacked.get(child, child))
        for name in ("proj", "text_projection"):
            weight = module._parameters.get(name)
            if weight is not None and _is_open_clips(module) and clip.in_scope(prefix + name, scope):
                delattr(module, name)
                setattr(module, name, _linear(weight.t(), None, Projection).train(module.training))


def _is_open_clips(module: nn.Module) -> bool:
    return type(module).__module__.startswith("open_clip.")


def _linear(weight: torch.Tensor, bias: torch.Tensor | None, kind: type[nn.Linear] = nn.Linear) -> nn.Linear:
    with torch.device("meta"):  # no random initialisation: the weights are given
        linear = kind(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format), weight.requires_grad)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
    return linear


def _split(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Reshape (batch, places, channels) to (batch, heads, places, channels of a head)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _additive(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a mask to add to the logits; True means not allowed."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float("-inf"))
