"""Every loss, and every term of them, against independent references, on logits."""

from __future__ import annotations

import dataclasses
import getpass
import json
import os
import pwd
import subprocess
import sys

import monai.losses
import numpy as np
import pytest
import torch
from scipy import ndimage
from torchvision.ops import sigmoid_focal_loss

from lora_sam.core.errors import ConfigError
from lora_sam.training.losses import dice_loss, focal_loss, iou_head_loss, terms
from lora_sam.training.losses.points import sample_points
from lora_sam.training.step import mask_losses

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


# --- any sum of terms ------------------------------------------------------------------------------------------------

WEIGHTS = ("focal", "dice", "bce", "mse", "iou", "dice_ce", "generalised_dice", "tversky", "boundary", "cldice")
OFF = dict.fromkeys(WEIGHTS, 0.0)


def probabilities() -> tuple[np.ndarray, np.ndarray]:
    return 1 / (1 + np.exp(-LOGITS.double().numpy())), TARGETS.double().numpy()


def by_monai(loss: torch.nn.Module) -> torch.Tensor:
    """One object at a time, so that nothing of ours has a part in what is per object."""
    pairs = zip(LOGITS, TARGETS, strict=True)
    return torch.stack([loss(logits[None, None], target[None, None]) for logits, target in pairs])


def numpy_generalised_dice() -> np.ndarray:
    """Sudre et al. (2017), equation 4: classes weighted by one over their squared area, one object at a time."""
    values = []
    for p, t in zip(*probabilities(), strict=True):
        classes = [(p, t), (1 - p, 1 - t)]
        shared = sum((a * b).sum() / b.sum() ** 2 for a, b in classes)
        total = sum((a + b).sum() / b.sum() ** 2 for a, b in classes)
        values.append(1 - 2 * shared / total)
    return np.array(values)


def numpy_tversky(alpha: float, beta: float) -> np.ndarray:
    p, t = probabilities()
    shared, surplus, missing = ((a * b).sum((1, 2)) for a, b in ((p, t), (p, 1 - t), (1 - p, t)))
    return 1 - shared / (shared + alpha * surplus + beta * missing)


def numpy_hausdorff() -> np.ndarray:
    """Karimi and Salcudean (2019), equation 8, with distances from every pixel to the other side by brute force."""
    rows, columns = np.mgrid[:16, :16]
    values = []
    for p, t in zip(*probabilities(), strict=True):
        weight = np.zeros((16, 16))
        for mask in (p > 0.5, t > 0.5):
            for row, column in np.ndindex(16, 16):
                other = mask != mask[row, column]
                weight[row, column] += ((rows - row) ** 2 + (columns - column) ** 2)[other].min()
        values.append(((p - t) ** 2 * weight).mean() / (16**2 + 16**2))
    return np.array(values)


def numpy_cldice(iterations: int) -> np.ndarray:
    """Shit et al. (2021), algorithms 1 and 2: soft skeletons by grey morphology, with 1 added as in their code."""
    cross, square = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool), np.ones((3, 3), bool)

    def centreline(mask: np.ndarray) -> np.ndarray:
        found = np.zeros_like(mask)
        for _ in range(iterations + 1):
            eroded = ndimage.grey_erosion(mask, footprint=cross, mode="nearest")
            left = np.maximum(mask - ndimage.grey_dilation(eroded, footprint=square, mode="nearest"), 0)
            found += np.maximum(left - found * left, 0)
            mask = eroded
        return found

    values = []
    for p, t in zip(*probabilities(), strict=True):
        of_p, of_t = centreline(p), centreline(t)
        precision = ((of_p * t).sum() + 1) / (of_p.sum() + 1)
        sensitivity = ((of_t * p).sum() + 1) / (of_t.sum() + 1)
        values.append(1 - 2 * precision * sensitivity / (precision + sensitivity + 1e-4))
    return np.array(values)


