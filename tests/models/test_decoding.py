"""Decoding prompts: shapes, and that prompts of one image do not touch each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lora_sam.models.decoding import decode_all_masks, decode_masks, device_of
from lora_sam.models.device import autocast

EMBEDDING = torch.randn(1, 32, 4, 4, generator=torch.Generator().manual_seed(0))
BOXES = torch.tensor([[1.0, 2, 30, 40], [9, 5, 60, 60], [0, 0, 64, 64]])
POINTS = torch.tensor([[[5.0, 6], [30, 20]], [[0, 0], [12, 7]], [[33, 33], [20, 1]]])
LABELS = torch.tensor([[1, 0], [1, 1], [0, -1]])
KINDS: dict[str, dict[str, torch.Tensor | None]] = {
    "boxes": {"boxes": BOXES, "points": None, "labels": None},
    "points": {"boxes": None, "points": POINTS, "labels": LABELS},
    "both": {"boxes": BOXES, "points": POINTS, "labels": LABELS},
}


@pytest.fixture
def sam(tiny_sam: Callable[[], Any]) -> Any:
    return tiny_sam()


@pytest.mark.parametrize(("multimask", "masks"), [(False, 1), (True, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_shapes(sam: Any, kind: str, multimask: bool, masks: int) -> None:
    logits, iou = decode_masks(sam, EMBEDDING, **KINDS[kind], multimask=multimask)
    assert logits.shape == (3, masks, 16, 16)
    assert iou.shape == (3, masks)
    assert logits.dtype == iou.dtype == torch.float32


def test_the_single_mask_is_none_of_the_three(sam: Any) -> None:
    single, iou = decode_masks(sam, EMBEDDING, **KINDS["boxes"])
    three, ious = decode_masks(sam, EMBEDDING, **KINDS["boxes"], multimask=True)
    assert ((three - single).flatten(2).abs().amax(dim=2) > 1e-3).all()
    assert ((ious - iou).abs() > 1e-4).all()


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_do_not_touch_each_other(sam: Any, kind: str) -> None:
    together, iou = decode_masks(sam, EMBEDDING, **KINDS[kind])
    for row in range(3):
        alone = {name: None if value is None else value[row : row + 1] for name, value in KINDS[kind].items()}
        logits, score = decode_masks(sam, EMBEDDING, **alone)
        assert (logits[0] - together[row]).abs().max() < 1e-5
        assert (score[0] - iou[row]).abs().max() < 1e-5
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_where_padding_lies_does_not_matter(sam: Any) -> None:
    moved = POINTS.clone()
    moved[2, 1] = 999
    before = decode_masks(sam, EMBEDDING, boxes=None, points=POINTS, labels=LABELS)[0]
    after = decode_masks(sam, EMBEDDING, boxes=None, points=moved, labels=LABELS)[0]
    assert torch.equal(before, after)
    moved[0, 1] = 9
    assert not torch.equal(decode_masks(sam, EMBEDDING, boxes=None, points=moved, labels=LABELS)[0][0], before[0])


def test_labels_matter(sam: Any) -> None:
    ours, theirs = (
        decode_masks(sam, EMBEDDING, boxes=None, points=POINTS, labels=labels)[0]
        for labels in (LABELS, 1 - LABELS.abs())
    )
    assert (ours - theirs).abs().max() > 1e-3


def test_results_are_fp32_under_autocast(sam: Any) -> None:
    exact, score = decode_masks(sam, EMBEDDING, **KINDS["boxes"])
    with autocast(torch.device("cpu"), "bf16"):
        logits, iou = decode_masks(sam, EMBEDDING, **KINDS["boxes"])
    assert logits.dtype == iou.dtype == torch.float32
    assert 0 < float((logits - exact).abs().max()) < 0.1
    assert float((iou - score).abs().max()) < 0.1


def test_gradients_reach_embedding_and_decoder(sam: Any) -> None:
    embedding = EMBEDDING.clone().requires_grad_()
    sam.mask_decoder.requires_grad_(True)
    logits, iou = decode_masks(sam, embedding, **KINDS["boxes"])
    (logits.mean() + iou.mean()).backward()
    assert embedding.grad is not None
    assert float(embedding.grad.abs().max()) > 0
    assert float(sam.mask_decoder.iou_token.weight.grad.abs().max()) > 0
    assert all(parameter.grad is None for parameter in sam.prompt_encoder.parameters())


def test_device_of(sam: Any) -> None:
    assert device_of(sam) == torch.device("cpu")
    assert device_of(sam.to("meta")) == torch.device("meta")


def package_masks(sam: Any, embedding: torch.Tensor, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The four masks as `segment_anything` computes them."""
    prompts = KINDS[kind]
    points = None if prompts["points"] is None else (prompts["points"], prompts["labels"])
    sparse, dense = sam.prompt_encoder(points=points, boxes=prompts["boxes"], masks=None)
    masks: tuple[torch.Tensor, torch.Tensor] = sam.mask_decoder.predict_masks(
        image_embeddings=embedding,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )
    return masks


@pytest.mark.parametrize("kind", KINDS)
def test_all_masks_are_those_of_segment_anything(sam: Any, kind: str) -> None:
    logits, iou = decode_all_masks(sam, EMBEDDING, **KINDS[kind])
    expected_logits, expected_iou = package_masks(sam, EMBEDDING, kind)
    torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(iou, expected_iou, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_of_several_images_are_decoded_each_on_its_own(sam: Any, kind: str) -> None:
    embeddings = torch.cat([EMBEDDING, EMBEDDING.flip(-1) * 1.5])
    images = torch.tensor([1, 0, 1])
    logits, iou = decode_all_masks(sam, embeddings, **KINDS[kind], images=images)
    for row, image in enumerate(images.tolist()):
        expected_logits, expected_iou = package_masks(sam, embeddings[image : image + 1], kind)
        torch.testing.assert_close(logits[row], expected_logits[row], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(iou[row], expected_iou[row], rtol=1e-4, atol=1e-5)
    assert (logits[0] - package_masks(sam, embeddings[:1], kind)[0][0]).abs().max() > 1e-3
