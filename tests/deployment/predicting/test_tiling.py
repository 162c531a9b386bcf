"""Large images in tiles, and classes: which are cut, what becomes of prompts and names, and what is too large."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lora_sam.core.crops import Crop
from lora_sam.core.errors import ConfigError, DataError
from lora_sam.core.predictor import AllMasks
from lora_sam.data.reading.image_file import read_up_to
from lora_sam.data.reading.images import image_size, read_image
from lora_sam.deployment.predicting.found import FoundImage, objects_from, objects_of_crops
from lora_sam.deployment.predicting.output import open_output
from lora_sam.deployment.predicting.tiling import NOT_TILED, Tiles, Tiling, tiling, tiling_of
from lora_sam.deployment.predicting.writers import semantic
from lora_sam.predictors.automatic import AutomaticMasks
from lora_sam.predictors.class_head import ClassHead

from .conftest import Boxes
from .test_work import coco, done, output_of, work_of

TILED = Tiling(32, Tiles(32, 8))


@pytest.mark.parametrize(
    ("tile", "halo", "trained", "above", "side", "shared"),
    [
        ("auto", None, 640, 1280, 640, 80),
        ("auto", None, None, 2048, 1024, 128),
        ("auto", 16, 640, 1280, 640, 16),
        ("off", None, 640, None, 640, 80),
        (256, None, 640, 256, 256, 32),
    ],
)
def test_which_images_are_cut(
    tile: Any, halo: int | None, trained: int | None, above: int | None, side: int, shared: int
) -> None:
    made = tiling(tile, halo, trained=trained, image_size=512)
    assert made == Tiling(above, Tiles(side, shared))
    assert made == tiling_of({"training_side": trained, "image_size": 512}, tile, halo)
    if above is None:
        assert made.of((10**5, 10**5)) is None
        assert made.to_json() == {}
    else:
        assert made.of((above, 5)) is None
        assert made.of((5, above + 1)) == Tiles(side, shared)


@pytest.mark.parametrize(("tile", "above", "side"), [("auto", 256, 256), ("off", None, 256), (512, 512, 512)])
def test_images_are_cut_as_those_of_the_training_were(tile: Any, above: int | None, side: int) -> None:
    """A model that learned objects in tiles of 256 pixels would see them half as large in an image of 512."""
    facts = {"training_side": 256, "training_tile": 256, "image_size": 512}
    assert tiling_of(facts, tile) == Tiling(above, Tiles(side, side // 8))


@pytest.mark.parametrize(
    ("tile", "halo", "message"),
    [
        (16, None, r"tile = 16: must be at least 32 pixels, auto or off"),
        (64, 32, r"halo = 32: must be less than half of a tile of 64 pixels, such as 8"),
    ],
)
def test_tiles_that_cannot_be(tile: int, halo: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiling(tile, halo, trained=None, image_size=512)


def test_prompts_get_the_masks_that_they_get_without_tiles(folder: Path) -> None:
    whole, _ = done(work_of(folder, output_of(folder)))
    before = (folder.parent / "out" / "coco.json").read_text()
    other = folder.parent / "again"
    cut, predictor = done(work_of(folder, open_output(str(other), "x", {"a": 2}, overwrite=False), tiling=TILED))
    assert cut.counts == whole.counts
    assert json.loads((other / "coco.json").read_text())["annotations"] == json.loads(before)["annotations"]
    assert {len(seen) for seen in predictor.seen} == {30 * 32 * 3}  # windows of the tile's width


def test_larger_images_are_read_only_in_tiles(folder: Path) -> None:
    outcome, _ = done(work_of(folder, output_of(folder), max_pixels=1000))
    assert set(outcome.failures) == {"a.png", "b.jpg", "deep/c.tif"}
    assert "cut it into tiles with tile=1024" in outcome.failures["a.png"]
    outcome, _ = done(work_of(folder, output_of(folder), max_pixels=1000, tiling=TILED))
    assert outcome.failures == {}
    assert coco(folder) == {"a.png": 1, "b.jpg": 2, "deep/c.tif": 1}


def test_the_limit_of_reading_is_of_the_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((8100, 8000), np.uint8)).save(path)
    with pytest.raises(DataError, match="at most 64 megapixels are read"):
        image_size(path)
    with read_up_to(70 * 10**6):
        assert image_size(path) == (8100, 8000)
    with pytest.raises(DataError, match="at most 64 megapixels are read"):
        read_image(path)


class Discs(Boxes):
    """Finds what has the grey of the point, in tiles as in whole images."""

    def predict_all(self, image: NDArray[np.uint8], prompts: Any, **options: Any) -> Any:
        self.seen.append(image.tobytes())
        columns, rows = prompts.points[:, 0].astype(int).T
        grey = image[rows, columns, 0]
        logits = np.where(image[None, :, :, 0] == grey[:, None, None], 9.0, -9.0).astype(np.float32)
        scores = np.where(grey > 0, 0.95, 0).astype(np.float32)
        return AllMasks(logits[:, None], scores[:, None], np.zeros((len(grey), 1, 1, 1), np.float32))

    def embedding(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The grey of 64 x 64 cells of the input frame."""
        side = max(image.shape[:2])
        frame = np.zeros((side, side), np.float32)
        frame[: image.shape[0], : image.shape[1]] = image[:, :, 0]
        rows = np.linspace(0, side, 65).astype(int)[:-1]
        return frame[np.ix_(rows, rows)][None, None]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    root.mkdir()
    image = np.zeros((90, 150), np.uint8)
    rows, columns = np.mgrid[:90, :150]
    for number, (y, x) in enumerate(((20, 20), (20, 62), (70, 100), (45, 140), (60, 40))):
        image[(rows - y) ** 2 + (columns - x) ** 2 <= 81] = 60 + 40 * number
    Image.fromarray(np.repeat(image[:, :, None], 3, 2)).save(root / "a.png")
    return root


