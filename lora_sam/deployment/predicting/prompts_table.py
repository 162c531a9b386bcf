"""Prompts in a table: points `image,x,y,label,object`, or boxes `image,x1,y1,x2,y2`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lora_sam.core.errors import DataError
from lora_sam.data.reading.paths import shown
from lora_sam.deployment.predicting.prompted import OBJECT, PromptedObject, prompted

TABLES = frozenset({".csv", ".tsv", ".txt"})
"""Endings of tables."""

_MOST_TABLE_BYTES = 2**28
_CORNERS = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("left", "top", "right", "bottom"))
_SIDES = (("x", "y", "width", "height"), ("x", "y", "w", "h"))
_SIZE = ("width", "height")
_IMAGE = ("image", "file_name", "filename", "file", "name")
_CATEGORY = ("category", "class", "label")


def read_table(file: Path, kinds: str) -> tuple[str, list[tuple[str, PromptedObject]]]:
    """What a table is, in words, and (image, object) of each.

    Args:
        file: Text in UTF-8, its cells parted by comma, semicolon or tab; the first line names the columns.
        kinds: What may be given instead, for messages.

    Raises:
        DataError: names the line, what it has and what it takes.
    """
    try:
        if file.stat().st_size > _MOST_TABLE_BYTES:
            raise DataError(f"prompts = {file}: is larger than {_MOST_TABLE_BYTES >> 20} MiB; split it")
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"prompts = {file}: cannot be read as UTF-8 text ({error})") from error
    if not text:
        raise DataError(f"prompts = {file}: is empty; its first line names the columns: {kinds}")
    separator = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text), delimiter=separator)  # a name may have a line break in quotes
    heads = [head.strip().lower() for head in next(reader)]
    if twice := sorted({head for head in heads if heads.count(head) > 1}):
        raise DataError(f"prompts = {file}: has the column {twice[0]} {heads.count(twice[0])} times; keep one of them")
    rows = []
    for number, cells in _lines(file, reader):
        if any(cell.strip() for cell in cells):
            if len(cells) != len(heads):
                raise DataError(f"prompts = {file}: line {number} has {len(cells)} cells, the first line {len(heads)}")
            rows.append((number, dict(zip(heads, (cell.strip() for cell in cells), strict=True))))
    image = _first(heads, _IMAGE)
    corners = next((names for names in _CORNERS if set(names) <= set(heads)), None)
    sides = next((names for names in _SIDES if set(names) <= set(heads)), None)
    if image is None or not (corners or sides or {"x", "y"} <= set(heads)):
        raise DataError(
            f"prompts = {file}: has the columns {', '.join(heads)[:200]}; it takes image,x,y,label,object for points, "
            "or image,x1,y1,x2,y2 (or x,y,width,height) and perhaps category for boxes"
        )
    if corners and {"x", "y"} <= set(heads):
        raise DataError(
            f"prompts = {file}: has columns of boxes ({','.join(corners)}) and of points (x,y), which are files of "
            "their own; take the columns of one of them out"
        )
    several = [head for head in heads if head in _IMAGE and head != "name"]
    if len(several) > 1:
        raise DataError(
            f"prompts = {file}: has the columns {' and '.join(several)}, which both may name the image; keep the one "
            "that does"
        )
    if corners or sides:
        return "table of boxes", list(_box_rows(file, rows, image, corners, sides))
    return "table of points", list(_point_rows(file, rows, image, heads))


def _lines(file: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """The lines after the first with their numbers."""
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"prompts = {file}: line {reader.line_num} is no line of a table ({error})") from error


def _box_rows(
    file: Path,
    rows: Sequence[tuple[int, dict[str, str]]],
    image: str,
    corners: tuple[str, ...] | None,
    sides: tuple[str, ...] | None,
) -> Iterator[tuple[str, PromptedObject]]:
    of_image = _image_columns(rows, corners)
    for number, row in rows:
        values = [_number(file, number, name, row[name]) for name in corners or sides or ()]
        x, y, *other = values
        x2, y2 = other if corners else (x + other[0], y + other[1])
        named = _first(row, _CATEGORY)
        category = (row[named] if named else "") or OBJECT
        identifier = row.get("object") or row.get("id") or str(number - 1)
        size = None if of_image is None else (int(float(row[of_image[1]])), int(float(row[of_image[0]])))
        yield row[image], prompted(file, f"line {number}", identifier, category, box=(x, y, x2, y2), size=size)


def _image_columns(
    rows: Sequence[tuple[int, dict[str, str]]], corners: tuple[str, ...] | None
) -> tuple[str, str] | None:
    """The columns `width` and `height` beside corners, where they are those of the image, as TensorFlow has it."""
    if corners is None:
        return None
    for _, row in rows:
        try:
            x1, y1, x2, y2, width, height = (float(row[name]) for name in (*corners, *_SIZE))
        except (KeyError, ValueError):
            return None
        # of the box, or of something else
        if (width, height) == (x2 - x1, y2 - y1) or not (_is_side(width, x2) and _is_side(height, y2)):
            return None
    return _SIZE


def _is_side(side: float, end: float) -> bool:
    """Whether a side may be that of an image in which a box ends there; detectors do not clip boxes."""
    return side.is_integer() and side > 0 and end <= 1.05 * side + 1


def _point_rows(
    file: Path, rows: Sequence[tuple[int, dict[str, str]]], image: str, heads: Sequence[str]
) -> Iterator[tuple[str, PromptedObject]]:
    """Points with the same image and object are one object; without that column, every point is an object."""
    objects: dict[tuple[str, str], list[tuple[float, float, int]]] = {}
    first: dict[tuple[str, str], tuple[int, str]] = {}
    for number, row in rows:
        label = row.get("label") or "1"
        if label not in ("0", "1"):
            raise DataError(
                f"prompts = {file}: line {number} has the label {shown(label)}; it takes 1 for a point on the object "
                "and 0 for one beside it"
            )
        if "object" not in heads and label == "0":
            raise DataError(
                f"prompts = {file}: line {number} is a point beside an object (label 0), and no column says of which: "
                "add the column object"
            )
        if row.get("object") == "":
            raise DataError(
                f"prompts = {file}: line {number} has no object, and others of this column have; name it, or leave the "
                "column out where each point is an object of its own"
            )
        key = (row[image], row["object"] if "object" in heads else str(number - 1))
        point = (_number(file, number, "x", row["x"]), _number(file, number, "y", row["y"]), int(label))
        objects.setdefault(key, []).append(point)
        category = row.get("category") or row.get("class") or OBJECT
        earlier = first.setdefault(key, (number, category))
        if earlier[1] == OBJECT:
            first[key] = earlier[0], category
        elif category not in (OBJECT, earlier[1]):
            raise DataError(
                f"prompts = {file}: line {number} says {shown(category)} of the object {shown(key[1])}, line "
                f"{earlier[0]} {shown(earlier[1])}; points of one object have one class"
            )
    for (name, identifier), points in objects.items():
        number, category = first[name, identifier]
        yield name, prompted(file, f"line {number}", identifier, category, points=points)


def _number(file: Path, line: int, name: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not abs(value) < 1e9:
        raise DataError(f"prompts = {file}: line {line} has {name} = {shown(cell)}; it takes a number")
    return value


def _first(names: Iterable[str], wanted: Sequence[str]) -> str | None:
    there = set(names)
    return next((name for name in wanted if name in there), None)
