"""Tables and progress for people, on a terminal or in a file."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from lora_sam.core.wording import printable, unturned

if TYPE_CHECKING:
    from rich.table import Table

# characters for counts such as 1,234/5,000 and the time that is left
_FIGURES = 24


@cache
def note(text: str) -> None:
    """A line on standard error, once in a process however often it is said."""
    print(printable(text), file=sys.stderr, flush=True)


def text_width(most: int) -> int:
    """Characters for a line of text: those of the terminal, at most `most`, which a file gets."""
    return max(40, min(most, shutil.get_terminal_size((most, 24)).columns))


def print_table(table: Table) -> None:
    """To standard output: as wide as it is in a file, parted by columns on a terminal that is too narrow."""
    from rich.console import Console

    from lora_sam.core.narrow import fitting, least_width

    console = Console()
    if not console.is_terminal:
        console = Console(width=max(160, least_width(table)))
    for part in fitting(table, console.width):
        console.print(part)


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
        made.add_row(*(Text(unturned(cell)) for cell in row))
    return made


@contextmanager
def progress(what: str, unit: str, *, said: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback for (done, all) that draws a bar on a terminal; elsewhere one line, if `said`, tells it."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    console = Console(stderr=True)
    if not console.is_terminal:
        if said:
            console.print(what, highlight=False, soft_wrap=True, markup=False)
        yield lambda done, total: None
        return
    bar_width = max(6, min(40, console.width // 8))
    # where the line is too short the words give way, and what counts stays whole
    tight = cell_len(what) + bar_width + len(unit) + _FIGURES > console.width
    columns = (
        TextColumn(
            "{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=int(tight) or None)
        ),
        BarColumn(bar_width=bar_width),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn(unit, table_column=Column(no_wrap=True)),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
    )
    with Progress(*columns, console=console, transient=True, expand=tight) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