def test_objects_without_prompts_are_found_once_and_named(large: Path) -> None:
    head = ClassHead(("dark", "light"), np.array([[-1, 0], [1, 0]], np.float32), np.array([150, -150], np.float32))
    (large.parent / "boxes.csv").write_text("image,x1,y1,x2,y2\na,2,2,10,10\n")
    work = work_of(
        large, output_of(large), ("coco", "semantic"), prompts=None, automatic=AutomaticMasks(points_per_side=16),
        tiling=Tiling(64, Tiles(64, 24)), head=head, categories={1: "dark", 2: "light"},
    )  # fmt: skip
    outcome, _ = done(work, Discs())
    assert outcome.counts == {"a.png": 5}
    content = json.loads((large.parent / "out" / "coco.json").read_text())
    assert [one["name"] for one in content["categories"]] == ["dark", "light"]
    truth = np.asarray(Image.open(large / "a.png"))[:, :, 0]
    assert {one["area"] for one in content["annotations"]} == {
        int((truth == grey).sum()) for grey in (60, 100, 140, 180, 220)
    }
    for one in content["annotations"]:
        x, y, w, h = one["bbox"]
        grey = truth[int(y + h // 2), int(x + w // 2)]
        assert one["category_id"] == (2 if grey > 150 else 1)
    classes = np.asarray(Image.open(large.parent / "out" / "semantic" / "a.png"))
    np.testing.assert_array_equal(classes, np.where(truth == 0, 0, np.where(truth > 150, 2, 1)))
    listed = (large.parent / "out" / "semantic" / "classes.txt").read_text()
    assert listed == "0 background\n1 dark\n2 light\n"


def test_crops_and_masks_make_the_same_objects(found: Callable[..., FoundImage], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((5, 23, 31)) > 0.6
    masks[2] = False
    masks[3, :, :] = True
    scores = [0.9, 0.8, 0.7, 0.6, 0.5]
    told = (["a"] * 5, ["1"] * 5, [0.5] * 5)
    whole = objects_from(masks, scores, *told)
    assert objects_of_crops([Crop.of(mask) for mask in masks], (23, 31), scores, *told) == whole
    image = found(masks)
    present = masks[[0, 1, 3, 4]]
    for index, mask in enumerate(present):
        np.testing.assert_array_equal(image.mask_in_box(index), mask[image.window(index)])
    for step in (1, 2, 3, 7):
        np.testing.assert_array_equal(image.some_masks(9, step), present[:, ::step, ::step])
    np.testing.assert_array_equal(image.some_masks(1), masks[3:4])


def test_category_0_is_no_background(found: Callable[..., FoundImage], tmp_path: Path) -> None:
    masks = np.zeros((2, 8, 8), np.bool_)
    masks[0, :4], masks[1, 3:] = True, True
    image = found(masks, [0.5, 0.9], categories=["zero", "seven"])
    categories = {7: "seven", 0: "zero"}
    (written,) = semantic.write(tmp_path, image, lambda: np.zeros((8, 8, 3), np.uint8), categories)
    classes = np.asarray(Image.open(tmp_path / written))
    assert classes[:3].tolist() == [[1] * 8] * 3
    assert classes[3:].tolist() == [[2] * 8] * 5
    semantic.finish(tmp_path, lambda: [image], categories)
    assert (tmp_path / "semantic" / "classes.txt").read_text() == "0 background\n1 zero\n2 seven\n"


@pytest.mark.parametrize("tiled", [False, True])
def test_an_image_without_objects_says_what_to_change(large: Path, tiled: bool) -> None:
    (large.parent / "boxes.csv").write_text("image,x1,y1,x2,y2\na,2,2,10,10\n")
    for path in large.iterdir():
        Image.fromarray(np.zeros((64, 96), np.uint8)).save(path)
    changes: dict[str, Any] = {"prompts": None, "categories": {1: "disc"}, "tiling": TILED if tiled else NOT_TILED}
    outcome, _ = done(work_of(large, output_of(large), **changes), Discs())
    assert outcome.scores == []
    assert outcome.nothing is not None
    assert "Set predicted_iou lower, give more points_per_side" in outcome.nothing
    # as what is skipped, too
    again, _ = done(work_of(large, output_of(large), **changes), Discs())
    assert again.nothing == outcome.nothing
