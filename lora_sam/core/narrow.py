"""Tables on a terminal that is narrower than they are: parted by columns, so that no figure is cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Column, Table
    from rich.text import TextType


def fitting(table: Table, width: int) -> list[RenderableType]:
    """`table` in parts of at most `width` characters a line, to be shown one below the other: itself where it fits.

    The first column, which names the rows, begins each part. The title stands above the first, the caption is the last.
    A table of tables, as `Table.grid` makes it, gives the parts of its cells.
    """
    from rich.table import Table
    from rich.text import Text

    cells = [cell for column in table.columns for cell in column.cells]
    if any(isinstance(cell, Table) for cell in cells):
        return [part for cell in cells for part in (fitting(cell, width) if isinstance(cell, Table) else [cell])]
    if not table.columns or least_width(table) <= width:
        return [table]
    chosen = list(_chosen([_least(column) + _around(table) for column in table.columns], width - _edges(table)))
    parts: list[RenderableType] = []
    for place, columns in enumerate(chosen):
        parts += [Text(), _part(table, columns)] if place else [_part(table, columns, table.title)]
    return parts if table.caption is None else [*parts, table.caption]


def least_width(table: Table) -> int:
    """Characters a line of `table` needs where no word of a column that folds is broken, and no other column at all."""
    return sum(_least(column) + _around(table) for column in table.columns) + _edges(table)


def _chosen(widths: Sequence[int], room: int) -> Iterator[list[int]]:
    """The columns of each part: the first, and as many of the others as fit beside it, one at least."""
    part, used = [0], widths[0]
    for place, width in enumerate(widths[1:], start=1):
        if len(part) > 1 and used + width > room:
            yield part
            part, used = [0], widths[0]
        part.append(place)
        used += width
    yield part


def _part(table: Table, columns: Iterable[int], title: TextType | None = None) -> Table:
    from rich.table import Table

    part = Table(
        title=title,
        box=table.box,
        show_edge=table.show_edge,
        show_header=table.show_header,
        padding=table.padding,
        pad_edge=table.pad_edge,
    )
    chosen = [table.columns[place] for place in columns]
    for column in chosen:
        part.add_column(
            column.header, justify=column.justify, no_wrap=column.no_wrap, overflow=column.overflow,
            min_width=column.min_width, max_width=column.max_width,
        )  # fmt: skip
    for row in zip(*(column.cells for column in chosen), strict=True):
        part.add_row(*row)
    return part


def _least(column: Column) -> int:
    from rich.cells import cell_len

    def least(cell: RenderableType) -> int:
        lines = str(cell).splitlines()
        pieces = lines if column.no_wrap else [word for line in lines for word in line.split()]
        return max(map(cell_len, pieces), default=0)

    needed = max(map(least, [column.header, *column.cells]), default=0)
    if column.max_width is not None:
        needed = min(needed, column.max_width)
    return max(needed, column.min_width or 0)


def _around(table: Table) -> int:
    """What stands between two columns: padding, and the line of the box."""
    _, right, _, left = table.padding
    return left + right + (1 if table.box is not None else 0)


def _edges(table: Table) -> int:
    return (2 if table.box is not None and table.show_edge else 0) - (1 if table.box is not None else 0)
