from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_sam.core.structures import Sample
from lora_sam.prompts import BoxOrPoint, BoxPrompt, PointPrompt, tight_boxes


def prompt(pixels: float = 0.0, fraction: float = 0.0, evaluation: bool = False) -> BoxPrompt:
    return BoxPrompt(jitter="uniform", jitter_pixels=pixels, jitter_fraction=fraction, jitter_evaluation=evaluation)


def squares(size: tuple[int, int] = (100, 200), *windows: tuple[int, int, int, int]) -> Sample:
    masks = np.zeros((len(windows), *size), np.bool_)
    for mask, (x0, y0, x1, y1) in zip(masks, windows, strict=True):
        mask[y0:y1, x0:x1] = True
    return Sample("a.png", np.zeros((*size, 3), np.uint8), masks, tuple(str(index) for index in range(len(windows))))


SAMPLE = squares((100, 200), (40, 30, 60, 70), (0, 0, 200, 100), (199, 99, 200, 100))


def test_tight_boxes_are_in_the_continuous_frame() -> None:
    mask = np.zeros((2, 8, 9), np.bool_)
    mask[0, 3, 5] = True
    mask[1, 1, 2] = mask[1, 6, 7] = True
    boxes = tight_boxes(mask)
    assert boxes.dtype == np.float32
    assert boxes.tolist() == [[5, 3, 6, 4], [2, 1, 8, 7]]
    assert tight_boxes(SAMPLE.masks).tolist() == [[40, 30, 60, 70], [0, 0, 200, 100], [199, 99, 200, 100]]
    assert tight_boxes(np.asfortranarray(SAMPLE.masks)).tolist() == tight_boxes(SAMPLE.masks).tolist()
    with pytest.raises(AssertionError, match="empty mask"):
        tight_boxes(np.zeros((1, 3, 3), np.bool_))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.01, 1))
def test_tight_boxes_hold_the_mask_and_nothing_smaller_does(seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((11, 14)) < share
    mask[5, 5] = True
    x0, y0, x1, y1 = tight_boxes(mask[None])[0].astype(int)
    assert mask[y0:y1, x0:x1].sum() == mask.sum()
    for side in (mask[y0, :], mask[y1 - 1, :], mask[:, x0], mask[:, x1 - 1]):
        assert side.any()


def test_evaluation_boxes_are_tight_unless_asked() -> None:
    tight = tight_boxes(SAMPLE.masks)
    np.testing.assert_array_equal(prompt(20, 0.5).evaluation_prompts(SAMPLE, 0).boxes, tight)
    moved = prompt(20, 0.5, evaluation=True)
    first = moved.evaluation_prompts(SAMPLE, 0)
    assert not np.array_equal(first.boxes, tight)
    np.testing.assert_array_equal(first.boxes, moved.evaluation_prompts(SAMPLE, 0).boxes)
    assert not np.array_equal(first.boxes, moved.evaluation_prompts(SAMPLE, 1).boxes)
    assert not np.array_equal(first.boxes, moved.evaluation_prompts(replace(SAMPLE, id="b.png"), 0).boxes)
    assert first.points is None


def test_training_boxes_depend_on_seed_epoch_and_id() -> None:
    jitter = prompt(5)
    first = jitter.training_prompts(SAMPLE, 0, 1).boxes
    np.testing.assert_array_equal(first, jitter.training_prompts(SAMPLE, 0, 1).boxes)
    for other in (
        jitter.training_prompts(SAMPLE, 0, 2),
        jitter.training_prompts(SAMPLE, 1, 1),
        jitter.training_prompts(replace(SAMPLE, id="b.png"), 0, 1),
    ):
        assert not np.array_equal(first, other.boxes)
    np.testing.assert_array_equal(prompt().training_prompts(SAMPLE, 0, 1).boxes, tight_boxes(SAMPLE.masks))


@pytest.mark.parametrize(("pixels", "fraction", "sideways", "upright"), [(6, 0, 6, 6), (0, 0.2, 4, 8), (3, 0.1, 5, 7)])
def test_each_side_moves_by_its_own_uniform_draw(
    pixels: float, fraction: float, sideways: float, upright: float
) -> None:
    sample = squares((100, 200), (40, 30, 60, 70))
    jitter = prompt(pixels, fraction)
    moves = np.stack([jitter.training_prompts(sample, 0, epoch).boxes[0] for epoch in range(600)]) - (40, 30, 60, 70)
    limits = np.array([sideways, upright, sideways, upright])
    assert (np.abs(moves) <= limits + 1e-4).all()
    assert (np.abs(moves).max(axis=0) > 0.97 * limits).all()
    np.testing.assert_allclose(moves.std(axis=0), limits / np.sqrt(3), rtol=0.08)
    assert (np.abs(moves.mean(axis=0)) < 0.12 * limits).all()
    correlation = np.corrcoef(moves.T) - np.eye(4)
    assert np.abs(correlation).max() < 0.15


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 300), st.floats(0, 1))
def test_boxes_stay_in_the_image_and_a_pixel_wide(epoch: int, pixels: float, fraction: float) -> None:
    boxes = prompt(pixels, fraction).training_prompts(SAMPLE, 0, epoch).boxes
    assert boxes is not None
    assert boxes.dtype == np.float32
    assert (boxes >= 0).all()
    assert (boxes <= (200, 100, 200, 100)).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 1 - 1e-4).all()


