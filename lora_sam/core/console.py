"""Tables and progress for people, on a terminal or in a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from lora_sam.core.wording import printable

if TYPE_CHECKING:
    from rich.table import Table


@cache
def note(text: str) -> None:
    """A line on standard error, once in a process however often it is said."""
    print(printable(text), file=sys.stderr, flush=True)


def print_table(table: Table) -> None:
    """To standard output, wide enough to keep every column where that is not a terminal."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)


def text_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str | None = None,
    caption: str | None = None,
    left: Collection[int] = (0,),
    folding: Collection[int] = (),
    padding: int = 1,
) -> Table:
    """A table of plain text: nothing in a cell is markup, whatever a user named.

    Args:
        headings: One for each column; all empty for a table without them.
        rows: The cells of each row.
        title: Above it.
        caption: Below it.
        left: Columns whose cells stand on the left; those of the others stand on the right.
        folding: Columns that take several lines where the terminal is narrow.
        padding: Blanks on both sides of a cell.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(
        title=None if title is None else Text(title),
        caption=None if caption is None else Text(caption),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        show_header=any(headings),
        padding=(0, padding),
    )
    for place, heading in enumerate(headings):
        made.add_column(Text(heading), justify="left" if place in left else "right", no_wrap=place not in folding)
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


@contextmanager
def progress(what: str, unit: str, *, said: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback for (done, all) that draws a bar on a terminal; elsewhere one line, if `said`, tells it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        if said:
            console.print(what, highlight=False, soft_wrap=True, markup=False)
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
