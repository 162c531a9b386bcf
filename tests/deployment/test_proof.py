"""The proof that two models are the same sees every weight, and every way of not being the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from lora_sam.core.frame import Frame
from lora_sam.deployment.proof import FOLDED, Agreement, Answers, answers, compare, probe
from lora_sam.models.decoding import decode_all_masks
from lora_sam.models.projections import fuse_projections

SIDE = 64
FRAME = Frame(SIDE, square=False)


def test_a_probe_is_always_the_same_and_has_every_kind_of_prompt() -> None:
    first, again, other = probe(FRAME), probe(FRAME), probe(FRAME, seed=1)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert first.images.shape == (1, 3, SIDE, SIDE)
    assert (first.images[:, :, 48:] == 0).all()  # padding
    kinds = [tuple(value is not None for value in vars(prompts).values()) for prompts in first.prompts]
    assert kinds == [
        (True, False, False, False),
        (False, True, True, False),
        (True, True, True, False),
        (True, False, False, True),
    ]
    boxes, points = first.prompts[2].boxes, first.prompts[2].points
    assert boxes is not None
    assert points is not None
    assert ((boxes >= 0) & (boxes <= SIDE)).all()
    inside = (points[:, 0] > boxes[:, :2]) & (points[:, 0] < boxes[:, 2:])
    assert inside.all(), "the foreground points are not in their boxes"


@pytest.mark.parametrize("side", [32, 48, 512])
def test_any_input_size_has_objects(side: int) -> None:
    for prompts in probe(Frame(side, square=False)).prompts:
        if prompts.boxes is not None:
            assert ((prompts.boxes[:, 2:] - prompts.boxes[:, :2]) >= 2).all()
        if prompts.mask_inputs is not None:
            assert prompts.mask_inputs.shape == (4, side // 4, side // 4)
            assert ((prompts.mask_inputs > 0).flatten(1).any(dim=1)).all()


def test_every_weight_changes_the_answers(tiny_sam: Callable[[], Any]) -> None:
    sam, questions = tiny_sam().requires_grad_(True), probe(FRAME)
    total = torch.zeros(())
    embeddings = sam.image_encoder(questions.images)
    for prompts in questions.prompts:
        logits, scores = decode_all_masks(sam, embeddings, **vars(prompts))
        total = total + (logits**2).sum() + (scores**2).sum()
    total.backward()
    # a bias of the keys adds the same to every logit of a softmax
    unseen = {
        name
        for name, parameter in sam.named_parameters()
        if not name.endswith(("k.bias", "k_proj.bias")) and (parameter.grad is None or not parameter.grad.any())
    }
    assert unseen == set()


def test_split_and_fused_projections_agree(tiny_sam: Callable[[], Any]) -> None:
    questions = probe(FRAME)
    expected = answers(tiny_sam(), questions)
    assert expected.logits.shape == (16, 4, 16, 16)
    assert expected.scores.shape == (16, 4)
    fused = fuse_projections(tiny_sam()).eval().requires_grad_(False)
    agreement = compare(expected, answers(fused, questions))
    assert agreement.within(1e-6)
    assert agreement.masks == 64
    assert agreement.mean_mask_iou > 0.999


def test_what_differs_is_measured() -> None:
    logits = torch.full((1, 4, 2, 2), -1.0)
    logits[0, 0] = 1.0
    expected = Answers(logits, torch.zeros(1, 4))
    same = compare(expected, expected)
    assert same == Agreement(0.0, 0.0, 1.0, 4)  # empty masks agree
    half = logits.clone()
    half[0, 0, 0] = -0.5
    found = compare(expected, Answers(half, torch.full((1, 4), 0.25)))
    assert found == Agreement(1.5, 0.25, (0.5 + 3) / 4, 4)
    assert not found.within(1.0)
    assert found.within(1.5)
    assert not replace(found, largest_score_difference=2.0).within(1.5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_number_never_agrees(value: float) -> None:
    zeros = Answers(torch.zeros(1, 4, 2, 2), torch.zeros(1, 4))
    broken = Answers(torch.full((1, 4, 2, 2), value), torch.zeros(1, 4))
    assert not compare(zeros, broken).within(FOLDED)
    assert not compare(broken, broken).within(FOLDED)
