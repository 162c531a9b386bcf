"""Number of clicks: the protocol, step by step, with predictors whose answers are known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.structures import Masks, Prompts, Sample
from lora_sam.evaluation.clicks import clicks_to_reach, iou_after_clicks


def sample() -> Sample:
    masks = np.zeros((3, 40, 60), np.bool_)
    masks[0, 5:15, 5:15] = True
    masks[1, 20:36, 20:36] = True
    masks[2, 2:10, 40:58] = True
    return Sample("a.png", np.zeros((40, 60, 3), np.uint8), masks, ("1", "2", "3"))


@dataclass
class Growing:
    """Finds an object by its first click, and of its rows a share for each click: the last row with the last click."""

    sample: Sample
    clicks_needed: tuple[int, ...]
    asked: list[Prompts] = field(default_factory=list)

    def predict(self, image: NDArray[np.uint8], prompts: Prompts) -> Masks:
        self.asked.append(prompts)
        assert prompts.points is not None
        masks = np.zeros((len(prompts), 40, 60), np.bool_)
        low_res = np.zeros((len(prompts), 4, 4), np.float32)
        for row, points in enumerate(prompts.points):
            x, y = points[0]
            (index,) = [n for n, mask in enumerate(self.sample.masks) if mask[int(y), int(x)]]
            rows = np.flatnonzero(self.sample.masks[index].any(axis=1))
            shown = rows[: round(len(rows) * min(1, len(points) / self.clicks_needed[index]))]
            masks[row, shown] = self.sample.masks[index, shown]
            low_res[row] = 100 * index + len(points)
        return Masks(masks, np.ones(len(prompts), np.float32), low_res)


def test_a_perfect_predictor_needs_one_click() -> None:
    predictor = Growing(sample(), (1, 1, 1))
    iou = iou_after_clicks(predictor, sample(), most=5)  # type: ignore[arg-type]
    assert np.array_equal(iou, np.ones((3, 5)))
    assert len(predictor.asked) == 1
    assert clicks_to_reach(iou, 0.9).tolist() == [1, 1, 1]


def test_a_hopeless_predictor_needs_all() -> None:
    class Blind:
        def predict(self, image: NDArray[np.uint8], prompts: Prompts) -> Masks:
            count = len(prompts)
            return Masks(
                np.zeros((count, 40, 60), np.bool_), np.ones(count, np.float32), np.zeros((count, 4, 4), np.float32)
            )

    iou = iou_after_clicks(Blind(), sample(), most=6)  # type: ignore[arg-type]
    assert np.array_equal(iou, np.zeros((3, 6)))
    assert clicks_to_reach(iou, 0.85).tolist() == [6, 6, 6]


def test_clicks_until_each_is_done() -> None:
    predictor = Growing(sample(), (1, 4, 2))
    iou = iou_after_clicks(predictor, sample(), most=7, until=0.9)  # type: ignore[arg-type]
    np.testing.assert_allclose(iou[0], 1)
    np.testing.assert_allclose(iou[1], [0.25, 0.5, 0.75, 1, 1, 1, 1])
    np.testing.assert_allclose(iou[2], [0.5, 1, 1, 1, 1, 1, 1])
    assert clicks_to_reach(iou, 0.75).tolist() == [1, 3, 2]
    assert clicks_to_reach(iou, 0.76).tolist() == [1, 4, 2]
    # who is done is asked no more
    assert [len(prompts) for prompts in predictor.asked] == [3, 2, 1, 1]
    assert [prompts.points.shape[1] for prompts in predictor.asked if prompts.points is not None] == [1, 2, 3, 4]


def test_the_last_mask_and_all_clicks_are_given() -> None:
    predictor = Growing(sample(), (1, 4, 2))
    iou_after_clicks(predictor, sample(), most=7)  # type: ignore[arg-type]
    first, second, third, _ = predictor.asked
    assert first.mask_inputs is None
    assert second.mask_inputs is not None
    assert third.mask_inputs is not None
    assert second.mask_inputs[:, 0, 0].tolist() == [101, 201]  # objects 1 and 2 after one click
    assert third.mask_inputs[:, 0, 0].tolist() == [102]
    assert third.points is not None
    assert second.points is not None
    assert third.labels is not None
    assert np.array_equal(third.points[0, :2], second.points[0])
    assert third.labels[0].tolist() == [1, 1, 1]
    # of rows and columns 20 to 35 the upper half is found after two clicks; four pixels from every edge of the rest
    assert third.points[0, 2].tolist() == [23.5, 31.5]


def test_too_much_is_corrected_by_a_background_click() -> None:
    @dataclass
    class Everything:
        labels: list[list[int]] = field(default_factory=list)

        def predict(self, image: NDArray[np.uint8], prompts: Prompts) -> Masks:
            assert prompts.labels is not None
            self.labels.append(prompts.labels[0].tolist())
            count = len(prompts)
            return Masks(
                np.ones((count, 40, 60), np.bool_), np.ones(count, np.float32), np.zeros((count, 4, 4), np.float32)
            )

    predictor = Everything()
    iou_after_clicks(predictor, sample(), most=3)  # type: ignore[arg-type]
    assert predictor.labels == [[1], [1, 0], [1, 0, 0]]
