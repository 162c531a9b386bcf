"""Outlines that programs trace through the centres of pixels give the mask that was traced, to the pixel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_sam.core.structures import Sample
from lora_sam.data.reading.pixel_centres import drawn
from lora_sam.data.splits import Splits

from .tool_sets import NAMES, H, W, images, put

Y, X = np.mgrid[:H, :W]
ROUND = (X >= 10) & (X <= 21) & (Y >= 5) & (Y <= 14) & (X + Y >= 18) & (X - Y <= 13) & (X + Y <= 32) & (Y - X <= 1)
HOLE = (X >= 14) & (X <= 17) & (Y >= 8) & (Y <= 11)
SQUARE = (X >= 30) & (X <= 41) & (Y >= 6) & (Y <= 15)

# as OpenCV's findContours(mask, RETR_CCOMP, CHAIN_APPROX_SIMPLE) has them
ROUND_TRACE = [[13, 5], [10, 8], [10, 11], [13, 14], [18, 14], [21, 11], [21, 8], [18, 5]]
HOLE_TRACE = [[13, 8], [14, 7], [17, 7], [18, 8], [18, 11], [17, 12], [14, 12], [13, 11]]
SQUARE_TRACE = [[30, 6], [30, 15], [41, 15], [41, 6]]
# as scikit-image's find_contours(mask, 0.5) has it
SQUARE_BETWEEN = [[41, 15.5], [30, 15.5], [29.5, 15], [29.5, 6], [30, 5.5], [41, 5.5], [41.5, 6], [41.5, 15]]

Points = list[list[float]]
Open = Callable[..., Splits]


def flat(points: Any) -> list[float]:
    return [value for point in points for value in point]


def along_edges(mask: np.ndarray) -> Points:
    """The outline of a mask whose rows are whole, along the edges of its pixels."""
    rows = np.flatnonzero(mask.any(axis=1)).tolist()
    left = [int(mask[y].argmax()) for y in rows]
    right = [int(np.flatnonzero(mask[y])[-1]) + 1 for y in rows]
    down = [[x, y + step] for x, y in zip(right, rows, strict=True) for step in (0, 1)]
    up = [[x, y + step] for x, y in zip(left, rows, strict=True) for step in (0, 1)]
    return [*down, *reversed(up)]


def coco(root: Path, objects: list[list[Points]], **stated: list[Any]) -> None:
    images(root / "images")
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    for number, name in enumerate(NAMES):
        content["images"].append({"id": number, "file_name": name, "height": H, "width": W})
        content["annotations"] += [
            {"id": 10 * number + place, "image_id": number, "category_id": 1, "segmentation": [flat(r) for r in rings]}
            | {key: values[place] for key, values in stated.items()}
            for place, rings in enumerate(objects)
        ]
    put(root / "annotations.json", content)


def first(splits: Splits) -> Sample:
    return splits.train[0]


def said(splits: Splits) -> list[str]:
    return [note for note in splits.notes if "centres of pixels" in note]


def test_traces_of_coco_are_filled_to_their_pixels(tmp_path: Path, opened: Open) -> None:
    coco(tmp_path, [[ROUND_TRACE, HOLE_TRACE], [SQUARE_TRACE]])
    splits = opened(tmp_path)
    assert np.array_equal(first(splits).masks, [ROUND & ~HOLE, SQUARE])
    assert len(said(splits)) == 1
    assert "findContours" in said(splits)[0]


def test_a_step_of_a_pixel_at_a_time_is_a_trace_too(tmp_path: Path, opened: Open) -> None:
    """As with CHAIN_APPROX_NONE: a rectangle has many corners then, and tells nothing."""

    def dense(points: Points) -> Points:
        found: Points = []
        for (x, y), (u, v) in zip(points, points[1:] + points[:1], strict=True):
            count = max(abs(u - x), abs(v - y))
            found += [[x + (u - x) * k / count, y + (v - y) * k / count] for k in range(int(count))]
        return found

    coco(tmp_path, [[dense(ROUND_TRACE)], [dense(SQUARE_TRACE)]])
    assert np.array_equal(first(opened(tmp_path)).masks, [ROUND, SQUARE])


@pytest.mark.parametrize("stated", [{"bbox": [[30, 6, 12, 10]]}, {"area": [120]}], ids=["box", "area"])
def test_boxes_and_areas_that_count_pixels_tell_it(stated: dict[str, Any], tmp_path: Path, opened: Open) -> None:
    coco(tmp_path, [[SQUARE_TRACE]], **stated)
    assert np.array_equal(first(opened(tmp_path)).masks, [SQUARE])


def test_contours_of_scikit_image_are_half_a_pixel_to_the_right_and_down(tmp_path: Path, opened: Open) -> None:
    cut = [[max(x, 0.0), y] for x, y in ([x - 30, y] for x, y in SQUARE_BETWEEN)]  # at the border, as pycococreator has
    coco(tmp_path, [[SQUARE_BETWEEN], [cut]])
    splits = opened(tmp_path)
    assert np.array_equal(first(splits).masks, [SQUARE, np.roll(SQUARE, -30, axis=1)])
    assert "find_contours" in said(splits)[0]


def test_a_bridge_to_a_hole_is_no_outline(tmp_path: Path, opened: Open) -> None:
    """As supervision joins rings for YOLO: along one line to the hole, and back. What lies on it belongs to neither."""
    bridged = [*ROUND_TRACE[:4], *HOLE_TRACE[6:], *HOLE_TRACE[:7], *ROUND_TRACE[3:]]
    yolo(tmp_path, [bridged, SQUARE_TRACE])
    splits = opened(tmp_path)
    assert np.array_equal(first(splits).masks, [ROUND & ~HOLE, SQUARE])


def yolo(root: Path, objects: list[Points]) -> None:
    images(root / "images")
    put(root / "data.yaml", "names: [cell]\ntrain: images\n")
    lines = [" ".join(["0", *(f"{x / W:.5f} {y / H:.5f}" for x, y in points)]) for points in objects]
    for name in NAMES:
        put(root / "labels" / f"{name[:-4]}.txt", "\n".join(lines) + "\n")


def labelme(root: Path, objects: list[Points]) -> None:
    images(root)
    shapes = [{"label": "cell", "shape_type": "polygon", "points": points, "group_id": None} for points in objects]
    for name in NAMES:
        put(root / f"{name[:-4]}.json", {"imagePath": name, "imageHeight": H, "imageWidth": W, "shapes": shapes})


@pytest.mark.parametrize("write", [yolo, labelme])
def test_traces_of_other_formats(write: Callable[[Path, list[Points]], None], tmp_path: Path, opened: Open) -> None:
    write(tmp_path, [ROUND_TRACE, SQUARE_TRACE])
    splits = opened(tmp_path)
    assert np.array_equal(first(splits).masks, [ROUND, SQUARE])
    assert len(said(splits)) == 1


def test_outlines_along_edges_and_by_hand_stay_as_they_are(tmp_path: Path, opened: Open) -> None:
    hand = [[33, 20], [52, 24], [50, 37], [41, 38], [35, 33], [31, 30], [30, 27], [31, 22]]
    coco(tmp_path, [[along_edges(ROUND)], [along_edges(SQUARE)], [hand]], bbox=[[10, 5, 12, 10], [30, 6, 12, 10], None])
    splits = opened(tmp_path)
    assert np.array_equal(first(splits).masks[:2], [ROUND, SQUARE])
    assert not said(splits)


def test_rectangles_alone_tell_nothing(tmp_path: Path, opened: Open) -> None:
    coco(tmp_path, [[SQUARE_TRACE]])
    splits = opened(tmp_path)
    assert first(splits).masks.sum() == 11 * 9
    assert not said(splits)


def test_lines_that_leave_the_image_are_cut() -> None:
    assert drawn([[-3.0, 1.0, 2.0, 1.0]], (4, 3)) == {"size": [4, 3], "counts": [1, 1, 3, 1, 3, 1, 2]}
    assert drawn([[-3.0, 1.0, -2.0, 1.0]], (4, 3)) is None
    assert drawn([[0.0, 0.0, 0.0, 3.0]], (4, 1)) == {"size": [4, 1], "counts": [0, 4, 0]}