def ring(side: int = 41, outer: float = 18, inner: float = 12) -> Sample:
    y, x = np.mgrid[:side, :side] - side // 2
    distance = np.hypot(y, x)
    masks = np.zeros((2, 60, 80), np.bool_)
    masks[0, 5 : 5 + side, 20 : 20 + side] = (distance < outer) & (distance > inner)
    masks[1, 59, 79] = True
    return Sample("ring.png", np.zeros((60, 80, 3), np.uint8), masks, ("ring", "pixel"))


def test_the_evaluation_point_is_farthest_from_the_edge() -> None:
    sample = squares((50, 60), (10, 20, 31, 27), (0, 0, 60, 50))
    prompts = PointPrompt(farthest_share=0.0).evaluation_prompts(sample, 3)
    assert prompts.boxes is None
    assert prompts.points is not None
    assert prompts.labels is not None
    assert prompts.points.dtype == np.float32
    assert prompts.labels.tolist() == [[1], [1]]
    assert prompts.points[0, 0, 1] == 23.5  # the middle row of seven
    assert 13 < prompts.points[0, 0, 0] < 28
    # the border of the image is an edge: else every pixel of a mask that fills it would be as far
    assert np.abs(prompts.points[1, 0] - (30, 25)).max() <= 5.5


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_points_lie_on_the_object(share: float) -> None:
    sample = ring()
    source = PointPrompt(farthest_share=share)
    for epoch in range(20):
        prompts = source.training_prompts(sample, 0, epoch)
        assert prompts.points is not None
        assert prompts.points.shape == (2, 1, 2)
        for mask, (x, y) in zip(sample.masks, prompts.points[:, 0], strict=True):
            assert mask[int(y), int(x)]
        assert prompts.points[1, 0].tolist() == [79.5, 59.5]
    again = source.training_prompts(sample, 0, 19)
    assert again.points is not None
    assert again.points.tolist() == prompts.points.tolist()
    drawn = {tuple(source.training_prompts(sample, 0, epoch).points[0, 0].tolist()) for epoch in range(20)}  # type: ignore[index]
    assert (len(drawn) == 1) == (share == 1.0)


def test_boxes_on_some_images_and_points_on_others() -> None:
    source = BoxOrPoint(box=prompt(), point=PointPrompt(farthest_share=0.5), point_share=0.3)
    samples = [replace(SAMPLE, id=f"{index}.png") for index in range(200)]
    for made in (
        [source.training_prompts(sample, 0, 1) for sample in samples],
        [source.evaluation_prompts(sample, 0) for sample in samples],
    ):
        points = sum(prompts.points is not None for prompts in made)
        assert all((prompts.points is None) != (prompts.boxes is None) for prompts in made)
        assert 40 <= points <= 80
    kinds = [source.training_prompts(SAMPLE, 0, epoch).boxes is None for epoch in range(50)]
    assert len(set(kinds)) == 2
    assert [source.training_prompts(SAMPLE, 0, epoch).boxes is None for epoch in range(50)] == kinds
    for share, absent in ((0.0, "points"), (1.0, "boxes")):
        assert getattr(replace(source, point_share=share).evaluation_prompts(SAMPLE, 0), absent) is None
