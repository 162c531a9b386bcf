"""Progress for people: a live bar on a terminal, one line per interval elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Display:
    """Shows how training goes; used as a context manager.

    Args:
        done: Steps that were done before (resuming).
        console: Where to; standard error by default.
        quiet: Show nothing (processes other than the first).
    """

    def __init__(self, done: int = 0, *, console: Console | None = None, quiet: bool = False) -> None:
        self.console = Console(quiet=True) if quiet else console or Console(stderr=True)
        self._total = 0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._task = self._bar.add_task("training", total=None, completed=done, values="")

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.console.is_terminal:
            self._bar.stop()

    def begin(self, total: int) -> None:
        """Tell how many optimiser steps the whole run has."""
        self._total = total
        self._bar.update(self._task, total=total)

    def step(self, step: int) -> None:
        """Move the bar."""
        if self.console.is_terminal:
            self._bar.update(self._task, completed=step)

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Show the means of the last interval."""
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self.console.is_terminal:
            self._bar.update(self._task, completed=step, values=text)
        else:
            self.message(f"step {step}/{self._total}  {text}")

    def message(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)
