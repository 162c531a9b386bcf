"""The part of the mask decoder that predicts how good its masks are, corrected by a line for each of its four masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from segment_anything.modeling import Sam


def correct_predicted_iou(sam: Sam, lines: Sequence[tuple[float, float]]) -> None:
    """Let the model predict slope * IoU + offset instead of IoU, in place; exported models then do so too.

    The last layer of the head is affine, so this changes its weights only.

    Args:
        sam: Split or fused, without adapters in its IoU head.
        lines: (slope, offset) of the single mask, then of the three for ambiguous prompts.
    """
    last = sam.mask_decoder.iou_prediction_head.layers[-1]
    assert type(last) is torch.nn.Linear, "an adapter is in the IoU head"
    assert len(lines) == last.out_features, f"{len(lines)} lines for {last.out_features} masks"
    slopes, offsets = torch.tensor(lines, dtype=last.weight.dtype, device=last.weight.device).unbind(1)
    with torch.no_grad():
        last.weight.mul_(slopes[:, None])
        last.bias.mul_(slopes).add_(offsets)
