"""What jobs of one process share: labelled images, read once, and a base, built once, for all that want both."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_sam.data.splits import Splits
    from lora_sam.models.base_model import BaseModel
    from lora_sam.training.settings import Settings


@dataclass
class Shared:
    """Data and base of the last job, for jobs that differ in other settings only: one of each is kept.

    Labels are those at the beginning of the sweep, so that all jobs see the same. A method changes the modules of the
    base that it is given, and so every job gets a copy of its own; it has the same bits.
    """

    _data: tuple[Any, Splits] | None = field(default=None, repr=False)
    _base: tuple[Any, BaseModel] | None = field(default=None, repr=False)

    def data(self, settings: Settings) -> Splits:
        """The labelled images of a job. Raises as `Settings.open_data`."""
        key = settings.data_key
        if self._data is None or self._data[0] != key:
            self._data = None
            self._data = (key, settings.open_data())
        return self._data[1]

    def base(self, settings: Settings) -> BaseModel:
        """The base of a job, its own. Raises as `build` of the model."""
        key = (settings.model, _stamp(settings))
        if self._base is None or self._base[0] != key:
            self._base = None  # never two in memory
            self._base = (key, settings.model.build())
        return copy.deepcopy(self._base[1])


_shared: ContextVar[Shared | None] = ContextVar("shared", default=None)


@contextmanager
def jobs_share(several: bool) -> Iterator[None]:
    """Inside this context the jobs of this process share data and base, if there are several."""
    token = _shared.set(Shared() if several else None)
    try:
        yield
    finally:
        _shared.reset(token)


def what_is_shared() -> Shared | None:
    """What the job that runs now shares with others; None for nothing."""
    return _shared.get()


def _stamp(settings: Settings) -> tuple[int, int] | None:
    """Tells a checkpoint that was replaced; None where the model names no file."""
    checkpoint = getattr(settings.model, "checkpoint", None)
    if checkpoint is None or not Path(checkpoint).is_file():
        return None
    found = Path(checkpoint).stat()
    return found.st_mtime_ns, found.st_size
