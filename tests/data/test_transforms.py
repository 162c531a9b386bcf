from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide

from lora_sam.core.frame import Frame
from lora_sam.core.mask_windows import MaskWindows
from lora_sam.core.structures import Prompts, tight_boxes
from lora_sam.data.transforms import (
    boxes_to_input_frame,
    logits_to_original,
    mask_inputs_to_input_frame,
    masks_to_input_frame,
    points_to_input_frame,
    preprocess,
    preprocess_array,
)

SIZES = [(48, 64), (64, 48), (50, 50), (31, 97), (200, 333), (64, 64), (1, 40)]


def padded(side: int) -> Frame:
    """The input frame of the first SAM."""
    return Frame(side, square=False)


def reference(image_size: int) -> Sam:
    """SAM's own pre- and post-processing; the three parts are not needed for it."""
    encoder = torch.nn.Identity()
    encoder.img_size = image_size
    return Sam(encoder, torch.nn.Identity(), torch.nn.Identity())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("image_size", [64, 112])
def test_preprocess_equals_segment_anything(size: tuple[int, int], image_size: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    resized = ResizeLongestSide(image_size).apply_image(image)
    expected = reference(image_size).preprocess(torch.as_tensor(resized).permute(2, 0, 1))
    assert padded(image_size).extent(size) == resized.shape[:2]
    pixels = preprocess(image, padded(image_size))
    assert pixels.dtype == torch.float32
    assert torch.equal(pixels, expected)
    height, width = resized.shape[:2]
    assert pixels[:, height:].count_nonzero() == pixels[:, :, width:].count_nonzero() == 0


def test_a_side_never_shrinks_to_nothing() -> None:
    assert padded(64).extent((1, 5000)) == (1, 64)
    assert preprocess(np.zeros((1, 5000, 3), np.uint8), padded(64)).shape == (3, 64, 64)


@pytest.mark.parametrize("size", SIZES)
def test_prompts_move_as_in_segment_anything(size: tuple[int, int]) -> None:
    reference = ResizeLongestSide(64)
    xy = np.random.default_rng(1).uniform(0, 40, (3, 2, 2)).astype(np.float32)
    np.testing.assert_allclose(points_to_input_frame(xy, size, padded(64)), reference.apply_coords(xy, size), rtol=1e-6)
    boxes = xy.reshape(3, 4)
    moved = boxes_to_input_frame(boxes, size, padded(64))
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, reference.apply_boxes(boxes, size), rtol=1e-6)
    several = boxes_to_input_frame(boxes.reshape(1, 3, 4), size, padded(64))
    np.testing.assert_array_equal(several, moved[None])
    np.testing.assert_array_equal(boxes_to_input_frame(boxes[0], size, padded(64)), moved[0])


