"""Reasons to stop: a signal from outside, or validation that no longer improves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

from lora_sam.core.signals import QUEUE_SIGNALS, SIGNALS, Handler, Stoppable, Terminated, takes_a_signal

if TYPE_CHECKING:
    from lora_sam.training.options import EarlyStopping
    from lora_sam.training.state import Progress


class Interruption(KeyboardInterrupt):
    """The first signal, inside `StopRequest.at_once`."""


class Pruned(Exception):  # noqa: N818  # not an error: a sweeper wants no more of the job
    """A sweeper ends a job early, because others are better at the same epoch.

    Attributes:
        best: Best validation IoU so far, 0 to 1.
    """

    def __init__(self, reason: str, best: float) -> None:
        super().__init__(reason, best)
        self.best = best

    def __str__(self) -> str:
        """Why."""
        return str(self.args[0])


class StopRequest:
    """While active, the first SIGINT or SIGTERM is remembered instead of ending the process; the second one ends it.

    SIGUSR1, which queues send some time before they end a job, is remembered too. Where somebody handled it before, or
    SIGUSR2, as submitit does to put the job back into its queue, he gets it from `hand_over` when all is saved.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._handled: Handler = None
        self._previous: dict[signal.Signals, Handler] = {}
        self._at_once = False
        self._patience = ExitStack()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there only
            self._patience.enter_context(takes_a_signal())
            numbers = [*SIGNALS, *QUEUE_SIGNALS[:1]]
            numbers += [number for number in QUEUE_SIGNALS[1:] if callable(signal.getsignal(number))]
            self._previous = {number: signal.signal(number, self._remember) for number in numbers}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._restore()
        self._patience.close()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside this context the first signal also raises `Interruption`: for long work that can be done again."""
        if self.signal is not None:
            raise Interruption
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def error(self) -> KeyboardInterrupt:
        """What the signal would have raised where nobody remembers it."""
        return KeyboardInterrupt() if self.signal in (None, signal.SIGINT) else Terminated(self.signal)

    def hand_over(self) -> None:
        """Give the signal to whoever handled it before, now that everything is saved: a queue ends the job itself."""
        mine = getattr(self._handled, "__self__", None)
        if self.signal is None or self.signal not in QUEUE_SIGNALS or isinstance(mine, Stoppable):
            return
        if callable(self._handled):
            self._handled(self.signal, None)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._handled = self._previous.get(self.signal)
        self._restore()
        if self._at_once:
            raise Interruption

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            # None: it was not set from Python, and cannot be set again from here
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}


def take_base(progress: Progress, base: float) -> bool:
    """Make the base, measured before the first step, the first candidate for the best weights.

    A state that knows its base is left alone. One that is older may have kept weights that are no better: the base
    takes their place.

    Returns:
        Whether the weights of the base have to be kept as the best.
    """
    if progress.base is not None:
        return False
    progress.base, progress.trained = base, progress.best
    if progress.best is not None and progress.best > base:
        return False
    progress.best, progress.best_step = base, 0
    return True


def update_best(progress: Progress, value: float, options: EarlyStopping, least_rise: float = 0.0) -> bool:
    """Note a validation IoU in `progress`; returns whether it is the best so far.

    A rise below `min_delta` becomes the new best, but does not reset the patience: a run that crawls is stopped. The
    patience counts from the best of the trained weights: a run that climbs back to its base is not stopped on the way.

    Args:
        progress: Where the run is.
        value: Of the weights as they are.
        options: When to stop.
        least_rise: What trained weights have to be above the base to take its place; from then on the best is the best.
    """
    is_best = progress.best is None or value > progress.best
    if is_best and progress.base is not None and progress.best_step == 0:
        is_best = value >= progress.base + least_rise
    # a state that does not know its base has the trained weights alone for its best
    trained = progress.best if progress.base is None else progress.trained
    # more than equal even where min_delta is 0, or a run that stands still would go on for ever
    gained = trained is None or (value > trained and value >= trained + options.min_delta)
    if progress.epoch > options.warmup_epochs:
        progress.validations_without_gain = 0 if gained else progress.validations_without_gain + 1
    if is_best:
        progress.best, progress.best_step = value, progress.step
    progress.trained = value if trained is None else max(value, trained)
    return is_best


def should_stop_early(progress: Progress, options: EarlyStopping) -> bool:
    """Whether validations without a gain have used up the patience."""
    return options.patience is not None and progress.validations_without_gain >= options.patience
