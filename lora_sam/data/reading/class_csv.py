"""Tables of classes with cells between commas: Roboflow's `_classes.csv`, and `class_dict.csv`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lora_sam.core.errors import DataError
from lora_sam.data.reading.annotation_files import read_lines
from lora_sam.data.reading.class_table import VOID, ClassTable, Colour, class_table, colour_of
from lora_sam.data.reading.paths import shown


def read_class_values(file: Path) -> ClassTable:
    """The classes in Roboflow's `_classes.csv`, lines `value, name` below a line of headings; or in `class_dict.csv`,
    lines `name,r,g,b` below these words.

    Raises:
        DataError: it cannot be read, or a line is none of these.
    """
    entries: list[tuple[int, str, Colour | None]] = []
    lines = read_lines(file)
    if lines and [cell.strip().casefold() for cell in lines[0].split(",")] == ["name", "r", "g", "b"]:
        return _named_colours(file, lines)
    for number, line in enumerate(lines, start=1):
        value, _, name = (part.strip() for part in line.partition(","))
        if value.isdecimal() and int(value) <= VOID and name:
            entries.append((int(value), name, None))
        elif line.strip() and number > 1:
            raise DataError(f"{file}: line {number} is {shown(line)}; it takes a value of 0 to 255 and a name.")
    return class_table(entries, set(), str(file))


def _named_colours(file: Path, lines: Sequence[str]) -> ClassTable:
    entries: list[tuple[int, str, Colour | None]] = []
    for number, line in enumerate(lines[1:], start=2):
        name, *cells = (part.strip() for part in line.rsplit(",", 3))
        colour = colour_of([int(cell) if cell.isdecimal() and len(cell) <= 3 else None for cell in cells])
        if line.strip() and (not name or colour is None):
            raise DataError(f"{file}: line {number} is {shown(line)}; it takes a name and red,green,blue of 0 to 255.")
        if line.strip():
            entries.append((len(entries), name, colour))
    return class_table(entries, set(), file.name)
