"""Thumbnails: what is drawn where."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.core.frame import Frame
from lora_sam.core.painting import PALETTE
from lora_sam.core.structures import Prompts, Sample
from lora_sam.data.check.examination import Examination
from lora_sam.data.sources import SampleSource
from lora_sam.prompts import tight_boxes
from lora_sam.report.charts import histogram
from lora_sam.report.check.page import check_html
from lora_sam.report.check.pictures import (
    EXAMPLES,
    MOST_OBJECTS,
    SIDE,
    Thumbnail,
    examples,
    first_prompts,
    overview,
    thumbnail,
)
from tests.data.check.conftest import square


@pytest.fixture
def sample() -> Sample:
    """Grey, 40 x 80 pixels, a square of 10 pixels at row 10, column 20."""
    masks = np.zeros((1, 40, 80), np.bool_)
    masks[0, 10:20, 20:30] = True
    return Sample("a.png", np.full((40, 80, 3), 100, np.uint8), masks, ("7",))


def decoded(picture: Thumbnail) -> NDArray[np.int16]:
    image = Image.open(io.BytesIO(picture.file))
    assert image.format == "JPEG"
    assert (image.height, image.width) == picture.size
    return np.asarray(image).astype(np.int16)


def near(pixel: NDArray[np.int16], colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixel - np.array(colour)).max() < 60)


def lined(rows: NDArray[np.int16]) -> bool:
    """Whether a row of pixels is all orange, as the first colour of objects."""
    return bool(((rows[..., 0] - rows[..., 2]) > 40).all(axis=1).any())


def box(*corners: float) -> Prompts:
    return Prompts(boxes=np.array([corners], np.float32))


def test_whole_image_with_mask_and_box(sample: Sample) -> None:
    found = decoded(thumbnail(sample, box(16, 4, 36, 28), "text"))
    assert found.shape == (160, SIDE, 3)
    assert near(found[20, 300], (100, 100, 100))
    assert near(found[41, 81], PALETTE[0])  # the contour of the mask
    assert lined(found[100:110, 60:70].swapaxes(0, 1))  # the left side of the box
    assert not lined(found[100:110, 70:80].swapaxes(0, 1))


def test_objects_that_are_meant_are_enlarged(
    coco_set: Callable[..., Path], examined: Callable[..., Examination]
) -> None:
    """A square of 2 pixels is shown in a window of 48 pixels, and its box beside it."""
    examination = examined(coco_set(lambda content, _: content["annotations"][0].update(square(40, 20, 2, 2))))
    (picture,) = examples(examination, _Boxes(), 0)["tiny_mask"]
    assert picture.size == (SIDE, SIDE)
    found, scale = decoded(picture), SIDE / 48
    left, top = 41 - 24, 0  # the window ends at the lower edge of the image
    x, y = (round((place - start) * scale) for place, start in ((41, left), (21, top)))
    assert near(found[y, x], PALETTE[0])
    edge = y + round(6 * scale)  # the box ends 5 pixels below the square, which ends 1 below its middle
    assert lined(found[edge - 5 : edge + 5, x - 20 : x + 20])
    assert not lined(found[edge - 20 : edge - 10, x - 20 : x + 20])


class _Boxes:
    """Tight boxes, 5 pixels larger on each side."""

    def training_prompts(self, sample: Sample, seed: int, epoch: int) -> Prompts:
        return Prompts(boxes=tight_boxes(sample.masks) + np.array([-5, -5, 5, 5], np.float32))

    evaluation_prompts = training_prompts


def test_enlarged_points(coco_set: Callable[..., Path], examined: Callable[..., Examination], option: Any) -> None:
    examination = examined(coco_set(lambda content, _: content["annotations"][0].update(square(40, 20, 2, 2))))
    (with_point,) = examples(examination, option("prompt/point"), 0)["tiny_mask"]
    found, scale = decoded(with_point), SIDE / 48
    x, y = (round((place - start) * scale) for place, start in ((41, 17), (21, 0)))
    near_point = found[y - 8 : y + 9, x - 8 : x + 9].reshape(-1, 3)
    assert any(near(pixel, (255, 255, 255)) for pixel in near_point)  # the rim of the dot


def test_only_so_many_objects_are_drawn() -> None:
    count = MOST_OBJECTS + 5
    masks = np.eye(count, dtype=np.bool_)[:, None, :]
    sample = Sample("a.png", np.zeros((1, count, 3), np.uint8), masks, tuple(str(row) for row in range(count)))
    shown, prompts = first_prompts(_Boxes(), sample, 0, None)
    assert (len(shown.masks), len(prompts)) == (MOST_OBJECTS, MOST_OBJECTS)
    shown, prompts = first_prompts(_Boxes(), sample, 0, 7)
    assert (len(shown.masks), len(prompts)) == (MOST_OBJECTS, 7)
    assert prompts.boxes is not None
    assert np.array_equal(prompts.boxes[:, 0] + 5, shown.masks[:7, 0].argmax(axis=1))


def test_prompts_are_those_of_training(
    coco_set: Callable[..., Path], option: Callable[..., Any], examined: Callable[..., Examination]
) -> None:
    from lora_sam.data.transforms import points_to_input_frame
    from lora_sam.training.examples import TrainingExamples

    examination = examined(coco_set(), max_objects_per_image=1)
    source, prompt = examination.sources["train"], option("prompt/point")
    augmentation = option("augmentation/none")
    limits = {"frame": Frame(64, square=False), "seed": 3, "max_objects": 1}
    for index in range(4):
        example = TrainingExamples(source, prompt, augmentation, **limits)[0, index]
        _, shown = first_prompts(prompt, source[index], 3, examination.max_objects)
        assert len(shown) == 1
        assert shown.points is not None
        assert np.array_equal(points_to_input_frame(shown.points, (48, 64), Frame(64, square=False)), example.points)


def test_overview_and_examples(
    coco_set: Callable[..., Path], examined: Callable[..., Examination], option: Callable[..., Any]
) -> None:
    def edit(content: Any, root: Path) -> None:
        for entry in content["annotations"][:12:2]:
            entry.update(square(6, 10, 3, 2))
        (root / "images/train/11.png").unlink()

    examination = examined(coco_set(edit))
    prompt = option("prompt/box")
    sheet = overview(examination, prompt, 0, 8)
    assert [split for split, _ in sheet] == ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    assert sheet[0][1].text == "64x48, 2 objects"
    cases = examples(examination, prompt, 0)
    assert {name: len(pictures) for name, pictures in cases.items()} == {"missing_file": 0, "tiny_mask": EXAMPLES}
    assert cases["tiny_mask"][0].text.startswith("images/train/0.png: object 0 has 6 pixels")

    class Gone:
        """A source whose files were removed while it was looked at."""

        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> Sample:
            raise DataError("gone")

    gone: dict[str, SampleSource] = dict.fromkeys(("train", "val", "test"), Gone())  # type: ignore[arg-type]
    assert overview(replace(examination, sources=gone), prompt, 0, 8) == []
    assert examples(replace(examination, sources=gone), prompt, 0)["tiny_mask"] == []


def test_page_of_what_cannot_be_opened(coco_set: Callable[..., Path], examined: Callable[..., Examination]) -> None:
    root = coco_set()
    (root / "annotations/instances_train.json").write_text("{")
    examination = examined(root)
    words = {"name": "coco", "root": str(root), "prompt": "boxes"}
    page = check_html(examination, **words, strict=False, sheet=[], examples={})
    assert "coco should be mended first" in page
    assert "is not valid JSON" in page
    assert "Contact sheet" not in page
    assert page == check_html(examination, **words, strict=False, sheet=[], examples={})


def test_bins_of_a_histogram() -> None:
    drawn = histogram("sizes", "pixels", "images", [("train", "train", [1, 1, 2, 9])], [0.5, 1.5, 2.5])
    (path,) = [part.get("d") for part in drawn.iter("path")]
    heights = {float(corner.split(",")[1]) for corner in str(path).removeprefix("M").split()}
    assert len(heights) == 2  # both bins hold two: the last one what lies beyond it, too
