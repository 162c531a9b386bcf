"""At which size masks are compared: small enough to be quick, large enough for the objects that there are.

A decoder gives masks at a quarter of the input's side. Compared there, truth is the share of each pixel that is
covered, and a model that learns it perfectly gives every pixel that is less than half covered to the background: what
is thinner than such a pixel is learned away, while the loss falls.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from lora_sam.core.seeds import drawn_places
from lora_sam.data.sources import labels_of
from lora_sam.data.transforms import masks_to_input_frame
from lora_sam.training.losses.terms import enlarged, pooled_targets

if TYPE_CHECKING:
    from torch import Tensor

    from lora_sam.core.frame import Frame
    from lora_sam.data.sources import SampleSource
    from lora_sam.training.arithmetic import Arithmetic
    from lora_sam.training.losses import Loss, Resolution

LEAST = 0.95
"""IoU that perfect low-resolution masks need with the training objects, in the mean, to be compared there."""

IMAGES, OBJECTS = 8, 8
"""Training images that are looked at, and objects of each."""

HALF = 0.5
"""Share of a pixel from which on a predicted mask has it."""

_MARGIN = 3  # low-resolution pixels around an object: as far as enlarging reaches


def settled(
    loss: Loss, train: SampleSource, frame: Frame, seed: int, then: Arithmetic | None = None
) -> tuple[Loss, float | None]:
    """The loss with `auto` replaced by what the training objects need: `low` where that can show them, else `input`.

    Args:
        loss: As it was asked for.
        train: Training images; labels of a few are read.
        frame: The input frame.
        seed: With their number, decides which.
        then: How the run that is resumed computed, which is kept.

    Returns:
        The loss, and the IoU that perfect low-resolution masks have with the objects; None where that was not asked.
    """
    if loss.resolution != "auto":
        return loss, None
    if then is not None and then.compared in ("low", "input"):
        return _at(loss, then.compared), None
    kept = kept_at_low_resolution(train, frame, seed)
    return _at(loss, "low" if kept is None or kept >= LEAST else "input"), kept


def kept_at_low_resolution(train: SampleSource, frame: Frame, seed: int) -> float | None:
    """Mean IoU of training objects with what is left of them at the decoder's size; None where there are none.

    What is left: the covered shares of its pixels, which is what a loss at that size teaches, enlarged and cut at one
    half as predicted masks are.
    """
    places = drawn_places(len(train), IMAGES, seed, "compared images")
    found: list[float] = []
    for place in range(len(train)) if places is None else places.tolist():
        sample = labels_of(train, place)
        rows = drawn_places(len(sample.object_ids), OBJECTS, seed, "compared objects", sample.id)
        targets = masks_to_input_frame((sample if rows is None else sample.only(rows)).windows, frame)
        found += [_kept(target, frame.mask_side) for target in targets]
    return float(np.mean(found)) if found else None


def _kept(target: Tensor, side: int) -> float:
    """IoU of a mask [S, S] with what is left of it at `side`."""
    cell, rest = divmod(len(target), side)
    if rest:  # low-resolution pixels that do not end with pixels
        shares = pooled_targets(target[None].float(), side)
    else:  # what is far from the object tells nothing
        target = _around(target, cell)
        shares = F.avg_pool2d(target[None].float(), cell)
    left = enlarged(shares, target.shape)[0] > HALF
    both, either = (target & left).sum(), (target | left).sum()
    return float(both / either.clamp(min=1))


def _around(target: Tensor, cell: int) -> Tensor:
    """The part with the object and a margin, whose edges lie on those of low-resolution pixels."""
    rows, columns = (torch.nonzero(target.any(dim=axis)).flatten() for axis in (1, 0))
    if not len(rows):
        return target
    (top, bottom), (left, right) = (
        (cell * max(0, int(span[0]) // cell - _MARGIN), cell * (int(span[-1]) // cell + 1 + _MARGIN))
        for span in (rows, columns)
    )
    return target[top:bottom, left:right]


def _at(loss: Loss, resolution: Resolution) -> Loss:
    told: Any = loss  # a loss with `auto` among its resolutions is a dataclass
    settled_loss: Loss = replace(told, resolution=resolution)
    return settled_loss
