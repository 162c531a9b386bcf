"""Where curves and pictures of a run go: `metrics.jsonl`, the source of truth, and trackers that show them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import Field

from lora_sam.core.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)


class Tracker(Protocol):
    """Shows a run while it trains. No method ever raises: a tracker must not stop training."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point at `step` to the curve of every name."""
        ...

    def image(self, step: int, name: str, array: NDArray[np.uint8]) -> None:
        """Show an RGB picture, uint8 [H, W, 3]."""
        ...

    def hyperparameters(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Record the flat configuration of the run (dotted keys) with its final metrics, for comparing runs."""
        ...

    def close(self) -> None:
        """Write what is still held back."""
        ...


class TrackerConfig(Protocol):
    """A file of `conf/tracker/`."""

    def require(self) -> None:
        """Raise `ConfigError` where a package is not installed; called before a run does anything slow."""
        ...

    def open(self, run_directory: Path) -> Tracker:
        """Start tracking the run in `run_directory`."""
        ...


@dataclass(frozen=True, kw_only=True)
class TensorBoard:
    """Event files for TensorBoard: `tensorboard --logdir outputs`.

    Attributes:
        directory: Directory of the event files, relative to the run directory and inside it.
    """

    directory: Annotated[str, Field(min_length=1)]

    def require(self) -> None:
        """Its package is one of ours."""

    def check(self) -> None:
        """Raise `ConfigError` if `directory` leads out of the run directory."""
        if Path(self.directory).is_absolute() or ".." in Path(self.directory).parts:
            raise ConfigError(
                f"tracker.directory = {self.directory}: must be a directory inside the run directory; "
                "move the whole run with hydra.run.dir=..."
            )

    def open(self, run_directory: Path) -> Tracker:
        """Start writing event files; where that fails, warn and track nothing."""

        def start() -> Tracker:
            return _TensorBoardTracker(run_directory / self.directory)

        return guarded("TensorBoard", start)


@dataclass(frozen=True, kw_only=True)
class NoTracker:
    """Nothing but `metrics.jsonl`."""

    def require(self) -> None:
        """It needs nothing."""

    def open(self, run_directory: Path) -> Tracker:
        """A tracker that does nothing."""
        return Silent()


class Silent:
    """A tracker that shows nothing: no picture has to be drawn for it."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing is shown."""

    def image(self, step: int, name: str, array: NDArray[np.uint8]) -> None:
        """Nothing is shown."""

    def hyperparameters(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Nothing is shown."""

    def close(self) -> None:
        """Nothing is shown."""


class _TensorBoardTracker:
    def __init__(self, directory: Path) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        for earlier in directory.glob("events.out.tfevents.*"):  # of a run that goes on, which tells its curves anew
            earlier.unlink()
        self._writer = SummaryWriter(str(directory))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, array: NDArray[np.uint8]) -> None:
        self._writer.add_image(name, array, step, dataformats="HWC")

    def hyperparameters(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        plain = {
            key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in config.items()
        }
        # run_name "." keeps them in this run's directory instead of opening another run
        self._writer.add_hparams(plain, dict(metrics), run_name=".")

    def close(self) -> None:
        self._writer.close()


def guarded(name: str, start: Callable[[], Tracker]) -> Tracker:
    """What `start` opens, off after its first failure, which is a warning: a tracker never stops a run.

    Args:
        name: What it is called.
        start: Opens it; may fail as well.
    """
    return _Guarded(name, start)


class _Guarded:
    """A tracker that warns at the first failure and is off from then on."""

    def __init__(self, name: str, start: Callable[[], Tracker]) -> None:
        self._name = name
        self._tracker: Tracker | None = None
        with self._warning():
            self._tracker = start()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        with self._warning():
            if self._tracker is not None:
                self._tracker.scalars(step, values)

    def image(self, step: int, name: str, array: NDArray[np.uint8]) -> None:
        with self._warning():
            if self._tracker is not None:
                self._tracker.image(step, name, array)

    def hyperparameters(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        with self._warning():
            if self._tracker is not None:
                self._tracker.hyperparameters(config, metrics)

    def close(self) -> None:
        with self._warning():
            if self._tracker is not None:
                self._tracker.close()

    @contextmanager
    def _warning(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._tracker = None
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            _LOG.warning(
                "%s failed (%s) and is off for the rest of this run; metrics.jsonl goes on", self._name, reason
            )
