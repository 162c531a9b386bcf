"""What comes from a browser or a link: checked, cut to the image, grouped without padding, and back to a table."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lora_sam.app.scene import (
    MAX_OBJECTS,
    Scene,
    inside,
    objects_from,
    objects_of,
    prompts_of,
    rows_of,
    scene_from,
    to_json,
)
from lora_sam.core.errors import DataError
from lora_sam.core.structures import Prompts
from lora_sam.prompts.objects import ObjectPrompts, batches

OBJECTS = (
    ObjectPrompts(box=(1.0, 2.0, 30.0, 40.0)),
    ObjectPrompts(points=((5.0, 6.0, 1), (7.5, 8.0, 0))),
    ObjectPrompts(),
    ObjectPrompts(box=(3.0, 3.0, 9.0, 9.0)),
    ObjectPrompts(box=(3.0, 3.0, 9.0, 9.0), points=((4.0, 4.0, 1),)),
)


def test_a_scene_survives_a_link() -> None:
    scene = Scene(image="test:3", objects=OBJECTS, runs=("a", "b"), alpha=0.5, backend="openvino int8", choice="2")
    assert scene_from(to_json(scene)) == scene


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"alpha": 2}', "alpha: Input should be less than or equal to 1.5"),
        ('{"alpha": NaN}', "alpha"),
        ('{"choice": "4"}', "choice: Input should be 'single', 'best', '1', '2' or '3'"),
        ('{"objects": [{"points": [[1, 2, 3]]}]}', "objects.0.points.0.2: Input should be less than or equal to 1"),
        ('{"objects": [{"box": [1, 2, 3]}]}', "objects.0.box"),
        ('{"path": "/etc/passwd"}', "path: Unexpected keyword argument"),
        (json.dumps({"objects": [{}] * (MAX_OBJECTS + 1)}), "objects: Tuple should have at most 64 items"),
        (" " * 200_001, "200,001 characters, at most 200,000 are read"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(DataError, match="this link or state") as error:
        scene_from(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_boxes_over_the_edge_stay_as_they_are() -> None:
    (given,) = objects_from('[{"box": [-20, 2, 30, 50]}]')
    assert inside((given,), (40, 60)) == (given,)
    assert given.box == (-20, 2, 30, 50)


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (
            ObjectPrompts(points=((61.0, 5.0, 1),)),
            "object 1: the point (61, 5) lies outside the image of 60 x",
        ),
        (ObjectPrompts(box=(70.0, 1.0, 80.0, 5.0)), "has no area inside the image"),
        (ObjectPrompts(box=(5.0, 1.0, 5.0, 9.0)), "has no area inside the image"),
        (ObjectPrompts(box=(30.0, 20.0, 10.0, 5.0)), "must be x1, y1, x2, y2 with x1 < x2 and y1 < y2"),
    ],
)
def test_prompts_outside_the_image_are_refused(one: ObjectPrompts, message: str) -> None:
    with pytest.raises(DataError) as error:
        inside((one,), (40, 60))
    assert message in str(error.value)


def test_only_prompts_of_one_shape_share_a_batch() -> None:
    found = {tuple(places): prompts for places, prompts in batches(OBJECTS)}
    assert set(found) == {(0, 3), (1,), (4,)}
    assert found[0, 3].points is None
    assert found[0, 3].boxes is not None
    assert found[0, 3].boxes.tolist() == [[1, 2, 30, 40], [3, 3, 9, 9]]
    assert found[(1,)].boxes is None
    assert found[(1,)].points is not None
    assert found[(1,)].points.tolist() == [[[5, 6], [7.5, 8]]]
    assert found[(1,)].labels is not None
    assert found[(1,)].labels.tolist() == [[1, 0]]
    assert found[(4,)].boxes is not None
    assert found[(4,)].points is not None


def test_objects_without_a_box_among_others_have_none() -> None:
    nan = float("nan")
    mixed = Prompts(
        boxes=np.array([[1, 2, 3, 4], [nan] * 4], np.float32),
        points=np.array([[[0, 0]], [[5, 6]]], np.float32),
        labels=np.array([[-1], [1]]),
    )
    assert prompts_of(mixed) == (ObjectPrompts(box=(1, 2, 3, 4)), ObjectPrompts(points=((5, 6, 1),)))


def test_prompts_become_objects_without_padding() -> None:
    prompts = Prompts(
        points=np.array([[[1, 2], [0, 0]], [[3, 4], [5, 6]]], np.float32), labels=np.array([[1, -1], [0, 1]])
    )
    assert prompts_of(prompts) == (
        ObjectPrompts(points=((1.0, 2.0, 1),)),
        ObjectPrompts(points=((3.0, 4.0, 0), (5.0, 6.0, 1))),
    )


def test_a_table_and_back() -> None:
    rows = rows_of(OBJECTS)
    assert rows[:3] == [[1, "box", 1, 2, 30, 40], [2, "+", 5, 6, None, None], [2, "-", 7.5, 8, None, None]]
    assert objects_of(rows) == tuple(one for one in OBJECTS if not one.empty)
    assert objects_of([["", None, "", float("nan")], ["7", " BOX ", "1", 2, 3.5, 4]]) == (
        ObjectPrompts(box=(1.0, 2.0, 3.5, 4.0)),
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1, "box", 1, 2, 3, None], "row 2 of the table: a box needs x, y, x2 and y2"),
        ([1, "+", 1, None, None, None], "row 2 of the table: a point needs x and y"),
        ([1, "circle", 1, 2, None, None], "row 2 of the table: kind is 'circle', must be box, + or -"),
        ([1, "+", "abc", 2, None, None], "row 2 of the table: 'abc' is no number"),
        (["one", "+", 1, 2, None, None], "row 2 of the table: 'one' is no number"),
        ([1, "+", float("inf"), 2, None, None], "row 2 of the table: 'inf' is no number"),
        ([3, "box", 5, 6, 7, 8], "row 2 of the table: object 3 has a box already"),
    ],
)
def test_a_mistake_in_the_table_is_named(row: list[object], message: str) -> None:
    with pytest.raises(DataError) as error:
        objects_of([[3, "box", 1, 2, 3, 4], row])
    assert message in str(error.value)


def test_prompts_of_the_api_are_checked() -> None:
    assert objects_from('[{"box": [1, 2, 3, 4]}]') == (ObjectPrompts(box=(1.0, 2.0, 3.0, 4.0)),)
    with pytest.raises(DataError, match=r"prompts cannot be read: 0\.box\.0: Input should be a valid number"):
        objects_from('[{"box": ["1", 2, 3, 4]}]')
