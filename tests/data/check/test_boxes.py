"""Boxes beside masks in Pascal VOC and Datumaro: what is found, and what tools write otherwise without a fault."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_sam.data.check.defects import DEFECTS
from lora_sam.data.check.examination import Examination
from lora_sam.data.check.samples import fits
from lora_sam.data.reading.class_table import voc_colour
from tests.data.check.conftest import COUNTS, HEIGHT, WIDTH, pixels

# of the two objects of every image: XYXY in the frame that begins at 0
FIRST, SECOND = (6, 10, 26, 26), (34, 10, 54, 26)
Boxes = Sequence[Sequence[float] | None]


def xml(boxes: Boxes) -> str:
    """An annotation as VOC has it: the frame begins at 1."""
    objects = ""
    for box in boxes:
        sides = zip(("xmin", "ymin", "xmax", "ymax"), box or (), strict=False)
        inner = "".join(f"<{side}>{value + (side.endswith('min'))}</{side}>" for side, value in sides)
        objects += f"<object><name>cat</name><bndbox>{inner}</bndbox></object>"
    return f"<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>{objects}</annotation>"


@pytest.fixture
def voc_set(tmp_path: Path) -> Callable[..., Path]:
    """Writes images with two objects each; the annotation of train_0 has `boxes`, or `text`, and its mask an edge of
    255 that is `void` pixels wide.
    """

    def write(boxes: Boxes = (FIRST, SECOND), *, void: int = 0, text: str | None = None, colours: bool = False) -> Path:
        root = tmp_path / "voc"
        for name in ("JPEGImages", "SegmentationObject", "Annotations", "ImageSets/Segmentation"):
            (root / name).mkdir(parents=True)
        for number, (split, count) in enumerate(COUNTS.items()):
            names = [f"{split}_{index}" for index in range(count)]
            (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names))
            for index, name in enumerate(names):
                Image.fromarray(pixels(number, index)).save(root / f"JPEGImages/{name}.png")
                first = (split, index) == ("train", 0)
                labels = np.zeros((HEIGHT, WIDTH), np.uint8)
                for value, (left, top, right, bottom) in enumerate((FIRST, SECOND), 1):
                    labels[top:bottom, left:right] = 255 if first and void else value
                    edge = void if first else 0
                    labels[top + edge : bottom - edge, left + edge : right - edge] = value
                stored = np.array([voc_colour(value) for value in range(256)], np.uint8)[labels] if colours else labels
                Image.fromarray(stored).save(root / f"SegmentationObject/{name}.png")
                content = xml(boxes if first else (FIRST, SECOND)) if text is None or not first else text
                (root / f"Annotations/{name}.xml").write_text(content)
        return root

    return write


def found(examination: Examination) -> dict[str, list[str]]:
    return {group.defect.name: [finding.id for finding in group.findings] for group in examination.groups}


def test_a_box_beside_its_mask_in_voc(voc_set: Callable[..., Path], examined: Callable[..., Examination]) -> None:
    root = voc_set((FIRST, (30, 4, 50, 20)))
    examination = examined(root, "voc")
    assert found(examination) == {"box_mask_mismatch": ["JPEGImages/train_0.png: object 2"]}
    finding = examination.groups[0].findings[0]
    assert finding.detail == ("JPEGImages/train_0.png: object 2 has the box (31, 5, 50, 20), its mask (34, 10, 54, 26)")
    assert (finding.image, finding.objects) == ("JPEGImages/train_0.png", ("2",))
    assert "masks" in DEFECTS["box_mask_mismatch"].remedy
    # found out by itself what format it is
    assert found(examined(root, "auto")) == found(examination)


@pytest.mark.parametrize(
    ("boxes", "options"),
    [
        ((FIRST, SECOND), {}),
        (((5, 9, 25, 25), SECOND), {}),  # a frame that begins at 0, and ends before the last pixel
        ((SECOND, FIRST), {}),  # objects in another order than their masks
        ((FIRST,), {}),  # an object without a box
        ((FIRST, None), {}),
        ((FIRST, (float("nan"), 0, 1, 1)), {}),
        ((FIRST, SECOND, (0, 0, 60, 40)), {}),  # a box without a mask
        ((FIRST, SECOND), {"void": 4}),  # edges that belong to nothing
        ((FIRST, SECOND), {"void": 4, "colours": True}),
        ((), {"text": "<annotation></annotation>"}),
    ],
)
def test_what_tools_write_without_a_fault(
    voc_set: Callable[..., Path], examined: Callable[..., Examination], boxes: Boxes, options: dict[str, Any]
) -> None:
    assert found(examined(voc_set(boxes, **options), "voc")) == {}


def test_edges_that_belong_to_nothing_excuse_no_more_than_their_width(
    voc_set: Callable[..., Path], examined: Callable[..., Examination]
) -> None:
    examination = examined(voc_set(((0, 3, 34, 34), SECOND), void=4), "voc")
    assert found(examination) == {"box_mask_mismatch": ["JPEGImages/train_0.png: object 1"]}


def test_annotations_that_cannot_be_read_are_told_once(
    voc_set: Callable[..., Path], examined: Callable[..., Examination]
) -> None:
    examination = examined(voc_set(text="<annotation>"), "voc")
    assert {name: len(cases) for name, cases in found(examination).items()} == {"bad_annotation": 1}


def test_classes_have_no_boxes(voc_set: Callable[..., Path], examined: Callable[..., Examination]) -> None:
    root = voc_set((FIRST, (30, 4, 50, 20)))
    (root / "SegmentationObject").rename(root / "SegmentationClass")
    assert "box_mask_mismatch" not in found(examined(root, "voc"))


# --- Datumaro --------------------------------------------------------------------------------------------------------


def outline(identifier: int, box: Sequence[float], group: int = 0, label: int | None = 0) -> dict[str, Any]:
    left, top, right, bottom = box
    points = [left, top, right, top, right, bottom, left, bottom]
    return {"id": identifier, "type": "polygon", "group": group, "label_id": label, "attributes": {}, "points": points}


def bbox(identifier: int, box: Sequence[float], group: int = 0, label: int | None = 0) -> dict[str, Any]:
    left, top, right, bottom = box
    values = [left, top, right - left, bottom - top]
    return {"id": identifier, "type": "bbox", "group": group, "label_id": label, "attributes": {}, "bbox": values}


BESIDE = (12, 10, 32, 26)
TWO = [outline(1, FIRST), outline(2, SECOND)]


@pytest.fixture
def datumaro_set(tmp_path: Path) -> Callable[..., Path]:
    """Writes images with two objects each; train_0 has other `annotations`."""

    def write(annotations: list[Any]) -> Path:
        root = tmp_path / "datumaro"
        (root / "annotations").mkdir(parents=True)
        for number, (split, count) in enumerate(COUNTS.items()):
            (root / "images" / split).mkdir(parents=True)
            items = []
            for index in range(count):
                name = f"{split}_{index}"
                Image.fromarray(pixels(number, index)).save(root / f"images/{split}/{name}.png")
                own = annotations if (split, index) == ("train", 0) else TWO
                image = {"path": f"{name}.png", "size": [HEIGHT, WIDTH]}
                items.append({"id": name, "annotations": own, "image": image})
            labels = [{"name": name} for name in ("square", "other")]
            content = {"infos": {}, "categories": {"label": {"labels": labels}}, "items": items}
            (root / f"annotations/{split}.json").write_text(json.dumps(content))
        return root

    return write


@pytest.mark.parametrize(
    ("annotations", "name"),
    [
        ([outline(1, FIRST, 7), bbox(9, BESIDE, 7), outline(2, SECOND)], "1"),
        ([outline(1, FIRST), bbox(1, BESIDE), outline(2, SECOND)], "1"),
        ([bbox(5, BESIDE, 7, None), outline(1, FIRST, 7), outline(2, SECOND)], "1"),
        # two parts are one object, whose box holds both
        ([outline(1, (6, 10, 12, 26), 7), outline(4, (20, 10, 26, 26), 7), bbox(9, (6, 10, 12, 26), 7), TWO[1]], "1"),
        # ids that name nothing: readers count the objects
        ([outline(0, SECOND), outline(0, FIRST, 7), bbox(0, BESIDE, 7)], "2"),
    ],
)
def test_a_box_beside_its_mask_in_datumaro(
    datumaro_set: Callable[..., Path], examined: Callable[..., Examination], annotations: list[Any], name: str
) -> None:
    examination = examined(datumaro_set(annotations), "datumaro")
    cases = found(examination)
    cases.pop("no_outline", None)  # a box that belongs to no object
    assert cases == {"box_mask_mismatch": [f"images/train/train_0.png: object {name}"]}
    assert examination.groups[0].findings[0].detail.endswith("its mask (6, 10, 26, 26)")


@pytest.mark.parametrize(
    "annotations",
    [
        [outline(1, FIRST, 7), bbox(9, FIRST, 7), outline(2, SECOND)],
        [outline(1, FIRST, 7), bbox(9, (7, 11, 26, 26), 7), outline(2, SECOND)],
        [*TWO, bbox(9, BESIDE)],  # a box of nothing
        [*TWO, bbox(0, BESIDE)],
        # of another label in the same group, and of a group with two objects
        [outline(1, FIRST, 7), outline(2, SECOND, 7, 1), bbox(9, BESIDE, 7, None)],
        [outline(1, FIRST, 7), bbox(9, BESIDE, 7, 1), outline(2, SECOND)],
        [outline(1, FIRST, 7), {**bbox(9, FIRST, 7), "bbox": None}, outline(2, SECOND)],
    ],
)
def test_boxes_that_say_nothing_of_a_mask(
    datumaro_set: Callable[..., Path], examined: Callable[..., Examination], annotations: list[Any]
) -> None:
    assert "box_mask_mismatch" not in found(examined(datumaro_set(annotations), "datumaro"))


def test_how_far_a_box_may_be_off() -> None:
    tight = np.array([10, 10, 30, 20], np.float32)
    assert fits(np.array([8, 8, 32, 22.0]), tight)
    assert not fits(np.array([7.9, 10, 30, 20.0]), tight)
    assert fits(np.array([5, 10, 30, 25.0]), tight, slack=5)
    assert not fits(np.array([13, 10, 30, 20.0]), tight, slack=5)  # the mask leaves its box
    wide = np.array([0, 0, 200, 20], np.float32)
    assert fits(np.array([10, 0, 190, 20.0]), wide)
    assert not fits(np.array([10.1, 0, 190, 20.0]), wide)
