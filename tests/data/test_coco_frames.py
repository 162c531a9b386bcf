"""COCO files whose outlines are in another order or scale than the format says, and marks that mean something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.data.coco import Coco

Make = Callable[..., Coco]
HEIGHT, WIDTH = 60, 100
BOXES = ((10, 20, 30, 12), (50, 5, 20, 40), (70, 40, 24, 15))


def polygon(left: int, top: int, width: int, height: int) -> list[float]:
    right, bottom = left + width, top + height
    return [left, top, right, top, right, bottom, left + width / 2, bottom, left + width / 2, top + 4, left, top + 4]


def truth() -> np.ndarray:
    masks = np.zeros((len(BOXES), HEIGHT, WIDTH), np.bool_)
    for mask, (left, top, width, height) in zip(masks, BOXES, strict=True):
        mask[top : top + 4, left : left + width] = True
        mask[top : top + height, left + width // 2 : left + width] = True
    return masks


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(segmentation: Callable[[int], Any], count: int = 4, **changes: Any) -> Path:
        (tmp_path / "images").mkdir(exist_ok=True)
        content: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
            content["images"].append({"id": number, "file_name": f"{number}.png", "height": HEIGHT, "width": WIDTH})
            for place, box in enumerate(BOXES):
                entry = {
                    "id": 10 * number + place, "image_id": number, "category_id": 1, "bbox": list(box), "iscrowd": 0,
                    "segmentation": segmentation(place),
                }  # fmt: skip
                content["annotations"].append({k: v for k, v in (entry | changes).items() if v is not None})
        (tmp_path / "annotations.json").write_text(json.dumps(content))
        return tmp_path

    return write


def runs(mask: np.ndarray, order: str) -> dict[str, Any]:
    flat = mask.ravel(order)  # type: ignore[call-overload]
    changes = np.flatnonzero(np.diff(flat, prepend=False, append=flat[-1:] ^ True)).tolist()
    counts = np.diff([0, *changes]).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": counts}


def swapped(place: int) -> list[list[float]]:
    return [np.array(polygon(*BOXES[place])).reshape(-1, 2)[:, ::-1].ravel().tolist()]


def relative(place: int) -> list[list[float]]:
    return [(np.array(polygon(*BOXES[place])).reshape(-1, 2) / (WIDTH, HEIGHT)).ravel().tolist()]


@pytest.mark.parametrize(
    ("segmentation", "note"),
    [
        (lambda place: [polygon(*BOXES[place])], None),
        (swapped, "(y, x)"),
        (relative, "fractions of the image"),
        (lambda place: runs(truth()[place], "F"), None),
        (lambda place: runs(truth()[place], "C"), "along rows"),
    ],
    ids=["usual", "swapped", "relative", "columns", "rows"],
)
def test_outlines_are_read_as_they_fit_their_boxes(
    coco: Make, written: Callable[..., Path], segmentation: Callable[[int], Any], note: str | None
) -> None:
    splits = coco(written(segmentation)).open(0)
    for sample in (splits.train[0], splits.val[0], splits.test[0]):
        np.testing.assert_array_equal(sample.masks, truth())
    told = [text for text in splits.notes if "fit" in text]
    assert [note in text for text in told] == ([] if note is None else [True])
    # without boxes nothing can be known of polygons, and nothing is changed; runs in the wrong order are torn masks
    bare = [text for text in opened_or_refused(coco(written(segmentation, bbox=None))) if "fit" in text]
    assert ["along rows" in text for text in bare] == ([True] if note == "along rows" else [])


def opened_or_refused(data: Coco) -> tuple[str, ...]:
    try:
        return data.open(0).notes
    except DataError as error:
        return (str(error),)


@pytest.mark.parametrize("factor", [0.5, 0.25])
def test_polygons_of_another_size_than_their_boxes_are_refused(
    coco: Make, written: Callable[..., Path], factor: float
) -> None:
    def half(place: int) -> Any:
        return [(factor * np.array(polygon(*BOXES[place]))).tolist()]

    with pytest.raises(DataError, match=rf"polygons are {factor} times as large as their boxes.*remove every bbox"):
        coco(written(half)).open(0)
    assert len(coco(written(half, bbox=None)).open(0).train) == 3  # the remedy


RINGS = [[20, 10, 60, 10, 60, 50, 20, 50], [30, 20, 50, 20, 50, 40, 30, 40]]


@pytest.mark.parametrize(
    ("area", "rings", "expected"),
    [
        (1200, "auto", 1200),
        (1600, "auto", 1600),
        (None, "auto", 1200),
        (1200, "union", 1600),
        (1600, "even_odd", 1200),
    ],
)
def test_a_ring_inside_another_is_a_hole_where_the_area_says_so(
    coco: Make, written: Callable[..., Path], area: int | None, rings: str, expected: int
) -> None:
    root = written(lambda place: RINGS, area=area, bbox=None)
    sample = coco(root, rings=rings).open(0).train[0]
    assert sample.masks.sum(axis=(1, 2)).tolist() == [expected] * 3
    assert bool(sample.masks[0, 30, 40]) == (expected == 1600)


def test_parts_beside_each_other_are_one_object(coco: Make, written: Callable[..., Path]) -> None:
    parts = [[0, 0, 10, 0, 10, 10, 0, 10], [20, 20, 30, 20, 30, 30, 20, 30], [8, 8, 14, 8, 14, 14, 8, 14]]
    sample = coco(written(lambda place: parts, bbox=None)).open(0).train[0]
    assert sample.masks[0].sum() == 100 + 100 + 36 - 4


def test_masks_marked_as_crowds(coco: Make, written: Callable[..., Path]) -> None:
    mask = {"iscrowd": 1, "attributes": {"occluded": False}}  # as CVAT and Datumaro write a brush mask
    for changes in (mask, {"iscrowd": 1}):
        root = written(lambda place: runs(truth()[place], "F"), **changes)
        splits = coco(root).open(0)
        assert splits.train[0].masks.shape == (3, HEIGHT, WIDTH)
        assert any("iscrowd" in note and "data.crowd=ignore" in note for note in splits.notes)
        with pytest.raises(DataError, match=r"all 12 annotations have iscrowd=1 .*; set data\.crowd=objects"):
            coco(root, crowd="ignore").open(0)
    content = json.loads((root / "annotations.json").read_text())
    for entry in content["annotations"][1:]:
        entry["iscrowd"] = 0
    (root / "annotations.json").write_text(json.dumps(content))
    splits = coco(root, few_images=0).open(0)  # a crowd or two among many objects is one
    assert sum(sum(source.object_counts) for source in (splits.train, splits.val, splits.test)) == 11
    assert any("crowd annotations (iscrowd) are not objects" in note for note in splits.notes)
    assert sum(len(coco(root, crowd="objects").open(0).train[index].masks) for index in range(2)) == 6
