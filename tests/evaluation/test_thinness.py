"""Thin objects: skeletons, clDice, widths, and what a report says of them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, binary_opening

from lora_sam.core.structures import Sample
from lora_sam.evaluation.layout_parts import Thin
from lora_sam.evaluation.metrics import mask_iou
from lora_sam.evaluation.thinness import Thinness, cldice, skeleton, thinness_lines, width_of

SQUARE = np.ones((3, 3), bool)


def band(width: int, length: int = 60, at: int = 20) -> NDArray[np.bool_]:
    mask = np.zeros((64, 80), bool)
    mask[at : at + width, 10 : 10 + length] = True
    return mask


def by_definition(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The residues of the openings of all erosions (Lantuéjoul, 1978)."""
    found, eroded = np.zeros_like(mask), np.pad(mask, 4)
    found = np.zeros_like(eroded)
    while eroded.any():
        found |= eroded & ~binary_opening(eroded, SQUARE)
        eroded = binary_erosion(eroded, SQUARE)
    return found[4:-4, 4:-4]


@pytest.mark.parametrize("seed", range(5))
def test_the_skeleton_is_what_openings_leave_over(seed: int) -> None:
    noise = np.random.default_rng(seed).random((40, 50)) < 0.02 * (1 + seed)
    mask = binary_dilation(noise, SQUARE, iterations=1 + seed % 3)
    assert np.array_equal(skeleton(mask), by_definition(mask))
    assert not (skeleton(mask) & ~mask).any()


def test_a_gap_costs_its_length_and_a_wider_line_nothing() -> None:
    true = band(1)
    assert cldice(true, true) == 1
    gap = true.copy()
    gap[:, 30:45] = False
    assert cldice(gap, true) == pytest.approx(2 * 0.75 / 1.75)
    wider = band(3, at=19)
    assert cldice(wider, true) == 1
    assert mask_iou(wider, true) == pytest.approx(1 / 3)
    assert cldice(band(1, at=40), true) == 0
    assert cldice(np.zeros_like(true), true) == cldice(true, np.zeros_like(true)) == 0


@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 10])
def test_the_width_of_a_band(width: int) -> None:
    assert width_of(band(width)) == pytest.approx(width, abs=0.75)
    assert width_of(band(width)[20 : 20 + width]) == pytest.approx(width, abs=0.75), "outside the image is background"


def collected(*masks: NDArray[np.bool_], base: int, tuned: int) -> Thinness:
    """Two images of these objects; `base` and `tuned` predict them moved down by so many pixels."""
    found = Thinness()
    truth = np.stack(masks)
    for number in range(2):
        sample = Sample(str(number), np.zeros((64, 80, 3), np.uint8), truth, tuple(map(str, range(len(truth)))))
        for which, rows in (("base", base), ("tuned", tuned)):
            found.add(which, sample, np.roll(truth, rows, axis=1))
    return found


def test_what_is_reported_of_thin_objects() -> None:
    """A band of 3 px that is off by 2 px is wrong, though 0.0075 of the diagonal would let it pass."""
    report = collected(band(3), base=2, tuned=1).report(0)
    assert report is not None
    assert (report["objects"], report["of_objects"]) == (2, 2)
    assert report["width"] == pytest.approx(3, abs=0.75)
    assert (report["cldice"]["base"], report["cldice"]["tuned"]) == (0, 1)
    assert report["boundary_f1"]["base"] < 0.6
    assert report["boundary_f1"]["tuned"] == 1
    assert Thin.__annotations__.keys() == report.keys()
    first, second = thinness_lines(report)
    assert first.startswith("2 of 2 objects are thin (median width 3.5 px): clDice 0.000 -> 1.000 (+1.000 [+1.000, ")
    assert second.startswith("boundary F1 within a tenth of the width 0.")
    assert second.endswith("; too few images have them to trust the intervals.")
    report["cldice"]["independent"] = report["boundary_f1"]["independent"] = 10
    assert thinness_lines(report)[1].endswith("]).")


def test_other_objects_are_no_thin_ones() -> None:
    """Of a thin and a compact one half are thin; of one and two, or of none, too few for a report."""
    square = band(20, length=20)
    half = collected(band(2), square, base=0, tuned=0).report(0)
    assert half is not None
    assert (half["objects"], half["of_objects"]) == (2, 4)
    assert collected(band(2), square, band(15, length=30), base=0, tuned=0).report(0) is None
    assert collected(square, base=0, tuned=0).report(0) is None
    assert Thinness().report(0) is None
