"""Overlay strips: layout, colours and what is drawn where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_sam.core.errors import TrainingError
from lora_sam.core.painting import FILL, PALETTE, paint, panel_size
from lora_sam.core.structures import Sample
from lora_sam.report.overlays import overlay_strip, write_overlays

MARGIN, GAP, LABEL = 12, 8, 25


def sample_of(height: int, width: int, brightness: int = 200) -> Sample:
    masks = np.zeros((1, height, width), np.bool_)
    masks[0, height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = True
    return Sample("a.png", np.full((height, width, 3), brightness, np.uint8), masks, ("1",))


@pytest.mark.parametrize(
    ("image", "panel"),
    [
        ((512, 512), (512, 512)),
        ((256, 256), (512, 512)),
        ((257, 200), (257, 200)),
        ((100, 30), (500, 150)),
        ((520, 696), (383, 512)),
        ((3000, 4000), (384, 512)),
        ((4000, 2), (512, 1)),
        ((1, 1), (512, 512)),
    ],
)
def test_panel_size(image: tuple[int, int], panel: tuple[int, int]) -> None:
    assert panel_size(*image) == panel


def test_four_panels_show_image_truth_base_and_tuned() -> None:
    sample = sample_of(512, 512)
    nothing, everything = np.zeros_like(sample.masks), np.ones_like(sample.masks)
    strip = overlay_strip(sample, nothing, everything, "caption")
    pixels = np.asarray(strip)
    assert strip.mode == "RGB"
    assert strip.width == 2 * MARGIN + 4 * 512 + 3 * GAP
    panels = [
        pixels[MARGIN + LABEL : MARGIN + LABEL + 512, MARGIN + k * 520 : MARGIN + k * 520 + 512] for k in range(4)
    ]
    colour = np.array(PALETTE[0])
    filled = np.round(200 + FILL * (colour - 200))
    assert (panels[0] == 200).all()
    assert (panels[1][256, 256] == filled).all()
    assert (panels[1][10, 10] == 200).all()
    assert (panels[2] == 200).all()
    assert (panels[3][10, 10] == filled).all()
    # labels above all panels and the caption below have ink
    for k in range(4):
        assert pixels[MARGIN : MARGIN + LABEL, MARGIN + k * 520 : MARGIN + k * 520 + 60].min() < 100
    assert pixels[MARGIN + LABEL + 512 + 2 :].min() < 150


def test_contours_are_solid_inside_the_object() -> None:
    sample = sample_of(40, 40)
    painted = paint(sample.image, sample.masks, np.array([0]))
    assert (painted[10, 10:30] == PALETTE[0]).all()
    assert (painted[11, 10:30] == PALETTE[0]).all()
    assert not (painted[12, 12:28] == PALETTE[0]).all(axis=1).any()
    assert (painted[9] == 200).all()


def test_colours_repeat_by_object_and_later_ones_are_on_top() -> None:
    photograph = np.zeros((30, 30, 3), np.uint8)
    masks = np.zeros((9, 30, 30), np.bool_)
    masks[1, :4, :4] = True
    masks[8, 10:14, 10:14] = True  # 8 = 1 modulo 7
    painted = paint(photograph, masks, np.arange(9))
    assert (painted[0, 0] == PALETTE[1]).all()
    assert (painted[10, 10] == PALETTE[1]).all()
    overlap = np.ones((2, 30, 30), np.bool_)
    assert (paint(photograph, overlap, np.array([1, 0]))[0, 0] == PALETTE[0]).all()


def test_small_objects_are_drawn_over_large_ones() -> None:
    masks = np.zeros((2, 512, 512), np.bool_)
    masks[0, 200:300, 200:300] = True
    masks[1] = True
    sample = Sample("a.png", np.full((512, 512, 3), 200, np.uint8), masks, ("1", "2"))
    pixels = np.asarray(overlay_strip(sample, masks, masks, ""))
    assert (pixels[MARGIN + LABEL + 200, MARGIN + 520 + 250] == PALETTE[0]).all()


def test_thin_objects_survive_shrinking() -> None:
    masks = np.zeros((1, 5120, 5120), np.bool_)
    masks[0, 2000, 1000:3000] = True
    painted = paint(np.zeros((512, 512, 3), np.uint8), masks, np.array([0]))
    assert (painted[200, 110:290] == PALETTE[0]).all()
    assert (painted[202] == 0).all()


def test_dark_images_are_brightened_and_keep_their_hue() -> None:
    dark = sample_of(512, 512, 0)
    dark.image[:] = (40, 20, 0)
    pixels = np.asarray(overlay_strip(dark, dark.masks, dark.masks, ""))
    assert pixels[MARGIN + LABEL + 5, MARGIN + 5].tolist() == [200, 100, 0]
    black = sample_of(512, 512, 0)
    pixels = np.asarray(overlay_strip(black, black.masks, black.masks, ""))
    assert pixels[MARGIN + LABEL + 5, MARGIN + 5].tolist() == [0, 0, 0]


@pytest.mark.parametrize("caption", ["best: " + "very/" * 200 + "long.png\nsecond", "W" * 100 + "i" * 400 + "W" * 100])
def test_long_captions_stay_inside_and_narrow_images_keep_their_labels_apart(caption: str) -> None:
    sample = sample_of(400, 10)
    strip = overlay_strip(sample, sample.masks, sample.masks, caption)
    pixels = np.asarray(strip)
    assert strip.width >= 4 * 100
    assert (pixels[:, -MARGIN:] == 255).all()
    assert (pixels[-MARGIN // 2 :] == 255).all()


def test_captions_are_reduced_to_what_the_font_can_show() -> None:
    sample = sample_of(100, 100)
    strips = [
        overlay_strip(sample, sample.masks, sample.masks, caption).tobytes()
        for caption in ("Zürich é → \u7d30", "Zurich e -> ?", "Zurich e -> !")
    ]
    assert strips[0] == strips[1]
    assert strips[0] != strips[2]


def test_masks_of_another_shape_are_our_own_mistake() -> None:
    sample = sample_of(20, 20)
    with pytest.raises(AssertionError, match=r"masks \(2, 20, 20\) for objects \(1, 20, 20\)"):
        overlay_strip(sample, np.ones((2, 20, 20), np.bool_), sample.masks, "")


def test_writes_three_pngs(tmp_path: Path) -> None:
    sample = sample_of(64, 64)
    strip = overlay_strip(sample, sample.masks, sample.masks, "best: a.png")
    paths = write_overlays(tmp_path / "overlays", {"best": strip, "median": strip, "worst": strip})
    assert [path.name for path in paths] == ["best.png", "median.png", "worst.png"]
    assert sorted(path.name for path in (tmp_path / "overlays").iterdir()) == ["best.png", "median.png", "worst.png"]
    with Image.open(paths[0]) as back:
        assert back.format == "PNG"
        assert np.array_equal(np.asarray(back), np.asarray(strip))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "overlays").write_text("a file")
    with pytest.raises(TrainingError, match=r"cannot write .*best\.png"):
        write_overlays(tmp_path / "overlays", {"best": Image.new("RGB", (2, 2))})
