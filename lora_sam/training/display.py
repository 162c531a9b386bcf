"""Progress for people: a live bar on a terminal, one line per interval elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

_FIRST = ("loss",)  # of the values; the others follow in their order, as far as the terminal is wide


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
        self._validation = ""
        self._bar = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=max(6, min(40, self.console.width // 8))),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            # takes what is left of the line; everything before it stays whole
            TextColumn("{task.fields[values]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            console=self.console,
            transient=True,
            expand=True,
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
            first = [name for name in _FIRST if name in values]
            ordered = [*first, *(name for name in values if name not in first)]
            short = [f"{name} {values[name]:.4g}" for name in ordered]
            short.insert(len(first), self._validation)
            self._bar.update(self._task, completed=step, values="  ".join(filter(None, short)))
        else:
            self.message(f"step {step}/{self._total}  {text}")

    def validated(self, iou: float) -> None:
        """Show the validation IoU (0 to 1) beside the loss from now on."""
        self._validation = f"val {iou:.3f}"

    def message(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)
