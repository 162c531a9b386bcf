"""Losses on mask logits: SAM's own (focal + dice + IoU head) and MONAI's DiceCE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from pydantic import Field

if TYPE_CHECKING:
    from torch import Tensor

Weight = Annotated[float, Field(ge=0)]


class Loss(Protocol):
    """Loss of N predicted masks, each against its own target."""

    @property
    def resolution(self) -> Literal["low", "input"]:
        """Whether logits come as decoded, at S/4, or enlarged to the input size S."""

    @property
    def iou(self) -> float:
        """Weight of the part named `iou`, the error of the predicted IoU."""

    def __call__(self, logits: Tensor, iou_predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Per-object losses.

        Args:
            logits: [N, h, w], before any sigmoid.
            iou_predictions: IoU that the model predicts for each mask, [N].
            targets: Share of each pixel that belongs to the object, 0 to 1, [N, h, w].

        Returns:
            `loss`, the weighted sum, and every unweighted part by name; each [N].
        """


@dataclass(frozen=True, kw_only=True)
class SamLoss:
    """focal * 20 + dice + IoU-head MSE: SAM's own recipe (Kirillov et al., 2023, appendix A, "Losses").

    Attributes:
        focal: Weight of the focal loss (Lin et al., 2017), mean over pixels.
        dice: Weight of the dice loss (Milletari et al., 2016), 1 - (2 I + 1) / (P + T + 1).
        iou: Weight of the mean squared error of the predicted IoU against the IoU of the mask at logit 0.
        focal_alpha: Weight of the foreground in the focal loss; background gets 1 - alpha.
        focal_gamma: Focusing exponent of the focal loss.
        resolution: Where the masks are compared: `low` (S/4) or `input` (S).
    """

    focal: Weight
    dice: Weight
    iou: Weight
    focal_alpha: Annotated[float, Field(gt=0, lt=1)]
    focal_gamma: Annotated[float, Field(ge=0)]
    resolution: Literal["low", "input"]

    def __call__(self, logits: Tensor, iou_predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """See `Loss`."""
        parts = {
            "focal": focal_loss(logits, targets, alpha=self.focal_alpha, gamma=self.focal_gamma),
            "dice": dice_loss(logits, targets),
            "iou": iou_head_loss(logits, iou_predictions, targets),
        }
        total = self.focal * parts["focal"] + self.dice * parts["dice"] + self.iou * parts["iou"]
        return {"loss": total, **parts}


@dataclass(frozen=True, kw_only=True)
class DiceCELoss:
    """MONAI's `DiceCELoss(sigmoid=True, squared_pred=True)`, as in Sam_LoRA, plus the IoU head's error.

    Attributes:
        dice: Weight of the dice part.
        cross_entropy: Weight of the binary cross entropy.
        iou: Weight of the mean squared error of the predicted IoU against the IoU of the mask at logit 0.
        squared_pred: Square predictions and targets in the denominator of the dice.
        resolution: Where the masks are compared: `low` (S/4) or `input` (S).
    """

    dice: Weight
    cross_entropy: Weight
    iou: Weight
    squared_pred: bool
    resolution: Literal["low", "input"]

    def __call__(self, logits: Tensor, iou_predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """See `Loss`."""
        import torch
        from monai.losses import DiceLoss

        dice = DiceLoss(sigmoid=True, squared_pred=self.squared_pred, reduction="none")
        parts = {
            "dice": dice(logits.unsqueeze(1), targets.unsqueeze(1)).flatten(1).mean(1),
            "cross_entropy": torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            .flatten(1)
            .mean(1),
            "iou": iou_head_loss(logits, iou_predictions, targets),
        }
        weights = {"dice": self.dice, "cross_entropy": self.cross_entropy, "iou": self.iou}
        return {"loss": sum((weights[name] * parts[name] for name in parts), torch.zeros_like(parts["dice"])), **parts}


def focal_loss(logits: Tensor, targets: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Focal loss (Lin et al., 2017, equation 5) of each mask, mean over its pixels: [N, h, w] to [N]."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    cross_entropy = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = logits.sigmoid()
    wrong = probability + targets - 2 * probability * targets  # 1 - p_t
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return (weight * wrong.pow(gamma) * cross_entropy).flatten(1).mean(1)


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - (2 I + 1) / (P + T + 1) of each mask, over its pixels: [N, h, w] to [N]."""
    probability = logits.sigmoid().flatten(1)
    target = targets.flatten(1)
    return 1 - (2 * (probability * target).sum(1) + 1) / (probability.sum(1) + target.sum(1) + 1)


def iou_head_loss(logits: Tensor, iou_predictions: Tensor, targets: Tensor) -> Tensor:
    """Squared error of the predicted IoU against the IoU of the mask at logit 0: [N, h, w] and [N] to [N]."""
    mask, target = (logits.detach() > 0).flatten(1), (targets > 0.5).flatten(1)
    intersection, union = (mask & target).sum(1), (mask | target).sum(1)
    iou = (intersection / union.clamp(min=1)).to(iou_predictions.dtype)
    return (iou_predictions - iou) ** 2
