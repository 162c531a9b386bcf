"""What happens to a bad image or object: stop at once, or skip it, count it and stop when there are too many."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from math import ceil
from typing import Literal, TypeVar

from lora_sam.core.errors import DataError

OnError = Literal["raise", "skip"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_SHOWN = 3
_OTHERWISE = "To go on without: data.on_error=skip data.max_skipped=0.5 (at most half)."

_listener: ContextVar[list[DataError] | None] = ContextVar("listener", default=None)


@contextmanager
def collected() -> Iterator[list[DataError]]:
    """The error of everything that is skipped meanwhile, also where opening the data fails in the end."""
    errors: list[DataError] = []
    token = _listener.set(errors)
    try:
        yield errors
    finally:
        _listener.reset(token)


def left_out(error: DataError) -> None:
    """Tell who collects what is skipped of something that is left out because that may well be meant."""
    listener = _listener.get()
    if listener is not None:
        listener.append(error)


class Ledger:
    """Counts what was seen and what was skipped in one data set."""

    def __init__(self, on_error: OnError, max_skipped: float) -> None:
        """Stop at the first error (`raise`), or when a larger share than `max_skipped` was skipped (`skip`)."""
        self._on_error = on_error
        self._max_skipped = max_skipped
        self._seen = {"images": 0, "objects": 0}
        self._skipped = {"images": 0, "objects": 0}
        self._messages: list[str] = []

    def saw(self, *, images: int = 0, objects: int = 0) -> None:
        """Count images and objects, good or bad: what the shares are shares of."""
        self._seen["images"] += images
        self._seen["objects"] += objects

    def skip_image(self, error: DataError, *, objects: int = 0) -> None:
        """Skip an image with its `objects`. Raises `error` when nothing may be skipped."""
        self._skip(error, images=1, objects=objects)

    def skip_object(self, error: DataError) -> None:
        """Skip one object. Raises `error` when nothing may be skipped."""
        self._skip(error, images=0, objects=1)

    def lost_object(self) -> None:
        """Count an object that went with its skipped image."""
        self._skipped["objects"] += 1

    def close(self) -> tuple[str, ...]:
        """One message per thing skipped.

        Raises:
            DataError: the skipped share of images or of objects exceeds the limit.
        """
        for kind, skipped in self._skipped.items():
            seen = self._seen[kind]
            if skipped > self._max_skipped * seen:
                first = " | ".join(self._messages[:_SHOWN])
                counted = f"{skipped} of {seen} {kind} ({skipped / max(seen, 1):.1%}) would be skipped"
                if skipped >= seen:
                    raise DataError(f"{counted}, and none would be left. Mend them. First: {first}")
                share = ceil(1000 * skipped / seen) / 1000
                limit = f"go on with data.on_error=skip data.max_skipped={share:g}"
                raise DataError(
                    f"{counted}; data.max_skipped allows {self._max_skipped:.1%}. Mend them, or {limit}. First: {first}"
                )
        return tuple(self._messages)

    def _skip(self, error: DataError, *, images: int, objects: int) -> None:
        if self._on_error == "raise":
            text = str(error)
            if text.endswith(_OTHERWISE):  # of an object, told of its image
                raise error
            raise DataError(f"{text}{'' if text.endswith('.') else '.'} {_OTHERWISE}", error.kind) from error
        self._skipped["images"] += images
        self._skipped["objects"] += objects
        self._messages.append(str(error))
        listener = _listener.get()
        if listener is not None:
            listener.append(error)


def attempt_all(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result | DataError]:
    """`function` of every item in a few threads (Pillow decodes without the interpreter lock), in order.

    A `DataError` takes the place of the result; any other exception is raised.
    """

    def attempt(item: _Item) -> _Result | DataError:
        try:
            return function(item)
        except DataError as error:
            return error

    pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
    try:
        return list(pool.map(attempt, items))
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for the rest
