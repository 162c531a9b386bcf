"""Both loss definitions against independent references, on logits."""

from __future__ import annotations

import monai.losses
import numpy as np
import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from lora_sam.losses import dice_loss, focal_loss, iou_head_loss

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(5, 16, 16, generator=GENERATOR) * 3
TARGETS = (torch.rand(5, 16, 16, generator=GENERATOR) > 0.7).float()
IOU = torch.rand(5, generator=GENERATOR)


def numpy_sam_loss() -> np.ndarray:
    """20 * focal + dice + MSE, written out from the formulas in float64."""
    totals = []
    for logits, target, predicted in zip(LOGITS.double().numpy(), TARGETS.double().numpy(), IOU.numpy(), strict=True):
        p = 1 / (1 + np.exp(-logits))
        p_t = np.where(target == 1, p, 1 - p)
        alpha_t = np.where(target == 1, 0.25, 0.75)
        focal = (-alpha_t * (1 - p_t) ** 2 * np.log(p_t)).mean()
        dice = 1 - (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)
        mask = logits > 0
        iou = (mask & (target == 1)).sum() / (mask | (target == 1)).sum()
        totals.append(20 * focal + dice + (predicted - iou) ** 2)
    return np.array(totals)


def test_sam_loss_equals_its_formulas(option):
    loss = option("loss/sam")(LOGITS, IOU, TARGETS)
    np.testing.assert_allclose(loss["loss"].numpy(), numpy_sam_loss(), rtol=1e-5)
    torch.testing.assert_close(loss["loss"], 20 * loss["focal"] + loss["dice"] + loss["iou"])


def test_parts_equal_torchvision_and_monai():
    focal = sigmoid_focal_loss(LOGITS, TARGETS, alpha=0.25, gamma=2, reduction="none").mean((1, 2))
    torch.testing.assert_close(focal_loss(LOGITS, TARGETS, alpha=0.25, gamma=2), focal)
    reference = monai.losses.DiceLoss(sigmoid=True, smooth_nr=1, smooth_dr=1, reduction="none")
    expected = reference(LOGITS.unsqueeze(1), TARGETS.unsqueeze(1)).flatten()
    torch.testing.assert_close(dice_loss(LOGITS, TARGETS), expected)


@pytest.mark.parametrize("squared_pred", [True, False])
def test_dice_ce_equals_monai(option, squared_pred):
    reference = monai.losses.DiceCELoss(sigmoid=True, squared_pred=squared_pred, reduction="mean")
    ours = option("loss/dice_ce", iou=0, squared_pred=squared_pred)(LOGITS, IOU, TARGETS)
    torch.testing.assert_close(ours["loss"].mean(), reference(LOGITS.unsqueeze(1), TARGETS.unsqueeze(1)))


def test_weights_scale_the_parts(option):
    parts = option("loss/sam")(LOGITS, IOU, TARGETS)
    only_dice = option("loss/sam", focal=0, iou=0, dice=3)(LOGITS, IOU, TARGETS)
    torch.testing.assert_close(only_dice["loss"], 3 * parts["dice"])


def test_iou_head_learns_the_iou_and_not_the_mask():
    logits = LOGITS.clone().requires_grad_(True)
    predictions = IOU.clone().requires_grad_(True)
    iou_head_loss(logits, predictions, TARGETS).sum().backward()
    assert logits.grad is None
    assert predictions.grad.abs().sum() > 0
    perfect = (TARGETS - 0.5) * 20
    torch.testing.assert_close(iou_head_loss(perfect, torch.ones(5), TARGETS), torch.zeros(5))


def test_confidently_wrong_pixels_keep_their_gradient(option):
    """Losses on thresholded or twice squashed values have none here; on logits it is large."""
    logits = torch.full((1, 8, 8), -12.0, requires_grad=True)
    target = torch.ones(1, 8, 8)
    option("loss/sam")(logits, torch.zeros(1), target)["focal"].sum().backward()
    assert logits.grad.abs().sum() > 0.2


def test_soft_targets_are_minimal_at_the_target(option):
    target = torch.full((1, 4, 4), 0.25)
    logits = torch.linspace(-4, 4, 161)
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
    values = [float(cross_entropy(torch.full((1, 4, 4), float(x)), target)) for x in logits]
    assert abs(torch.sigmoid(logits[int(np.argmin(values))]) - 0.25) < 0.02
    dice_ce = option("loss/dice_ce", dice=0, iou=0)
    ours = [float(dice_ce(torch.full((1, 4, 4), float(x)), torch.zeros(1), target)["loss"]) for x in logits]
    np.testing.assert_allclose(ours, values, rtol=1e-5)
