"""Which images are shown, and their files."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_sam.core.painting import PALETTE
from lora_sam.core.structures import Sample
from lora_sam.evaluation.scoring import Case
from lora_sam.report.overlays import overlay_strip, panels_of
from lora_sam.report.page import report_html
from lora_sam.report.pictures import FILE_LIMIT, choose_cases, data_uri, draw_cases, report_picture

Measured = Callable[[list[str]], Any]


def masks_for(place: int, sample: Sample) -> tuple[Any, Any]:
    return np.zeros_like(sample.masks), sample.masks


def opened(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGBA"))


def test_largest_median_smallest_then_evenly_between(measured: Measured) -> None:
    evaluation, _ = measured(list("abcdefgh"))
    # misses of 10 columns: c 0, f 1, a 2, g 2, e 3, h 3, d 4, b 6; the base misses 5
    chosen = choose_cases(evaluation)
    assert [(title, case.id) for title, case in chosen[:3]] == [
        ("largest gain", "c"),
        ("median gain", "h"),
        ("largest loss", "b"),
    ]
    assert len({case.id for _, case in chosen}) == len(chosen) == 6
    assert [title for title, _ in chosen[3:]] == sorted(title for title, _ in chosen[3:])
    named = evaluation.cases()
    assert [case.id for _, case in chosen[:3]] == [named[name].id for name in ("best", "median", "worst")]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_few_images_are_shown_once_each(measured: Measured, count: int) -> None:
    evaluation, source = measured(list("abcd")[:count])
    strips, pictures = draw_cases(evaluation, source, masks_for)
    assert sorted(picture.id for picture in pictures) == list("abcd")[:count]
    assert list(strips) == ["best", "median", "worst"]


def test_masks_are_asked_for_by_the_place_of_the_image(measured: Measured) -> None:
    evaluation, source = measured(list("dbca"))
    asked = []

    def noted(place: int, sample: Sample) -> tuple[Any, Any]:
        asked.append((place, sample.id))
        return masks_for(place, sample)

    _, pictures = draw_cases(evaluation, source, noted)
    assert sorted(asked) == list(enumerate("dbca"))
    assert [name for _, name in asked] == [picture.id for picture in pictures]


def test_pictures_show_base_tuned_and_truth(measured: Measured) -> None:
    evaluation, source = measured(["a"])
    strips, (picture,) = draw_cases(evaluation, source, masks_for)
    assert picture.size == (400, 500)
    base, tuned, truth = opened(picture.base), opened(picture.tuned), opened(picture.truth)
    assert base.shape == tuned.shape == truth.shape == (400, 500, 4)
    # enlarged tenfold: the first object covers rows and columns 50 to 149
    assert tuned[50, 100, :3].tolist() == list(PALETTE[0])
    assert base[50, 100, :3].tolist() == [200, 200, 200]
    assert truth[50, 100].tolist() == [255, 255, 255, 255]
    assert truth[49, 100].tolist() == [0, 0, 0, 200]
    assert truth[100, 100, 3] == truth[10, 10, 3] == 0
    panels = panels_of(strips["best"])
    assert list(panels) == ["image", "truth", "base", "tuned"]
    assert np.array_equal(np.asarray(panels["tuned"]), tuned[..., :3])


def test_narrow_images_lose_the_empty_part_of_their_column() -> None:
    masks = np.ones((1, 400, 10), np.bool_)
    sample = Sample("a", np.full((400, 10, 3), 50, np.uint8), masks, ("1",))
    strip = overlay_strip(sample, masks, masks, "")
    panel = np.asarray(panels_of(strip, 10)["base"])
    assert panel.shape == (400, 10, 3)
    assert not (panel == 255).all(axis=2).any()


def test_six_pictures_of_noise_stay_below_three_megabytes(contents: dict[str, Any]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    masks = np.zeros((1, 512, 512), np.bool_)
    masks[0, ::4] = True
    sample = Sample("noise.png", noise, masks, ("1",))
    strip = overlay_strip(sample, masks, ~masks, "")
    picture = report_picture("largest gain", Case("noise.png", 0, 1, 0.1, 0.2), sample, strip)
    assert picture.base.startswith(b"\xff\xd8")
    assert data_uri(picture.base).startswith("data:image/jpeg;base64,")
    assert max(len(picture.base), len(picture.tuned)) <= FILE_LIMIT
    assert len(report_html(**{**contents, "pictures": [picture] * 6}).encode()) < 3_000_000