@pytest.mark.parametrize("size", SIZES)
def test_logits_return_as_in_segment_anything(size: tuple[int, int]) -> None:
    logits = torch.randn(19, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    expected = reference(112).postprocess_masks(logits, padded(112).extent(size), size)[:, 0]
    assert torch.equal(logits_to_original(logits, size, padded(112)), expected)
    assert torch.equal(logits_to_original(logits[:, 0], size, padded(112)), expected)
    half = logits_to_original(logits.bfloat16(), size, padded(112))
    assert half.dtype == torch.float32
    assert logits_to_original(logits[:1], size, padded(112)).shape == (1, *size)


def test_gradients_flow_through_the_way_back() -> None:
    logits = torch.zeros(17, 4, 4, requires_grad=True)
    logits_to_original(logits, (20, 30), padded(32)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.count_nonzero() > 0


def brute_force(mask: np.ndarray, image_size: int) -> np.ndarray:
    """Every output pixel from its definition: nearest source pixel, or mean over the area it covers."""
    extent = padded(image_size).extent(mask.shape)
    if image_size >= max(mask.shape):
        rows, columns = (
            [int((2 * index + 1) * length / (2 * side)) for index in range(side)]
            for side, length in zip(extent, mask.shape, strict=True)
        )
        return mask[np.ix_(rows, columns)].astype(float)
    weights = []
    for side, length in zip(extent, mask.shape, strict=True):
        low = np.arange(side)[:, None] * length / side
        pixel = np.arange(length)[None]
        overlap = np.minimum(pixel + 1, low + length / side) - np.maximum(pixel, low)
        weights.append(np.clip(overlap, 0, None) * side / length)
    return weights[0] @ mask @ weights[1].T


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 60), st.sampled_from([16, 32, 48]), st.floats(0.02, 1))
def test_targets_equal_their_definition(seed: int, height: int, width: int, image_size: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.bool_)
    y0, x0 = int(rng.integers(height)), int(rng.integers(width))
    window = mask[y0 : int(rng.integers(y0, height)) + 1, x0 : int(rng.integers(x0, width)) + 1]
    window[...] = rng.random(window.shape) < share
    mask[y0, x0] = True
    target = masks_to_input_frame(mask[None], padded(image_size))
    assert target.dtype == torch.bool
    assert target.shape == (1, image_size, image_size)
    assert target.any()
    covered = brute_force(mask, image_size)
    inner = target[0, : covered.shape[0], : covered.shape[1]].numpy()
    assert target.sum() == inner.sum()
    clear = np.abs(covered - 0.5) > 1e-4  # ties may fall either way
    if (covered[clear] > 0.5).any():
        np.testing.assert_array_equal(inner[clear], covered[clear] > 0.5)
    elif covered.max() < 0.4999:
        edge = np.abs(covered - covered.max() / 2) < 1e-4
        np.testing.assert_array_equal(inner[~edge], covered[~edge] > covered.max() / 2)


def test_thin_objects_keep_their_shape_when_shrunk() -> None:
    masks = np.zeros((2, 256, 256), np.bool_)
    masks[0, 101, 40:200] = True  # a line of one pixel
    masks[1, 13, 250] = True  # a single pixel
    target = masks_to_input_frame(masks, padded(32))
    assert target[0].nonzero()[:, 0].unique().tolist() == [12]
    assert target[0].sum() == 20
    assert target[1].nonzero().tolist() == [[1, 31]]


def test_pixels_that_are_covered_exactly_by_half_are_kept_and_less_is_not() -> None:
    masks = np.zeros((1, 64, 64), np.bool_)
    masks[0, 10:21, 8] = True  # a line of one pixel, half of those that it becomes; its end covers a quarter of one
    target = masks_to_input_frame(masks, padded(32))[0]
    assert target.nonzero().tolist() == [[row, 4] for row in range(5, 10)]


def test_enlarged_and_equal_sizes_are_exact() -> None:
    masks = np.random.default_rng(0).random((2, 16, 8)) < 0.5
    masks[:, 0, 0] = True
    assert torch.equal(masks_to_input_frame(masks, padded(16))[:, :, :8], torch.from_numpy(masks))
    doubled = masks.repeat(2, axis=1).repeat(2, axis=2)
    assert torch.equal(masks_to_input_frame(masks, padded(32))[:, :, :16], torch.from_numpy(doubled))
    nearest = torch.nn.functional.interpolate(torch.from_numpy(masks)[None].float(), (48, 24), mode="nearest-exact")
    assert torch.equal(masks_to_input_frame(masks, padded(48))[:, :, :24], nearest[0].bool())


def test_targets_of_photographs_equal_their_definition() -> None:
    rows, columns = np.mgrid[:1024, :1365]
    mask = np.hypot(rows - 500, 0.7 * (columns - 600)) < 240 + 20 * np.sin(columns / 9)
    covered = brute_force(mask, 1024)
    inner = masks_to_input_frame(mask[None], padded(1024))[0, : covered.shape[0]].numpy()
    clear = np.abs(covered - 0.5) > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(inner[clear], covered[clear] > 0.5)


