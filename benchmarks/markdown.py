"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def markdown(heading: Sequence[str], rows: Sequence[Sequence[str]], alignment: str) -> str:
    """A table.

    Args:
        heading: Of its columns.
        rows: Cells as text.
        alignment: `l` or `r` for each column.
    """
    lines = [heading, *rows]
    text = ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines]
    rule = "|" + "|".join({"l": "---", "r": "---:"}[one] for one in alignment) + "|\n"
    return "".join([text[0], rule, *text[1:]])
