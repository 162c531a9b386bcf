"""Whether two SAMs are the same model: their logits for one seeded image and prompts of every kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lora_sam.core.frame import Frame
from lora_sam.core.seeds import generator_for
from lora_sam.data.transforms import boxes_to_input_frame, masks_to_input_frame, points_to_input_frame, preprocess
from lora_sam.evaluation.metrics import mask_iou
from lora_sam.models.decoding import decode_all_masks
from lora_sam.prompts import farthest_pixel, tight_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from segment_anything.modeling import Sam

FOLDED = 1e-4
"""Largest difference of logits that folding may make in fp32: it rounds every weight once more."""

OTHER_KERNELS = 1e-3
"""Largest difference of logits between two packages, which multiply and add in other orders."""

OBJECTS = 4


@dataclass(frozen=True)
class ProbePrompts:
    """Prompts of one kind for N objects, in the input frame of side S; fields as in `decode_all_masks`.

    Attributes:
        boxes: XYXY, float32 [N, 4], or None.
        points: (x, y), float32 [N, K, 2], or None.
        labels: 1 foreground, 0 background, -1 padding, int64 [N, K], or None.
        mask_inputs: Logits, float32 [N, S/4, S/4], or None.
    """

    boxes: Tensor | None = None
    points: Tensor | None = None
    labels: Tensor | None = None
    mask_inputs: Tensor | None = None


@dataclass(frozen=True)
class Probe:
    """What the models are asked.

    Attributes:
        images: One normalised, padded image, float32 [1, 3, S, S].
        prompts: Boxes; points; both; boxes with masks.
    """

    images: Tensor
    prompts: tuple[ProbePrompts, ...]


@dataclass(frozen=True)
class Answers:
    """What a model says to a probe, all prompts one after the other.

    Attributes:
        logits: Low-resolution logits of all masks, float32 [P, 4, S/4, S/4].
        scores: Predicted IoU, float32 [P, 4].
    """

    logits: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Agreement:
    """How far the answers of two models are from each other.

    Attributes:
        largest_logit_difference: Over all pixels of all masks.
        largest_score_difference: Over the predicted IoU of all masks.
        mean_mask_iou: Of the masks, which are logits above 0; two empty masks agree.
        masks: How many were compared.
    """

    largest_logit_difference: float
    largest_score_difference: float
    mean_mask_iou: float
    masks: int

    def within(self, tolerance: float) -> bool:
        """Whether no logit and no score differs by more than `tolerance`; NaN is never within."""
        return self.largest_logit_difference <= tolerance and self.largest_score_difference <= tolerance


def probe(frame: Frame, seed: int = 0) -> Probe:
    """Noise with bright ellipses on it, and prompts for these, for a model with such an input.

    The image is wider than high, so that the input has padding, or is squeezed.
    """
    image_size = frame.side
    draws = generator_for(seed, "probe")
    size = (image_size * 3 // 4, image_size)
    image = draws.integers(0, 160, (*size, 3)).astype(np.uint8)
    masks = _ellipses(draws, size)
    for mask in masks:
        image[mask] += draws.integers(30, 95, 3).astype(np.uint8)
    boxes = torch.from_numpy(boxes_to_input_frame(tight_boxes(masks), size, frame))
    inside = [farthest_pixel(mask) for mask in masks]
    # a foreground point, a background point, and nothing, as where prompts differ in their number of points
    xy = np.array([[(x + 0.5, y + 0.5), (1.5, 2.5), (0, 0)] for y, x in inside], dtype=np.float32)
    points = torch.from_numpy(points_to_input_frame(xy, size, frame))
    labels = torch.tensor([[1, 0, -1]]).repeat(OBJECTS, 1)
    middles = (torch.arange(frame.mask_side) + 0.5) * (frame.side / frame.mask_side)
    low_res = masks_to_input_frame(masks, frame)[:, middles.long()][:, :, middles.long()].float() * 12 - 6
    return Probe(
        images=preprocess(image, frame).unsqueeze(0),
        prompts=(
            ProbePrompts(boxes=boxes),
            ProbePrompts(points=points, labels=labels),
            ProbePrompts(boxes=boxes, points=points, labels=labels),
            ProbePrompts(boxes=boxes, mask_inputs=low_res),
        ),
    )


def answers(sam: Sam, probe: Probe) -> Answers:
    """What a SAM, split or fused, says to `probe`. No weight may require gradients: torch then rounds otherwise."""
    with torch.no_grad():
        embeddings = sam.image_encoder(probe.images)
        found = [
            decode_all_masks(
                sam,
                embeddings,
                boxes=prompts.boxes,
                points=prompts.points,
                labels=prompts.labels,
                mask_inputs=prompts.mask_inputs,
            )
            for prompts in probe.prompts
        ]
    return Answers(torch.cat([logits for logits, _ in found]), torch.cat([scores for _, scores in found]))


def compare(expected: Answers, found: Answers) -> Agreement:
    """How far `found` is from `expected`."""
    iou = mask_iou((expected.logits > 0).cpu().numpy(), (found.logits > 0).cpu().numpy())
    return Agreement(
        largest_logit_difference=float((expected.logits - found.logits).abs().max()),
        largest_score_difference=float((expected.scores - found.scores).abs().max()),
        mean_mask_iou=float(iou.mean()),
        masks=iou.size,
    )


def _ellipses(draws: np.random.Generator, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Ellipses around the middles of the four quarters of an image, bool [4, H, W]."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    masks = []
    for index in range(OBJECTS):
        y, x = height * (0.25 + 0.5 * (index // 2)), width * (0.25 + 0.5 * (index % 2))
        radius_y, radius_x = draws.uniform(0.08, 0.2, 2) * size
        masks.append(((rows - y) / radius_y) ** 2 + ((columns - x) / radius_x) ** 2 < 1)
    return np.stack(masks)
