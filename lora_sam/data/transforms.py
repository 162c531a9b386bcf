"""The only pre-processing, image to model input, and its exact inverse for masks.

Two frames: the original image, and the input frame of S x S pixels that the model sees (`lora_sam.core.frame.Frame`).
The first SAM: the image is scaled so that its longer side is S and padded at the bottom and right
(`ResizeLongestSide.apply_image`, `Sam.preprocess` and `Sam.postprocess_masks` of the `segment-anything` package).
SAM 2 and SAM 3: it is squeezed into the square (`SAM2Transforms` of the packages `sam2` and `sam3`). The frame says
which numbers normalise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lora_sam.core.frame import Frame
from lora_sam.core.mask_windows import MaskWindows
from lora_sam.core.structures import Prompts, tight_boxes
from lora_sam.core.thin_arrays import thin_zeros, used_rows
from lora_sam.data.shrinking import shrink_into

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 16  # masks enlarged to S x S at once: 64 MiB at S = 1024


def preprocess(image: NDArray[np.uint8], frame: Frame) -> Tensor:
    """`preprocess_array` as a tensor, float32 [3, S, S]."""
    import torch

    return torch.from_numpy(preprocess_array(image, frame))


def preprocess_array(image: NDArray[np.uint8], frame: Frame) -> NDArray[np.float32]:
    """Scale (PIL bilinear), normalise, then pad with zeros: the order matters, padding is the mean colour.

    Args:
        image: RGB, uint8 [H, W, 3].
        frame: The input frame.

    Returns:
        float32 [3, S, S].
    """
    height, width = frame.extent((image.shape[0], image.shape[1]))
    picture, to = Image.fromarray(image), (width, height)
    if frame.square:  # SAM 2 keeps fractions of grey levels, where the first SAM rounds
        channels = [band.convert("F").resize(to, Image.Resampling.BILINEAR) for band in picture.split()]
    else:
        channels = list(picture.resize(to, Image.Resampling.BILINEAR).split())
    padded = np.empty((3, frame.side, frame.side), np.float32)
    padded[:, height:] = 0
    padded[:, :height, width:] = 0
    # channel by channel and in place: fresh memory of this size takes longer than the arithmetic
    for channel, plane, mean, std in zip(channels, padded, frame.mean, frame.std, strict=True):
        inside = plane[:height, :width]
        np.subtract(np.asarray(channel), np.float32(mean), out=inside)
        np.divide(inside, np.float32(std), out=inside)
    return padded


def points_to_input_frame(xy: NDArray[np.float32], size: tuple[int, int], frame: Frame) -> NDArray[np.float32]:
    """Points (x, y) [..., 2] from the frame of an original image of `size` = (height, width) to the input frame."""
    height, width = frame.extent(size)
    scale = np.array([width / size[1], height / size[0]])
    scaled: NDArray[np.float32] = (xy.astype(np.float64) * scale).astype(np.float32)
    return scaled


def boxes_to_input_frame(boxes: NDArray[np.float32], size: tuple[int, int], frame: Frame) -> NDArray[np.float32]:
    """XYXY boxes [..., 4] from the frame of an original image of `size` = (height, width) to the input frame."""
    corners = boxes.reshape(*boxes.shape[:-1], 2, 2)
    return points_to_input_frame(corners, size, frame).reshape(boxes.shape)


def masks_to_input_frame(masks: NDArray[np.bool_] | MaskWindows, frame: Frame) -> Tensor:
    """Masks at the size of the original image as training targets in the input frame.

    Enlarged masks take the nearest pixel. Shrunk masks keep the pixels of which at least half is covered; an object
    too thin for that keeps the pixels that are at least half as covered as its best one, so that none vanishes.

    Args:
        masks: bool [N, H, W], none empty; or what lies in their boxes.
        frame: The input frame.

    Returns:
        bool [N, S, S], false in the padding.
    """
    import torch

    # only the object's own window: a nucleus is a thousandth of its image
    windows = masks if isinstance(masks, MaskWindows) else MaskWindows.of(masks, tight_boxes(masks))
    size = windows.size
    extent = frame.extent(size)
    scaled = thin_zeros((len(windows), frame.side, frame.side), used_rows(windows.boxes, size[0]))
    if extent[0] < size[0] or extent[1] < size[1]:
        shrink_into(scaled, windows, extent)
    else:
        for part, target, (top, left) in zip(windows.parts, scaled, windows.corners.tolist(), strict=True):
            y0, y1, rows = _nearest(top, top + part.shape[0], size[0], extent[0])
            x0, x1, columns = _nearest(left, left + part.shape[1], size[1], extent[1])
            target[y0:y1, x0:x1] = part[np.ix_(rows, columns)]
    return torch.from_numpy(scaled)


def mask_inputs_to_input_frame(prompts: Prompts, size: tuple[int, int], frame: Frame) -> NDArray[np.float32] | None:
    """Mask prompts as the prompt encoder takes them, `Frame.mask_side` wide, bilinear; unchanged where they are so.

    Args:
        prompts: N prompts for an image; None comes back where they have no mask.
        size: (height, width) of that image.
        frame: The input frame.
    """
    masks, side = prompts.mask_inputs, frame.mask_side
    if masks is None:
        return None
    if frame.square and prompts.masks_padded:  # what they have of padding is not there
        height, width = Frame(masks.shape[-1], square=False).extent(size)
        masks = masks[:, :height, :width]
    if masks.shape[1:] == (side, side):
        return masks
    # Pillow averages what it shrinks, where torch would leave pixels out
    scaled = [np.asarray(Image.fromarray(logits).resize((side, side), Image.Resampling.BILINEAR)) for logits in masks]
    return np.array(scaled, np.float32).reshape(len(masks), side, side)


def logits_to_original(low_res_logits: Tensor, size: tuple[int, int], frame: Frame) -> Tensor:
    """Mask logits from the decoder at the size of the original image, bilinear without aligned corners.

    Args:
        low_res_logits: [N, s, s] or [N, 1, s, s], in the input frame.
        size: (height, width) of the original image.
        frame: The input frame.

    Returns:
        float32 [N, H, W].
    """
    import torch
    from torch.nn.functional import interpolate

    assert low_res_logits.ndim == 3 or low_res_logits.shape[1] == 1, "one mask per prompt"
    height, width = frame.extent(size)
    logits = low_res_logits.reshape(-1, 1, *low_res_logits.shape[-2:]).float()
    enlarged = []
    for chunk in torch.split(logits, _CHUNK):
        if frame.square:
            enlarged.append(interpolate(chunk, size, mode="bilinear", align_corners=False))
            continue
        padded = interpolate(chunk, (frame.side, frame.side), mode="bilinear", align_corners=False)
        enlarged.append(interpolate(padded[..., :height, :width], size, mode="bilinear", align_corners=False))
    return torch.cat(enlarged).squeeze(1)


def _nearest(start: int, stop: int, length: int, scaled: int) -> tuple[int, int, NDArray[np.intp]]:
    """Where pixels [start, stop) of an axis come to lie when it grows from `length` to `scaled` pixels.

    Returns:
        First output pixel, one past the last, and for each its source pixel counted from `start`.
    """
    # the source under the centre of each output pixel, in integers so that no rounding can shift it
    source = ((2 * np.arange(scaled) + 1) * length) // (2 * scaled)
    first, last = np.searchsorted(source, (start, stop))
    return int(first), int(last), source[first:last] - start
