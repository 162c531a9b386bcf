"""Images, prompts and masks of SAM 2, whose images are squeezed into a square: held against `Sam2Processor`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import Compose, Normalize, Resize, ToTensor
from transformers import Sam2ImageProcessor, Sam2Processor

from lora_sam.core.frame import PIXEL_STD, Frame
from lora_sam.core.structures import Prompts
from lora_sam.data.transforms import (
    boxes_to_input_frame,
    logits_to_original,
    mask_inputs_to_input_frame,
    masks_to_input_frame,
    points_to_input_frame,
    preprocess,
)

SIDE = 64
FRAME = Frame(SIDE, square=True)
SIZES = [(48, 64), (64, 48), (31, 97), (200, 133), (64, 64), (40, 300)]


@pytest.fixture(scope="module")
def processor() -> Any:
    side = {"height": SIDE, "width": SIDE}
    return Sam2Processor(Sam2ImageProcessor(size=side, mask_size={"height": SIDE // 4, "width": SIDE // 4}), SIDE)


def picture(size: tuple[int, int]) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    noise = np.random.default_rng(0).integers(0, 60, (*size, 3))
    return (noise + (rows * 90 // size[0] + columns * 100 // size[1])[..., None]).astype(np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_images_and_prompts_are_those_of_the_processor(size: tuple[int, int], processor: Any) -> None:
    image, draws = picture(size), np.random.default_rng(1)
    points = (draws.uniform(0, 1, (3, 2, 2)) * size[::-1]).astype(np.float32)
    corners = np.sort(draws.uniform(0, 1, (3, 2, 2)), axis=1) * size[::-1]
    boxes = corners.reshape(3, 4).astype(np.float32)
    theirs = processor(
        images=Image.fromarray(image),
        input_points=[points.tolist()],
        input_labels=[[[1, 1]] * 3],
        input_boxes=[boxes.tolist()],
        return_tensors="pt",
    )
    pixels = preprocess(image, FRAME)
    # it rounds to whole grey levels after scaling each axis
    assert (pixels - theirs["pixel_values"][0]).abs().max() <= 1.01 / min(PIXEL_STD)
    np.testing.assert_allclose(points_to_input_frame(points, size, FRAME), theirs["input_points"][0], rtol=1e-5)
    np.testing.assert_allclose(boxes_to_input_frame(boxes, size, FRAME), theirs["input_boxes"][0], rtol=1e-5)
    assert (pixels != 0).any(dim=0).float().mean() > 0.99  # nothing is padded


@pytest.mark.parametrize("size", SIZES)
def test_images_are_those_of_the_package_sam2_to_the_last_fraction(size: tuple[int, int]) -> None:
    """`ToTensor`, `Resize` and `Normalize` of torchvision, which `SAM2Transforms` is made of."""
    image = picture(size)
    steps = Compose([ToTensor(), Resize((SIDE, SIDE)), Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    assert (preprocess(image, FRAME) - steps(image)).abs().max() < 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_masks_return_as_from_the_processor(size: tuple[int, int], processor: Any) -> None:
    logits = torch.randn(19, 1, SIDE // 4, SIDE // 4, generator=torch.Generator().manual_seed(0))
    (expected,) = processor.post_process_masks([logits], [size], binarize=False)
    assert torch.equal(logits_to_original(logits, size, FRAME), expected[:, 0])


@pytest.mark.parametrize("size", SIZES)
def test_targets_cover_the_whole_square(size: tuple[int, int]) -> None:
    """Each axis on its own: one may shrink where the other grows."""
    mask = np.zeros((1, *size), np.bool_)
    mask[0, size[0] // 4 : size[0] * 3 // 4, size[1] // 3 :] = True
    target = masks_to_input_frame(mask, FRAME)[0].numpy()
    weights = []
    for length in size:
        low = np.arange(SIDE)[:, None] * length / SIDE
        overlap = np.minimum(np.arange(length) + 1, low + length / SIDE) - np.maximum(np.arange(length), low)
        weights.append(np.clip(overlap, 0, None) * SIDE / length)
    covered = weights[0] @ mask[0] @ weights[1].T
    clear = np.abs(covered - 0.5) > 0.26  # an enlarged edge takes the nearest pixel
    assert clear.mean() > 0.85
    np.testing.assert_array_equal(target[clear], covered[clear] > 0.5)
    assert target[SIDE // 2, -1]


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (30, 90)])
def test_rough_masks_of_a_frame_with_padding_are_squeezed_and_own_predictions_are_not(size: tuple[int, int]) -> None:
    cells = 32
    height, width = Frame(cells, square=False).extent(size)
    rough = np.full((1, cells, cells), -9, np.float32)
    rough[:, height // 2 : height, width // 2 : width] = 9  # the lower right quarter of the image
    prompts = Prompts(boxes=np.array([[1, 2, 3, 4]], np.float32), mask_inputs=rough, masks_padded=True)
    for part in (prompts, prompts[:1], prompts.kinds()[0][1]):
        squeezed = mask_inputs_to_input_frame(part, size, FRAME)
        assert squeezed is not None
        assert squeezed.shape == (1, SIDE // 4, SIDE // 4)
        inside = squeezed[0] > 0
        assert inside[SIDE // 8 + 1 :, SIDE // 8 + 1 :].all()
        assert not inside[: SIDE // 8 - 1].any()
        assert not inside[:, : SIDE // 8 - 1].any()
        padded = mask_inputs_to_input_frame(part, size, Frame(4 * cells, square=False))
        assert np.array_equal(padded, rough)
    own = np.random.default_rng(0).normal(size=(1, SIDE // 4, SIDE // 4)).astype(np.float32)
    assert mask_inputs_to_input_frame(Prompts(boxes=prompts.boxes, mask_inputs=own), size, FRAME) is own
    assert mask_inputs_to_input_frame(Prompts(boxes=prompts.boxes), size, FRAME) is None


def test_an_object_without_a_rough_mask_stays_without() -> None:
    rough = np.zeros((2, 32, 32), np.float32)
    rough[1, 0, 0] = np.nan
    boxes = np.array([[1, 2, 3, 4]] * 2, np.float32)
    prompts = Prompts(boxes=boxes, mask_inputs=rough, masks_padded=True)
    squeezed = mask_inputs_to_input_frame(prompts, (48, 64), FRAME)
    assert squeezed is not None
    assert np.isnan(squeezed[:, 0, 0]).tolist() == [False, True]
    assert not np.isnan(squeezed[0]).any()
