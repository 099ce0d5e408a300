"""A cache of one value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LastOnly(Generic[K, V]):
    """The value of the last key, for values that are too large to hold two of."""

    def __init__(self) -> None:
        self._last: tuple[K, V] | None = None

    def get(self, key: K, make: Callable[[], V]) -> V:
        """Return the value of a key.

        Args:
            key: Any value that can be compared.
            make: Makes the value, if the last key was another. The value of that is let go first, to make room.
        """
        if self._last is None or self._last[0] != key:
            self._last = None
            self._last = key, make()
        return self._last[1]

    def clear(self) -> None:
        """Let the value go."""
        self._last = None
