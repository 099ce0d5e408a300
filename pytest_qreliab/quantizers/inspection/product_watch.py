"""Watch the matrix products and convolutions of a model while it encodes."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pytest_qreliab.config.formats import Number
from pytest_qreliab.quantizers.engine import grid_recognition


class ProductWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The counter of the FLOPs of products, with given weights and of two activations.

    It knows a weight by its memory, which may be a part of one storage. Products of two activations are those of
    batches, and fused attention.
    """

    OPERATIONS = frozenset({"mm", "addmm", "bmm", "baddbmm", "linear", "convolution"})

    def __init__(
        self, weights: Mapping[str, torch.Tensor], number: Number | None, constants: Collection[torch.Tensor] = ()
    ) -> None:
        """Watch products.

        Args:
            weights: Weights by name.
            number: The type that activations have to be rounded to; None: they are not rounded.
            constants: Tensors whose products are not counted, as those that turn what a layer reads.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.spans = sorted((w.data_ptr(), w.data_ptr() + w.nbytes, name) for name, w in weights.items())
        self.sizes = {name: weight.numel() for name, weight in weights.items()}
        self.flops: dict[str, float] = defaultdict(float)
        self.convolutions: set[str] = set()
        self.of_activations = 0.0  # FLOPs of products of two activations
        self.of_rounded = 0.0  # of these, the FLOPs of products with both operands rounded
        self._number, self._constants = number, {tensor.data_ptr() for tensor in constants}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute an operation, and count it."""
        out = func(*args, **(kwargs or {}))
        operation = func.overloadpacket.__name__
        if operation in self.OPERATIONS:
            channels = out.shape[1 if operation == "convolution" else -1]
            watched = self._weights(args)
            if watched:  # of two, as with a learned query, the first is what the second is applied to
                name = watched[-1]
                self.flops[name] += 2 * out.numel() * self.sizes[name] / channels
                if operation == "convolution":
                    self.convolutions.add(name)
            elif operation in ("bmm", "baddbmm"):
                left, right = args[-2:]
                self._count_batches(left, right, out)
        elif "rnn" in operation or "lstm" in operation:  # a whole recurrent layer, whose products are not seen
            for name in self._weights(args):
                self.flops[name] += 2 * args[0].numel() / args[0].shape[-1] * self.sizes[name]
        elif "scaled_dot_product" in operation:
            query, key, value = args[:3]
            pairs = query[..., 0].numel() * key.shape[-2]
            self.of_activations += 2.0 * pairs * (query.shape[-1] + value.shape[-1])
        return out

    def _count_batches(self, left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
        if {left.data_ptr(), right.data_ptr()} & self._constants:
            return
        flops = 2.0 * out.numel() * left.shape[-1]
        self.of_activations += flops
        if self._number is not None and self._on_grid(left) and self._on_grid(right):
            self.of_rounded += flops

    def _on_grid(self, operand: torch.Tensor) -> bool:
        """Return whether some rows or some columns of an operand, (batch, n, m), lie on a grid each."""
        assert self._number is not None
        for x in (operand, operand.transpose(1, 2)):
            rows = grid_recognition.some_rows(x.detach().flatten(0, 1))
            if all(grid_recognition.is_rounded(row, self._number) for row in rows):
                return True
        return False

    def _weights(self, args: Any) -> list[str]:
        """Return the names of the weights among arguments, or of which they are views."""
        found = []
        for matrix in tree_leaves(args):
            if isinstance(matrix, torch.Tensor) and matrix.ndim >= 2:
                place = bisect_right(self.spans, matrix.data_ptr(), key=lambda span: span[0]) - 1
                if place >= 0 and matrix.data_ptr() < self.spans[place][1]:
                    found.append(self.spans[place][2])
        return found
