"""One heavy job at a time; a bounded number waits, and each can be told its place."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from lora_sam.core.errors import LoraSamError

WAITING = 8
"""How many jobs may wait beside the one that computes."""


class BusyError(LoraSamError):
    """As many jobs wait as may."""


class Turns:
    """Lets one thread through at a time, in the order they came.

    Args:
        waiting: How many may wait beside the one that works.
    """

    def __init__(self, waiting: int = WAITING) -> None:
        self._limit = waiting
        self._changed = threading.Condition()
        self._line: deque[str] = deque()

    @contextmanager
    def take(self, ticket: str) -> Iterator[None]:
        """Wait for one's turn, and hold it inside this context.

        Raises:
            BusyError: the line is full.
        """
        place = f"{ticket}/{threading.get_ident()}"
        with self._changed:
            if len(self._line) > self._limit:
                raise BusyError(f"{len(self._line)} jobs are before yours; try again in a moment.")
            self._line.append(place)
            self._changed.wait_for(lambda: self._line[0] == place)
        try:
            yield
        finally:
            with self._changed:
                self._line.remove(place)
                self._changed.notify_all()

    def ahead(self, ticket: str) -> int:
        """How many jobs come before the first one with this ticket, the one that works included; 0 if it works."""
        with self._changed:
            places = [index for index, place in enumerate(self._line) if place.rpartition("/")[0] == ticket]
        return places[0] if places else 0
