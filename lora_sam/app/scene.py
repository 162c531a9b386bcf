"""What a user has set: image, prompts of each object, models; data that may come from anywhere, hence checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, with_config

from lora_sam.core.errors import DataError
from lora_sam.core.structures import Prompts
from lora_sam.prompts.objects import STRICT, ObjectPrompts

MAX_OBJECTS = 64
MAX_RUNS = 3
MAX_ALPHA = 1.5
MAX_CHARACTERS = 200_000
HEADINGS = ("object", "kind", "x", "y", "x2", "y2")
"""Columns of the table of prompts; x2 and y2 belong to boxes only."""

Choice = Literal["single", "best", "1", "2", "3"]
"""Which of the model's masks is shown: the single one, the best of the three for ambiguous prompts, or one of them."""

_KINDS = {"+": 1, "-": 0, "−": 0}


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that decides which masks are shown.

    Attributes:
        image: Id of the image: `test:<number>` of the first run, or `upload:<hash>`.
        objects: Their prompts.
        runs: Names of the runs whose tuned models are shown; the first gives base and test images.
        alpha: Strength of the adapters, 0 is the base, 1 as trained.
        backend: What computes the tuned masks of the first run.
        choice: Which of the masks of a prompt is shown.
    """

    image: Annotated[str, Field(max_length=200)] = ""
    objects: Annotated[tuple[ObjectPrompts, ...], Field(max_length=MAX_OBJECTS)] = ()
    runs: Annotated[tuple[Annotated[str, Field(max_length=500)], ...], Field(max_length=MAX_RUNS)] = ()
    alpha: Annotated[float, Field(ge=0, le=MAX_ALPHA)] = 1.0
    backend: Annotated[str, Field(max_length=100)] = "torch"
    choice: Choice = "single"


_SCENE = TypeAdapter(Scene)
_OBJECTS = TypeAdapter(Annotated[tuple[ObjectPrompts, ...], Field(max_length=MAX_OBJECTS)])


def scene_from(text: str) -> Scene:
    """A scene from JSON. Raises `DataError` that names the first thing that is wrong."""
    return _checked(_SCENE, text, "this link or state")  # type: ignore[no-any-return]


def checked_scene(**values: Any) -> Scene:
    """A scene from its fields. Raises `DataError` that names the first thing that is wrong."""
    return scene_from(to_json(Scene(**values)))


def objects_from(text: str) -> tuple[ObjectPrompts, ...]:
    """The prompts of some objects from a JSON list. Raises `DataError` that names the first thing that is wrong."""
    return _checked(_OBJECTS, text, "prompts")  # type: ignore[no-any-return]


def to_json(scene: Scene) -> str:
    """The scene as JSON that `scene_from` reads; the shortest form, as it becomes part of a link."""
    return json.dumps(asdict(scene), separators=(",", ":"))


def objects_json(objects: Sequence[ObjectPrompts]) -> list[dict[str, Any]]:
    """Plain lists and mappings of the prompts, ready for JSON."""
    return [
        {"box": None if one.box is None else list(one.box), "points": [list(point) for point in one.points]}
        for one in objects
    ]


def inside(objects: Sequence[ObjectPrompts], size: tuple[int, int]) -> tuple[ObjectPrompts, ...]:
    """The same prompts, once it is known that they fit the image of `size` = (height, width).

    Boxes that reach over its edge stay as they are, as every predictor takes them: objects that the edge cuts are found
    better so.

    Raises:
        DataError: a point, or a whole box, lies outside the image, or corners of a box are not in order.
    """
    height, width = size
    for number, one in enumerate(objects, 1):
        for x, y, _ in one.points:
            if not (0 <= x <= width and 0 <= y <= height):
                raise DataError(
                    f"object {number}: the point ({x:g}, {y:g}) lies outside the image of {width} x {height} pixels"
                )
        box = one.box
        if box is not None:
            x1, y1, x2, y2 = box
            if x1 > x2 or y1 > y2:
                raise DataError(
                    f"object {number}: the box {list(box)} must be x1, y1, x2, y2 with x1 < x2 and y1 < y2 (not width "
                    "and height)"
                )
            if min(x2, width) <= max(x1, 0.0) or min(y2, height) <= max(y1, 0.0):
                raise DataError(
                    f"object {number}: the box {list(box)} has no area inside the image of {width} x {height} pixels"
                )
    return tuple(objects)


def prompts_of(prompts: Prompts) -> tuple[ObjectPrompts, ...]:
    """One object per prompt; padding points, and boxes that are none (NaN), are left out."""
    made = []
    for row in range(len(prompts)):
        box = None if prompts.boxes is None else tuple(float(side) for side in prompts.boxes[row])
        if box is not None and all(side != side for side in box):  # NaN: this object has no box, others do
            box = None
        points: tuple[Any, ...] = ()
        if prompts.points is not None and prompts.labels is not None:
            points = tuple(
                (float(x), float(y), int(label))
                for (x, y), label in zip(prompts.points[row], prompts.labels[row], strict=True)
                if label >= 0
            )
        made.append(ObjectPrompts(box=box, points=points))  # type: ignore[arg-type]  # four sides
    return tuple(made)


def rows_of(objects: Sequence[ObjectPrompts]) -> list[list[Any]]:
    """The prompts as a table with the columns `HEADINGS`; kinds are `box`, `+` and `-`."""
    rows: list[list[Any]] = []
    for number, one in enumerate(objects, 1):
        if one.box is not None:
            rows.append([number, "box", *(round(side, 1) for side in one.box)])
        rows += [[number, "+" if label else "-", round(x, 1), round(y, 1), None, None] for x, y, label in one.points]
    return rows


def objects_of(rows: Sequence[Sequence[Any]]) -> tuple[ObjectPrompts, ...]:
    """The prompts in a table with the columns `HEADINGS`, which a person may have edited; empty rows are left out.

    Objects are numbered anew in the order of their numbers.

    Raises:
        DataError: names the row and what it must be.
    """
    found: dict[int, dict[str, Any]] = {}
    for line, row in enumerate(rows, 1):
        cells = [None if _blank(cell) else cell for cell in row]
        if all(cell is None for cell in cells):
            continue
        number, kind, *places = [*cells, *[None] * (len(HEADINGS) - len(cells))][: len(HEADINGS)]
        numbers = [_number(value, line) for value in places if value is not None]
        one = found.setdefault(int(_number(number, line)), {"box": None, "points": []})
        word = str(kind).strip().lower()
        if word == "box":
            if len(numbers) != 4:
                raise DataError(f"row {line} of the table: a box needs x, y, x2 and y2")
            if one["box"] is not None:
                raise DataError(f"row {line} of the table: object {number} has a box already, give it another number")
            one["box"] = numbers
        elif word in _KINDS:
            if len(numbers) < 2:
                raise DataError(f"row {line} of the table: a point needs x and y")
            one["points"].append([*numbers[:2], _KINDS[word]])
        else:
            raise DataError(f"row {line} of the table: kind is {str(kind)[:20]!r}, must be box, + or -")
    return objects_from(json.dumps([found[number] for number in sorted(found)]))


def _blank(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip()) or (isinstance(cell, float) and cell != cell)


def _number(value: Any, line: int) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not abs(number) < 1e9:
        raise DataError(f"row {line} of the table: {str(value)[:20]!r} is no number")
    return number


def _checked(adapter: TypeAdapter[Any], text: str, what: str) -> Any:
    if len(text) > MAX_CHARACTERS:
        raise DataError(f"{what}: {len(text):,} characters, at most {MAX_CHARACTERS:,} are read")
    try:
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        first: Mapping[str, Any] = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])[:100]
        raise DataError(f"{what} cannot be read: {f'{place}: ' if place else ''}{first['msg'][:200]}") from error
