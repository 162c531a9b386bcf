"""The terms that losses are sums of: each from logits [N, h, w] and targets [N, h, w] to one number per object, [N]."""

from __future__ import annotations

import getpass
import os
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy of each mask, mean over its pixels."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(logits, targets, reduction="none").flatten(1).mean(1)


def squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """Squared error of the probabilities of each mask, mean over its pixels."""
    return (logits.sigmoid() - targets).square().flatten(1).mean(1)


def focal_loss(logits: Tensor, targets: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Focal loss (Lin et al., 2017, equation 5) of each mask, mean over its pixels."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    cross_entropy = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = logits.sigmoid()
    wrong = probability + targets - 2 * probability * targets  # 1 - p_t
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return (weight * wrong.pow(gamma) * cross_entropy).flatten(1).mean(1)


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - (2 I + 1) / (P + T + 1) of each mask, over its pixels."""
    probability = logits.sigmoid().flatten(1)
    target = targets.flatten(1)
    return 1 - (2 * (probability * target).sum(1) + 1) / (probability.sum(1) + target.sum(1) + 1)


def iou_head_loss(logits: Tensor, iou_predictions: Tensor, targets: Tensor) -> Tensor:
    """Squared error of the predicted IoU against the IoU of the mask at logit 0; `iou_predictions` is [N]."""
    mask, target = (logits.detach() > 0).flatten(1), (targets > 0.5).flatten(1)
    intersection, union = (mask & target).sum(1), (mask | target).sum(1)
    iou = (intersection / union.clamp(min=1)).to(iou_predictions.dtype)
    return (iou_predictions - iou) ** 2


@cache
def _monai() -> Any:
    """`monai.losses`, imported late. MONAI asks for the name of the user then, and in a container there may be none."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = "user"
    from monai import losses

    return losses


def monai_dice(logits: Tensor, targets: Tensor, *, squared_pred: bool) -> Tensor:
    """MONAI's dice loss, 1 - (2 I + 1e-5) / (P + T + 1e-5); `squared_pred` sums squares in P and T."""
    dice = _monai().DiceLoss(sigmoid=True, squared_pred=squared_pred, reduction="none")
    return _per_object(dice(logits.unsqueeze(1), targets.unsqueeze(1)))


def dice_ce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """MONAI's `DiceCELoss(sigmoid=True, squared_pred=True)` of each mask."""
    return monai_dice(logits, targets, squared_pred=True) + cross_entropy(logits, targets)


def generalised_dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """MONAI's generalised dice loss (Sudre et al., 2017) of object and background, weighted by 1 / area².

    With the object alone the weights would cancel out, so the background is the second class.
    """
    import torch

    probability = logits.sigmoid()
    both = torch.stack([1 - probability, probability], dim=1), torch.stack([1 - targets, targets], dim=1)
    # sums of 1 / area are so small that MONAI's own 1e-5 would outweigh them for large masks
    return _per_object(_monai().GeneralizedDiceLoss(smooth_nr=0.0, smooth_dr=1e-12, reduction="none")(*both))


def tversky_loss(logits: Tensor, targets: Tensor, *, alpha: float, beta: float) -> Tensor:
    """MONAI's Tversky loss (Salehi et al., 2017): 1 - I / (I + alpha · false positives + beta · false negatives)."""
    tversky = _monai().TverskyLoss(sigmoid=True, alpha=alpha, beta=beta, reduction="none")
    return _per_object(tversky(logits.unsqueeze(1), targets.unsqueeze(1)))


def boundary_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """MONAI's Hausdorff loss by distance transforms (Karimi and Salcudean, 2019), in squared diagonals of the mask.

    Squared errors of the probabilities weigh by the squared distances to the outlines of prediction and truth. The
    unit makes a weight mean the same at any resolution. Distances are computed on the CPU.
    """
    height, width = logits.shape[-2:]
    distance = _monai().HausdorffDTLoss(alpha=2.0, include_background=True, sigmoid=True, reduction="none")
    return _per_object(distance(logits.unsqueeze(1), targets.unsqueeze(1))) / (height**2 + width**2)


def cldice_loss(logits: Tensor, targets: Tensor, *, iterations: int) -> Tensor:
    """MONAI's soft clDice loss (Shit et al., 2021, algorithms 1 and 2): 1 - the harmonic mean of two shares.

    Of the prediction's centreline what lies in the truth, and of the truth's centreline what lies in the prediction.
    Centrelines are what `iterations` soft erosions leave, so it should be the largest radius in pixels at least.
    """
    cldice = _monai().SoftclDiceLoss(iter_=iterations, sigmoid=True, reduction="none")
    found: Tensor = cldice(logits.unsqueeze(1), targets.unsqueeze(1))
    return found.reshape(len(logits))


def pooled_targets(targets: Tensor, side: int) -> Tensor:
    """Targets [N, S, S] averaged to [N, side, side]: each pixel is the mean of the square of pixels that it covers."""
    import torch
    from torch.nn.functional import avg_pool2d

    whole = targets.shape[-1]
    if whole % side == 0:
        return avg_pool2d(targets.unsqueeze(1), whole // side).squeeze(1)
    # 288 of 1008: squares of 3.5 pixels, so along each axis the share of every pixel in every square
    edges = torch.arange(side + 1, device=targets.device) * (whole / side)
    pixels = torch.arange(whole, device=targets.device)
    ends, starts = torch.minimum(edges[1:, None], pixels + 1), torch.maximum(edges[:-1, None], pixels)
    shares = (ends - starts).clamp(min=0).to(targets.dtype) * (side / whole)
    return shares @ targets @ shares.T


def enlarged(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Logits [N, h, w] at `size` = (height, width), between pixel centres bilinearly, as masks are made of them."""
    from torch.nn.functional import interpolate

    return interpolate(logits.unsqueeze(1), size=size, mode="bilinear", align_corners=False).squeeze(1)


def _per_object(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1)
