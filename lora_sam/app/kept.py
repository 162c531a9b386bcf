"""The last few values by key, bounded by their number and, where they are large, by their bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """The last few values by key.

    Args:
        limit: How many are kept.
        most_bytes: How much they may take in all; the last one is kept whatever it takes. None: any.
        size: Bytes of a value.
    """

    def __init__(
        self, limit: int, *, most_bytes: int | None = None, size: Callable[[T], int] = lambda value: 0
    ) -> None:
        self._limit = limit
        self._most_bytes = most_bytes
        self._size = size
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> T | None:
        """The value, which counts as used now."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Hashable, value: T) -> T:
        """Keep a value, and forget the one that was not used for longest where there are too many."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._limit or (len(self._values) > 1 and self._too_large()):
                self._values.popitem(last=False)
        return value

    def _too_large(self) -> bool:
        return self._most_bytes is not None and sum(map(self._size, self._values.values())) > self._most_bytes
