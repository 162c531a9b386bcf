"""A loss as a weighted sum of any of the usual terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from lora_sam.core.errors import ConfigError
from lora_sam.training.losses import Resolution, Weight, terms

if TYPE_CHECKING:
    from torch import Tensor

MASK_TERMS = ("focal", "dice", "bce", "mse", "dice_ce", "generalised_dice", "tversky", "boundary", "cldice")


@dataclass(frozen=True, kw_only=True)
class WeightedLoss:
    """The sum of the terms whose weight is not 0; the others are not computed.

    Attributes:
        focal: Weight of the focal loss (Lin et al., 2017), mean over pixels.
        dice: Weight of the dice loss (Milletari et al., 2016), 1 - (2 I + 1) / (P + T + 1).
        bce: Weight of the binary cross entropy, mean over pixels.
        mse: Weight of the squared error of the probabilities, mean over pixels.
        iou: Weight of the mean squared error of the predicted IoU against the IoU of the mask at logit 0; the error is
            logged at 0 too.
        dice_ce: Weight of MONAI's DiceCE, with squares in the denominator of the dice.
        generalised_dice: Weight of MONAI's generalised dice of object and background (Sudre et al., 2017).
        tversky: Weight of MONAI's Tversky loss (Salehi et al., 2017).
        boundary: Weight of MONAI's Hausdorff loss by distance transforms (Karimi and Salcudean, 2019), in squared
            diagonals of the mask. Slow at resolution input, as distances are computed on the CPU.
        cldice: Weight of MONAI's soft clDice of centrelines (Shit et al., 2021), for thin structures, beside another.
        focal_alpha: Weight of the foreground in the focal loss; background gets 1 - alpha.
        focal_gamma: Focusing exponent of the focal loss.
        tversky_alpha: Weight of false positives in the Tversky loss.
        tversky_beta: Weight of false negatives in the Tversky loss; 0.5 and 0.5 are dice.
        cldice_iterations: Soft erosions that make a centreline: the largest radius of an object in pixels of the
            compared mask, at least. Time grows with it.
        resolution: Where the masks are compared: `low` (S/4), `input` (S), or `auto`: by the training objects.
    """

    focal: Weight
    dice: Weight
    bce: Weight
    mse: Weight
    iou: Weight
    dice_ce: Weight
    generalised_dice: Weight
    tversky: Weight
    boundary: Weight
    cldice: Weight
    focal_alpha: Annotated[float, Field(gt=0, lt=1)]
    focal_gamma: Annotated[float, Field(ge=0)]
    tversky_alpha: Weight
    tversky_beta: Weight
    cldice_iterations: Annotated[int, Field(ge=1, le=100)]
    resolution: Resolution

    def check(self) -> None:
        """Raise `ConfigError` where no term would teach the mask anything."""
        if not any(getattr(self, name) for name in MASK_TERMS):
            raise ConfigError(
                f"loss: the weights {', '.join(MASK_TERMS)} are all 0, so masks would not be learned; give at least "
                "one, e.g. loss.dice=1"
            )

    def __call__(self, logits: Tensor, iou_predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """See `Loss`; parts are the terms in use, and `iou`."""
        computed: dict[str, Callable[[], Tensor]] = {
            "focal": lambda: terms.focal_loss(logits, targets, alpha=self.focal_alpha, gamma=self.focal_gamma),
            "dice": lambda: terms.dice_loss(logits, targets),
            "bce": lambda: terms.cross_entropy(logits, targets),
            "mse": lambda: terms.squared_error(logits, targets),
            "dice_ce": lambda: terms.dice_ce_loss(logits, targets),
            "generalised_dice": lambda: terms.generalised_dice_loss(logits, targets),
            "tversky": lambda: terms.tversky_loss(logits, targets, alpha=self.tversky_alpha, beta=self.tversky_beta),
            "boundary": lambda: terms.boundary_loss(logits, targets),
            "cldice": lambda: terms.cldice_loss(logits, targets, iterations=self.cldice_iterations),
        }
        parts = {name: computed[name]() for name in MASK_TERMS if getattr(self, name)}
        parts["iou"] = terms.iou_head_loss(logits, iou_predictions, targets)
        total = self.iou * parts["iou"]
        for name in parts.keys() & set(MASK_TERMS):
            total = total + getattr(self, name) * parts[name]
        return {"loss": total, **parts}
