"""Masks are compared where the training objects can be seen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lora_sam.core.frame import Frame
from lora_sam.core.structures import Sample
from lora_sam.training.arithmetic import Arithmetic, differences
from lora_sam.training.comparing import _kept, kept_at_low_resolution, settled
from lora_sam.training.losses.terms import pooled_targets

FRAME = Frame(side=64, square=False)


class Source:
    """Samples of one kind."""

    def __init__(self, masks: list[np.ndarray]) -> None:
        self.samples = [
            Sample(
                id=str(number),
                image=np.zeros((*mask.shape[1:], 3), np.uint8),
                masks=mask,
                object_ids=tuple(f"{number}:{row}" for row in range(len(mask))),
            )
            for number, mask in enumerate(masks)
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def lines(width: int, side: int = 64) -> np.ndarray:
    """A horizontal and a vertical line of so many pixels, away from each other."""
    masks = np.zeros((2, side, side), bool)
    masks[0, 9 : 9 + width, 4:60] = True
    masks[1, 4:60, 30 : 30 + width] = True
    return masks


@pytest.mark.parametrize(("width", "expected"), [(1, "input"), (2, "input"), (16, "low")])
def test_the_size_is_that_at_which_the_objects_are_seen(option, width, expected):
    for name in ("dice_ce", "sam", "weighted"):
        loss, kept = settled(option(f"loss/{name}"), Source([lines(width)]), FRAME, 0)
        assert loss.resolution == expected
        assert (kept < 0.95) is (expected == "input")
    # nothing else of the loss is another
    assert dataclasses.replace(loss, resolution="auto") == option("loss/weighted")


def test_a_line_that_perfect_low_resolution_masks_lack_counts_as_lost():
    assert kept_at_low_resolution(Source([lines(1)]), FRAME, 0) == 0
    assert kept_at_low_resolution(Source([np.zeros((0, 64, 64), bool)]), FRAME, 0) is None


@pytest.mark.parametrize("corner", [(0, 0), (58, 58), (20, 41)])
def test_what_lies_around_an_object_changes_nothing(corner):
    target = torch.zeros(64, 64, dtype=torch.bool)
    target[corner[0] : corner[0] + 6, corner[1] : corner[1] + 5] = True
    shares = pooled_targets(target[None].float(), 16)
    left = torch.nn.functional.interpolate(shares[None], size=64, mode="bilinear", align_corners=False)[0, 0] > 0.5
    assert _kept(target, 16) == pytest.approx(float((target & left).sum() / (target | left).sum()))


def test_a_size_that_is_asked_for_stays(option):
    thin = Source([lines(1)])
    for name, resolution in (("dice_ce", "low"), ("sam", "input")):
        wanted = option(f"loss/{name}", resolution=resolution)
        assert settled(wanted, thin, FRAME, 0) == (wanted, None)
    points = option("loss/points")
    assert settled(points, thin, FRAME, 0) == (points, None)


def arithmetic(**changes: object) -> Arithmetic:
    return Arithmetic(
        device="cpu", machine="a", torch="2", threads=1, processes=1, precision="fp32", training="tiled",
        inference="tiled", checkpointed=(), images=1, prompts=1, **changes,
    )  # fmt: skip


def test_a_resumed_run_compares_where_it_did(option):
    auto, wide = option("loss/dice_ce"), Source([lines(16)])
    assert settled(auto, wide, FRAME, 0, arithmetic(compared="input"))[0].resolution == "input"
    assert settled(auto, wide, FRAME, 0, arithmetic())[0].resolution == "low"
    # a run that is older says nothing of it, which is no difference
    older = {name: value for name, value in arithmetic().to_json().items() if name != "compared"}
    then = Arithmetic.from_json(older)
    assert then is not None
    assert not list(differences(then, arithmetic(compared="low")))
    (told,) = differences(arithmetic(compared="input"), arithmetic(compared="low"))
    assert told.startswith("size at which masks are compared: input in the resumed run, low now")


def test_a_loss_at_low_resolution_learns_thin_objects_away(option):
    """Why: descend on free logits, and look at the masks. At the input's size the line stays."""
    from lora_sam.training.step import mask_losses

    target = torch.from_numpy(lines(2)[:1])
    found = {}
    for resolution in ("low", "input"):
        loss = option("loss/dice_ce", resolution=resolution)
        logits = torch.zeros(1, 16, 16, requires_grad=True)
        optimiser = torch.optim.Adam([logits], lr=0.3)
        for _ in range(60):
            optimiser.zero_grad()
            mask_losses(loss, logits, torch.zeros(1), target)["loss"].sum().backward()
            optimiser.step()
        mask = torch.nn.functional.interpolate(logits.detach()[None], size=64, mode="bilinear")[0] > 0
        found[resolution] = float((mask & target).sum() / (mask | target).sum())
    assert found["low"] < 0.3
    assert found["input"] > 0.4


def test_a_run_says_that_it_compares_at_the_size_of_the_input(option, tiny_sam):
    from types import SimpleNamespace

    from lora_sam.training.settings import Settings
    from lora_sam.training.setup import settle_loss

    told: list[str] = []
    settings = Settings(**dict.fromkeys(field.name for field in dataclasses.fields(Settings)))
    settings = dataclasses.replace(settings, loss=option("loss/sam"), seed=0)
    adapted = SimpleNamespace(sam=tiny_sam())
    for width, resolution, lines_told in ((1, "input", 1), (16, "low", 0)):
        told.clear()
        splits = SimpleNamespace(train=Source([lines(width)]))
        settled_ = settle_loss(settings, splits, adapted, SimpleNamespace(say=told.append))
        assert settled_.loss.resolution == resolution
        assert dataclasses.replace(settled_, loss=settings.loss) == settings
        assert len(told) == lines_told
    splits = SimpleNamespace(train=Source([lines(1)]))
    settle_loss(settings, splits, adapted, SimpleNamespace(say=told.append))
    assert told[0].startswith("masks are compared at 64 px: at 16 px")
    assert "IoU of 0.00" in told[0]