def references() -> dict[str, torch.Tensor | np.ndarray]:
    p, t = probabilities()
    return {
        "focal": sigmoid_focal_loss(LOGITS, TARGETS, alpha=0.25, gamma=2, reduction="none").mean((1, 2)),
        "dice": by_monai(monai.losses.DiceLoss(sigmoid=True, smooth_nr=1, smooth_dr=1)),
        "bce": -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean((1, 2)),
        "mse": ((p - t) ** 2).mean((1, 2)),
        "dice_ce": by_monai(monai.losses.DiceCELoss(sigmoid=True, squared_pred=True)),
        "generalised_dice": numpy_generalised_dice(),
        "tversky": numpy_tversky(0.3, 0.7),
        "boundary": numpy_hausdorff(),
        "cldice": numpy_cldice(3),
    }


@pytest.mark.parametrize("name", [name for name in WEIGHTS if name != "iou"])
def test_every_term_equals_its_reference_and_the_others_are_not_computed(option, name):
    parts = option("loss/weighted", **{**OFF, name: 2.5})(LOGITS, IOU, TARGETS)
    assert parts.keys() == {"loss", "iou", name}
    assert parts[name].shape == (5,)
    np.testing.assert_allclose(np.asarray(parts[name]), np.asarray(references()[name]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts["loss"], 2.5 * parts[name])


def test_terms_add_up(option):
    weights = {name: float(number) for number, name in enumerate(WEIGHTS, 1)}
    parts = option("loss/weighted", **weights)(LOGITS, IOU, TARGETS)
    assert parts.keys() == {"loss", *WEIGHTS}
    torch.testing.assert_close(parts["loss"], sum(weights[name] * parts[name] for name in WEIGHTS))


def test_weighted_as_it_stands_is_sams_recipe_and_otx_that_on_enlarged_masks(option):
    torch.testing.assert_close(
        option("loss/weighted")(LOGITS, IOU, TARGETS)["loss"], option("loss/sam")(LOGITS, IOU, TARGETS)["loss"]
    )
    otx = option("loss/otx")
    assert otx.resolution == "input"
    np.testing.assert_allclose(otx(LOGITS, IOU, TARGETS)["loss"].numpy(), numpy_sam_loss(), rtol=1e-5)


def test_otx_keeps_the_gradient_that_a_second_sigmoid_takes(option):
    """OTX's own focal loss, fed with probabilities, cannot fall below that of p = sigmoid(1) = 0.73."""
    logits = torch.full((1, 4, 4), 12.0)
    target = torch.ones(1, 4, 4)
    twice = sigmoid_focal_loss(logits.sigmoid(), target, alpha=0.25, gamma=2, reduction="none").mean()
    assert float(twice) > 5e-3
    assert float(option("loss/otx")(logits, torch.ones(1), target)["focal"]) < 1e-10


@pytest.mark.parametrize("name", ["mse", "tversky"])
def test_recipes_of_one_term(option, name):
    parts = option(f"loss/{name}")(LOGITS, IOU, TARGETS)
    assert parts.keys() == {"loss", "iou", name}
    weight = 0.0 if name == "mse" else 1.0
    torch.testing.assert_close(parts["loss"], parts[name] + weight * parts["iou"])


@pytest.mark.parametrize("name", [name for name in WEIGHTS if name != "iou"])
def test_every_term_pulls_the_mask_to_the_truth(option, name):
    """Soft targets, as averaged ones are, and an empty and a full one; the gradient is finite and its step helps."""
    target = torch.nn.functional.avg_pool2d(TARGETS.unsqueeze(1), 4).squeeze(1)
    target = torch.cat([target, torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    logits = torch.randn(7, 4, 4, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    loss = option("loss/weighted", **{**OFF, name: 1.0})
    before = loss(logits, torch.zeros(7), target)["loss"]
    before.sum().backward()
    assert torch.isfinite(logits.grad).all()
    # the soft dice of a target that is no mask has its minimum elsewhere, but a small step goes down everywhere
    after = loss(logits.detach() - 1e-2 * logits.grad, torch.zeros(7), target)["loss"]
    assert (after <= before + 1e-6).all()
    assert (after < before).sum() >= 5


@pytest.mark.parametrize(("name", "changes"), [("weighted", OFF), ("weighted", {**OFF, "iou": 1.0}), ("points", {})])
def test_a_loss_that_teaches_nothing_is_refused(option, name, changes):
    changes = changes or {"bce": 0.0, "dice": 0.0}
    with pytest.raises(ConfigError, match="would not be learned; give at least one, e.g. loss.dice=1"):
        option(f"loss/{name}", **changes).check()
    option(f"loss/{name}", **{**changes, "dice": 0.1}).check()


# --- points ----------------------------------------------------------------------------------------------------------


def test_sampled_points_are_those_of_bilinear_enlargement():
    centres = (torch.arange(64) + 0.5) / 64
    places = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1).reshape(1, -1, 2).expand(5, -1, -1)
    enlarged = torch.nn.functional.interpolate(LOGITS.unsqueeze(1), size=(64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(sample_points(LOGITS, places), enlarged.flatten(1), atol=1e-5, rtol=1e-5)


def test_sampled_points_by_hand():
    values = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    # (x, y): a pixel centre, half way between two, the middle of all four, beyond the outermost centres
    places = torch.tensor([[[0.25, 0.25], [0.5, 0.25], [0.5, 0.5], [0.25, 0.625], [1.0, 0.0]]])
    torch.testing.assert_close(sample_points(values, places), torch.tensor([[0.0, 0.5, 1.5, 1.5, 1.0]]))


def test_most_points_lie_where_the_mask_is_unsure(option):
    """Logits rise by 2 per pixel from left to right and are 0 in the middle: |logit| < 2 within a pixel of it."""
    ramp = (torch.arange(32) - 15.5).expand(3, 32, 32) * 2
    torch.manual_seed(0)
    loss = option("loss/points", points=400, oversample=10.0, uncertain_share=0.75)
    places = loss.places(ramp)
    assert places.shape == (3, 400, 2)
    assert ((places >= 0) & (places < 1)).all()
    distance = (places[..., 0] - 0.5).abs()
    # 300 of 4000 candidates: the 7.5 % nearest to the middle, within 3.75 % of the width
    assert (distance[:, :300] < 0.05).all()
    assert float(distance[:, 300:].mean()) == pytest.approx(0.25, abs=0.03)
    assert not torch.equal(places, loss.places(ramp))
    torch.manual_seed(0)
    assert torch.equal(places, loss.places(ramp))


@pytest.mark.parametrize(("share", "points", "oversample"), [(0.0, 7, 3.0), (1.0, 7, 1.0), (0.5, 1, 1.0)])
def test_number_of_points(option, share, points, oversample):
    loss = option("loss/points", uncertain_share=share, points=points, oversample=oversample)
    assert loss.places(LOGITS).shape == (5, points, 2)


def test_many_uniform_points_are_the_loss_on_enlarged_masks(option):
    low = torch.nn.functional.avg_pool2d(LOGITS.unsqueeze(1), 4).squeeze(1)
    enlarged = torch.nn.functional.interpolate(low.unsqueeze(1), size=(16, 16), mode="bilinear", align_corners=False)
    expected = option("loss/weighted", **{**OFF, "bce": 1.0}, resolution="input")(enlarged.squeeze(1), IOU, TARGETS)
    torch.manual_seed(0)
    loss = option("loss/points", points=200_000, uncertain_share=0.0, dice=0.0, iou=0.0)
    # targets are sampled between their pixels too, hence the room
    torch.testing.assert_close(loss(low, IOU, TARGETS)["loss"], expected["loss"], atol=0.03, rtol=0)


def test_point_losses_equal_their_formulas_at_the_points(option):
    loss = option("loss/points", points=50, bce=2.0, dice=3.0, iou=0.5)
    targets = TARGETS.repeat_interleave(4, 1).repeat_interleave(4, 2)
    torch.manual_seed(3)
    parts = loss(LOGITS, IOU, targets)
    torch.manual_seed(3)
    places = loss.places(LOGITS)
    p, t = sample_points(LOGITS, places).sigmoid(), sample_points(targets, places)
    torch.testing.assert_close(parts["bce"], torch.nn.functional.binary_cross_entropy(p, t, reduction="none").mean(1))
    torch.testing.assert_close(parts["dice"], 1 - (2 * (p * t).sum(1) + 1) / (p.sum(1) + t.sum(1) + 1))
    enlarged = torch.nn.functional.interpolate(LOGITS[None], size=targets.shape[1:], mode="bilinear")[0]
    torch.testing.assert_close(parts["iou"], iou_head_loss(enlarged, IOU, targets))
    torch.testing.assert_close(parts["loss"], 2 * parts["bce"] + 3 * parts["dice"] + 0.5 * parts["iou"])


def test_a_line_that_vanishes_at_low_resolution_is_seen_at_points(option):
    """A line of one pixel in 64 is a quarter of a low-resolution pixel: its IoU there is 0, its points are not."""
    target = torch.zeros(1, 64, 64, dtype=torch.bool)
    target[:, 30] = True
    blank = torch.full((1, 16, 16), -6.0)
    on_line = blank.clone()
    on_line[:, 7] = 0.5
    torch.manual_seed(0)
    points = option("loss/points", points=4096)
    values = [mask_losses(points, logits, torch.zeros(1), target) for logits in (blank, on_line)]
    assert values[1]["dice"] < values[0]["dice"] - 0.05
    # the head is taught the IoU of the mask on the pixels, where the line is
    sure = torch.where(on_line > 0, 8.0, on_line)
    enlarged = torch.nn.functional.interpolate(sure[None], size=64, mode="bilinear")[0, 0] > 0
    iou = float((enlarged & target[0]).sum() / (enlarged | target[0]).sum())
    assert iou > 0.2
    assert float(mask_losses(points, sure, torch.zeros(1), target)["iou"]) == pytest.approx(iou**2)
    # the pooled target is 0.25 at most, no pixel of a mask
    assert float(terms.pooled_targets(target.float(), 16).max()) == 0.25


@pytest.mark.parametrize("name", ["sam", "dice_ce", "weighted", "mse", "tversky", "otx", "points"])
def test_every_recipe_overfits_a_mask(option, name):
    """From low-resolution logits as training has them, to the loss at the size each asks for."""
    target = torch.zeros(2, 64, 64, dtype=torch.bool)
    target[0, 8:40, 12:44] = True
    target[1, 40:60, 4:60] = True
    logits = torch.zeros(2, 16, 16, requires_grad=True)
    iou = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([logits, iou], lr=0.3)
    loss = option(f"loss/{name}", **({"points": 1024} if name == "points" else {}))
    if loss.resolution == "auto":
        loss = dataclasses.replace(loss, resolution="low")
    torch.manual_seed(0)
    for _ in range(60):
        optimizer.zero_grad()
        mask_losses(loss, logits, iou, target)["loss"].sum().backward()
        optimizer.step()
    low = terms.pooled_targets(target.float(), 16) > 0.5
    mask = logits > 0
    assert ((mask & low).sum((1, 2)) / (mask | low).sum((1, 2)) > 0.95).all()


NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


def test_a_user_without_a_name_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `docker run --user` makes one: MONAI asks for the name when it is imported, which was a traceback."""

    def nobody(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in NAMES:
        monkeypatch.setenv(name, "")  # remembered, and put back
        monkeypatch.delenv(name)
    terms._monai.cache_clear()
    found = terms.monai_dice(torch.zeros(2, 4, 4), torch.ones(2, 4, 4), squared_pred=False)
    assert found.tolist() == pytest.approx([1 / 3] * 2, abs=1e-5)
    assert getpass.getuser() == "user"


@pytest.mark.slow
def test_a_user_without_a_name_trains() -> None:
    """The same in a process that has not imported MONAI yet, which takes twenty seconds of the processor."""
    program = (
        "import pwd\n"
        "def nobody(number): raise KeyError(f'getpwuid(): uid not found: {number}')\n"
        "pwd.getpwuid = nobody\n"
        "import torch\n"
        "from lora_sam.training.losses.terms import monai_dice\n"
        "print(monai_dice(torch.zeros(2, 4, 4), torch.ones(2, 4, 4), squared_pred=False).tolist())"
    )
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == pytest.approx([1 / 3] * 2, abs=1e-5)
