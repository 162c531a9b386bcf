"""Losses on mask logits: what a loss is, SAM's own (focal + dice + IoU head) and MONAI's DiceCE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from pydantic import Field

from lora_sam.training.losses.terms import cross_entropy, dice_loss, focal_loss, iou_head_loss, monai_dice

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DiceCELoss", "Loss", "Resolution", "SamLoss", "Weight", "dice_loss", "focal_loss", "iou_head_loss"]

Resolution = Literal["auto", "low", "input"]
"""Where a loss compares masks: see `Loss.resolution`."""

Weight = Annotated[float, Field(ge=0)]


class Loss(Protocol):
    """Loss of N predicted masks, each against its own target."""

    @property
    def resolution(self) -> Literal["auto", "low", "input", "points"]:
        """Where masks are compared, which decides the sizes of logits and targets.

        `low`: both at S/4, as decoded. `input`: both at the input size S. `auto`: one of the two, which
        `training.comparing.settled` chooses before the first step. `points`: at places between pixels that the
        loss chooses, so logits come at S/4 and targets at S.
        """

    @property
    def iou(self) -> float:
        """Weight of the part named `iou`, the error of the predicted IoU."""

    def __call__(self, logits: Tensor, iou_predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Per-object losses.

        Args:
            logits: [N, h, w], before any sigmoid.
            iou_predictions: IoU that the model predicts for each mask, [N].
            targets: Share of each pixel that belongs to the object, 0 to 1, [N, h, w], or [N, S, S] for `points`.

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
        resolution: Where the masks are compared: `low` (S/4), `input` (S), or `auto`: by the training objects.
    """

    focal: Weight
    dice: Weight
    iou: Weight
    focal_alpha: Annotated[float, Field(gt=0, lt=1)]
    focal_gamma: Annotated[float, Field(ge=0)]
    resolution: Resolution

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
        resolution: Where the masks are compared: `low` (S/4), `input` (S), or `auto`: by the training objects.
    """

    dice: Weight
    cross_entropy: Weight
    iou: Weight
    squared_pred: bool
    resolution: Resolution

    def __call__(self, logits: Tensor, iou_predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """See `Loss`."""
        parts = {
            "dice": monai_dice(logits, targets, squared_pred=self.squared_pred),
            "cross_entropy": cross_entropy(logits, targets),
            "iou": iou_head_loss(logits, iou_predictions, targets),
        }
        total = self.dice * parts["dice"] + self.cross_entropy * parts["cross_entropy"] + self.iou * parts["iou"]
        return {"loss": total, **parts}
