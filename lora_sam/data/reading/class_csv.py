"""Tables of classes in CSV: `class_dict.csv`, Roboflow's `_classes.csv`, V7's `class_mapping.csv`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lora_sam.core.errors import DataError
from lora_sam.data.reading.annotation_files import read_lines
from lora_sam.data.reading.class_table import VOID, ClassTable, Colour, class_table, colour_of
from lora_sam.data.reading.paths import shown

_BACKGROUND = "__background__"


def read_class_values(file: Path) -> ClassTable:
    """The classes in Roboflow's `_classes.csv`, lines `value, name` below a line of headings; in `class_dict.csv`,
    lines `name,r,g,b` below these words; or in V7's `class_mapping.csv`, lines `name,r g b` or `name,value`.

    Raises:
        DataError: it cannot be read, or a line is none of these.
    """
    entries: list[tuple[int, str, Colour | None]] = []
    lines = read_lines(file)
    if lines and [cell.strip().casefold() for cell in lines[0].split(",")] == ["name", "r", "g", "b"]:
        return _named_colours(file, lines)
    if lines and [cell.strip().casefold() for cell in lines[0].split(",")] == ["class_name", "class_color"]:
        return _mapped(file, lines)
    for number, line in enumerate(lines, start=1):
        value, _, name = (part.strip() for part in line.partition(","))
        if value.isdecimal() and int(value) <= VOID and name:
            entries.append((int(value), name, None))
        elif line.strip() and number > 1:
            raise DataError(f"{file}: line {number} is {shown(line)}; it takes a value of 0 to 255 and a name.")
    return class_table(entries, set(), str(file))


def _mapped(file: Path, lines: Sequence[str]) -> ClassTable:
    entries: list[tuple[int, str, Colour | None]] = []
    for number, line in enumerate(lines[1:], start=2):
        name, _, cell = (part.strip() for part in line.rpartition(","))
        parts = [int(part) if part.isdecimal() and len(part) <= 3 else None for part in cell.split()]
        colour = colour_of(parts) if len(parts) == 3 else None
        value = parts[0] if len(parts) == 1 else None
        if line.strip() and (not name or (colour is None and (value is None or value > VOID))):
            raise DataError(f"{file}: line {number} is {shown(line)}; it takes a name and a value or red green blue.")
        if line.strip():
            entries.append((len(entries) if value is None else value, name, colour))
    background = {index for index, name, _ in entries if name == _BACKGROUND}
    return class_table(entries, background, file.name)


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