@pytest.mark.parametrize("square", [False, True])
def test_what_normalises_is_what_the_frame_says(square: bool) -> None:
    image = np.full((20, 30, 3), (10, 20, 40), np.uint8)
    frame = Frame(30, square=square, mean=(4.0, 5.0, 6.0), std=(2.0, 3.0, 4.0))
    pixels = preprocess_array(image, frame)
    height = 30 if square else 20
    np.testing.assert_array_equal(pixels[:, :height], np.broadcast_to([[[3.0]], [[5.0]], [[8.5]]], (3, height, 30)))
    assert not pixels[:, height:].any()


@pytest.mark.parametrize(
    ("size", "side", "square"),
    [
        ((40, 64), 64, False), ((64, 40), 64, False), ((64, 40), 64, True), ((32, 64), 64, True),
        ((40, 7), 64, False), ((7, 40), 64, False), ((40, 7), 64, True), ((7, 40), 64, True),
        ((48, 32), 48, True), ((32, 48), 48, True),  # the centre of a pixel lies on the edge of two
    ],
)  # fmt: skip
def test_an_axis_that_keeps_its_length_is_not_changed(size: tuple[int, int], side: int, square: bool) -> None:
    """And one that grows takes the nearest pixel: the whole columns and rows of the mask come back."""
    frame = Frame(side, square=square)
    masks = np.random.default_rng(0).random((2, *size)) < 0.5
    masks[:, 0, 0] = True
    target = masks_to_input_frame(masks, frame).numpy()
    height, width = extent = frame.extent(size)
    rows, columns = (
        [(2 * place + 1) * length // (2 * scaled) for place in range(scaled)]
        for length, scaled in zip(size, extent, strict=True)
    )
    np.testing.assert_array_equal(target[:, :height, :width], masks[:, rows][:, :, columns])
    assert target[:, height:].sum() == target[:, :, width:].sum() == 0


def test_windows_of_masks_make_the_same_targets() -> None:
    masks = np.zeros((3, 40, 50), np.bool_)
    masks[0, 3:20, 40:] = masks[1, 39, 0] = masks[2, ::2, 5:9] = True
    windows = MaskWindows.of(masks, tight_boxes(masks))
    for side in (25, 50, 120):
        whole, apart = (masks_to_input_frame(one, padded(side)) for one in (masks, windows))
        assert torch.equal(whole, apart)


def test_rough_masks_are_scaled_whole_where_their_frame_has_no_padding() -> None:
    """Into the decoder's frame at once; with padding what is below or beside the image is cut off first."""
    rough = np.zeros((2, 8, 8), np.float32)
    rough[0, :4] = rough[1, :, :4] = 1
    boxes = np.array([[0, 0, 4, 4]] * 2, np.float32)
    frame = Frame(64, square=True)  # 16 cells of masks
    plain = mask_inputs_to_input_frame(Prompts(boxes=boxes, mask_inputs=rough), (10, 20), frame)
    assert plain is not None
    assert (plain[0, :7].min(), plain[0, 9:].max()) == (1, 0)
    assert (plain[1, :, :7].min(), plain[1, :, 9:].max()) == (1, 0)
    cut = mask_inputs_to_input_frame(Prompts(boxes=boxes, mask_inputs=rough, masks_padded=True), (10, 20), frame)
    assert cut is not None
    assert cut[0].min() == 1  # all that the image has of it
    assert (cut[1, :, :7].min(), cut[1, :, 9:].max()) == (1, 0)
    padded_too = mask_inputs_to_input_frame(
        Prompts(boxes=boxes, mask_inputs=rough, masks_padded=True), (10, 20), padded(64)
    )
    assert padded_too is not None
    np.testing.assert_array_equal(padded_too, plain)


def test_several_masks_a_prompt_are_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="one mask per prompt"):
        logits_to_original(torch.zeros(2, 3, 8, 8), (10, 20), padded(32))
    assert logits_to_original(torch.zeros(2, 1, 8, 8), (10, 20), padded(32)).shape == (2, 10, 20)
