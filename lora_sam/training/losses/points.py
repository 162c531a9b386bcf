"""Cross entropy and dice at points between the pixels of the low-resolution mask, most of them where it is unsure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lora_sam.core.errors import ConfigError
from lora_sam.training.losses import Weight, terms

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PointSampledLoss:
    """Loss at points of full-resolution truth, for structures that vanish at S/4: PointRend (Kirillov et al., 2020).

    Points are drawn anew in every step: `oversample` times as many as needed; of these the most uncertain ones, whose
    logit is nearest to 0, become `uncertain_share` of the points, and the rest is uniform. Mask2Former (Cheng et al.,
    2022) trains so with 112² points.

    Attributes:
        bce: Weight of the binary cross entropy, mean over points.
        dice: Weight of the dice loss over points, 1 - (2 I + 1) / (P + T + 1).
        iou: Weight of the mean squared error of the predicted IoU against the IoU of the mask at logit 0, at S: at S/4
            thin objects have no pixel, and the predicted IoU of every mask would be taught as 0.
        points: Points per object.
        oversample: How many times as many points are drawn to choose the uncertain ones from.
        uncertain_share: Share of the points that are the most uncertain ones.
    """

    bce: Weight
    dice: Weight
    iou: Weight
    points: Annotated[int, Field(ge=1, le=1_000_000)]
    oversample: Annotated[float, Field(ge=1, le=100)]
    uncertain_share: Annotated[float, Field(ge=0, le=1)]

    @property
    def resolution(self) -> Literal["points"]:
        """See `Loss`."""
        return "points"

    def check(self) -> None:
        """Raise `ConfigError` where no term would teach the mask anything."""
        if not (self.bce or self.dice):
            raise ConfigError(
                "loss: the weights bce and dice are both 0, so masks would not be learned; give at least one, e.g. "
                "loss.dice=1"
            )

    def __call__(self, logits: Tensor, iou_predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """See `Loss`; logits [N, S/4, S/4] and targets [N, S, S]."""
        places = self.places(logits)
        values, truth = sample_points(logits, places), sample_points(targets, places)
        parts = {
            "bce": terms.cross_entropy(values, truth),
            "dice": terms.dice_loss(values, truth),
            "iou": terms.iou_head_loss(terms.enlarged(logits.detach(), targets.shape[-2:]), iou_predictions, targets),
        }
        return {"loss": self.bce * parts["bce"] + self.dice * parts["dice"] + self.iou * parts["iou"], **parts}

    def places(self, logits: Tensor) -> Tensor:
        """Where masks are compared, (x, y) as shares of width and height: float32 [N, points, 2].

        Drawn from torch's generator of the CPU, whose state a run keeps, so that a resumed run draws the same.

        Args:
            logits: [N, h, w].
        """
        import torch

        count, device = len(logits), logits.device
        unsure = round(self.uncertain_share * self.points)
        uniform = torch.rand(count, self.points - unsure, 2).to(device)
        if not unsure:
            return uniform
        candidates = torch.rand(count, max(unsure, math.ceil(self.oversample * self.points)), 2).to(device)
        certainty = sample_points(logits.detach(), candidates).abs()
        best = certainty.topk(unsure, dim=1, largest=False).indices
        return torch.cat([candidates.gather(1, best.unsqueeze(2).expand(-1, -1, 2)), uniform], dim=1)


def sample_points(values: Tensor, places: Tensor) -> Tensor:
    """Values [N, h, w] at places (x, y) in 0 to 1, [N, P, 2], between pixel centres bilinearly: [N, P].

    At the pixel centres of an enlarged image this is what `interpolate(..., mode="bilinear", align_corners=False)` has.
    """
    from torch.nn.functional import grid_sample

    grid = (2 * places - 1).unsqueeze(2).to(values.dtype)
    sampled = grid_sample(values.unsqueeze(1), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled[:, 0, :, 0]
