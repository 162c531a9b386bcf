"""SIGTERM and Ctrl-C end a command: where Python runs at once, and where it does not after some seconds."""

from __future__ import annotations

import _thread
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self, TypeAlias

Handler: TypeAlias = "Callable[[int, FrameType | None], Any] | int | None"

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Windows has neither
QUEUE_SIGNALS = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))
"""What queues of clusters send some time before they end a job, so that it saves what it has."""
_TAKEN = (*SIGNALS, *QUEUE_SIGNALS[:1])
AGAIN_SECONDS = 3.0
"""After so long the exception is raised once more: code that is called back from C may have swallowed the first."""
END_SECONDS = 8.0
"""After so long the process ends, whatever it does; what it was writing is a leftover that the next success removes."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised as Ctrl-C raises KeyboardInterrupt, so that whoever lets that one pass lets this one pass.

    Attributes:
        number: Of the signal: one of `QUEUE_SIGNALS` is raised so too.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.number = number


def exit_code(error: KeyboardInterrupt) -> int:
    """As shells have it: 128 and the number of the signal."""
    return 128 + (error.number if isinstance(error, Terminated) else signal.SIGINT)


class Stoppable:
    """While active, SIGTERM raises `Terminated` and SIGINT KeyboardInterrupt, and the process ends within 10 seconds.

    SIGUSR1 is taken as SIGTERM.

    Native code keeps Python from handling signals. So a thread watches for them: the operating system writes each into
    a pipe, whatever the main thread does.

    Attributes:
        received: Number of the first signal, or 0.
    """

    def __init__(self, last_words: Callable[[int], None], *, patience: float | None = None) -> None:
        """Remember what to do before the process is ended by force: called with the number of the signal.

        Args:
            last_words: What is done then.
            patience: Seconds that it has to end by itself; None for `END_SECONDS`.
        """
        self.received = 0
        self._patience = patience
        self._last_words = last_words
        self._previous: dict[signal.Signals, Handler] = {}
        self._over = threading.Event()

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():  # Python allows handlers there only
            return self
        for number in _TAKEN:
            self._previous[number] = signal.getsignal(number)
            if self._previous[number] != signal.SIG_IGN:  # nohup, or a job in the background of a shell
                signal.signal(number, self._raise)
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._earlier = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if not self._previous:
            return
        for number, handler in self._previous.items():
            # None: it was not set from Python, and cannot be set again from here
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}
        signal.set_wakeup_fd(self._earlier)
        self._over.set()
        os.close(self._write)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)

    def _watch(self) -> None:
        try:
            while sent := os.read(self._read, 1):
                number = sent[0]
                if number not in _TAKEN or signal.getsignal(number) == signal.SIG_IGN or _Patience.takes_one():
                    continue
                patience = END_SECONDS if self._patience is None else self._patience
                again = min(AGAIN_SECONDS, patience)
                if not self._over.wait(again) and again < patience:
                    _thread.interrupt_main(signal.Signals(number))
                if not self._over.wait(patience - again):
                    try:
                        self._last_words(number)
                    finally:
                        os._exit(128 + number)
                return
        finally:
            os.close(self._read)


class _Patience:
    """How many signals a part of the program takes for itself, to end in order: it is given the time it needs."""

    left = 0

    @classmethod
    def takes_one(cls) -> bool:
        taken = cls.left > 0
        cls.left = max(0, cls.left - 1)
        return taken


@contextmanager
def takes_a_signal() -> Iterator[None]:
    """Inside this context the first signal is left to the caller, who ends soon; the second one is not."""
    _Patience.left = 1
    try:
        yield
    finally:
        _Patience.left = 0
