"""Gradients of a micro-batch: chunks and batches add up to the plain computation."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from lora_sam.data.batches import Example
from lora_sam.models.decode import decode_masks
from lora_sam.training.step import accumulate_gradients, mask_losses, several_masks_loss

OBJECTS = (5, 2)


def examples() -> list[Example]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for index, count in enumerate(OBJECTS):
        corners = torch.rand(count, 2, generator=generator) * 30
        boxes = torch.cat([corners, corners + 10 + torch.rand(count, 2, generator=generator) * 20], dim=1)
        targets = torch.zeros(count, 64, 64, dtype=torch.bool)
        for row, (x1, y1, x2, y2) in enumerate(boxes.int().tolist()):
            targets[row, y1:y2, x1:x2] = True
        image = torch.randn(3, 64, 64, generator=generator)
        ids = tuple(str(row) for row in range(count))
        made.append(Example(f"{index}.png", image, boxes, None, None, targets, (64, 64), ids))
    return made


def plain_gradients(adapted, loss, batch):
    """One forward pass and one backward pass over everything at once."""
    total, objects = 0.0, 0
    for example in batch:
        embedding = adapted.sam.image_encoder(example.image.unsqueeze(0))
        logits, iou = decode_masks(adapted.sam, embedding, boxes=example.boxes, points=None, labels=None)
        total = total + mask_losses(loss, logits[:, 0], iou[:, 0], example.targets)["loss"].sum()
        objects += len(example.targets)
    (total / objects).backward()
    gradients = {name: parameter.grad for name, parameter in adapted.trainable().items()}
    adapted.peft.zero_grad(set_to_none=True)
    return gradients, float(total.detach()) / objects


@pytest.mark.parametrize("resolution", ["low", "input"])
@pytest.mark.parametrize("method", ["method/lora", "method/decoder", "method/full"])
@pytest.mark.parametrize("chunk", [1, 2, 16])
def test_chunked_gradients_equal_the_plain_ones(option, tiny_sam, method, chunk, resolution):
    adapted = option(method).apply(tiny_sam())
    for name, parameter in adapted.trainable().items():  # B = 0 would leave A without a gradient
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(1))
    loss = option("loss/sam", resolution=resolution)
    expected, value = plain_gradients(adapted, loss, examples())
    parts = accumulate_gradients(
        adapted, loss, examples(), chunk=chunk, multimask_points=False, scale=1.0, autocast=nullcontext()
    )
    assert parts["loss"] == pytest.approx(value, rel=1e-5)
    assert parts["loss"] == pytest.approx(20 * parts["focal"] + parts["dice"] + parts["iou"], rel=1e-5)
    for name, parameter in adapted.trainable().items():
        if expected[name] is None:  # parts of the prompt encoder that boxes do not use
            assert parameter.grad is None or not parameter.grad.any()
            continue
        scale = float(expected[name].abs().max())
        assert (parameter.grad - expected[name]).abs().max() <= 1e-4 * scale + 1e-8, name


def test_scale_and_accumulation(option, tiny_sam):
    adapted = option("method/decoder").apply(tiny_sam())
    loss = option("loss/sam")
    run = lambda scale: accumulate_gradients(  # noqa: E731
        adapted, loss, examples(), chunk=16, multimask_points=False, scale=scale, autocast=nullcontext()
    )
    run(1.0)
    once = [parameter.grad.clone() for parameter in adapted.trainable().values()]
    adapted.peft.zero_grad()
    run(0.25)
    run(0.75)
    for parameter, gradient in zip(adapted.trainable().values(), once, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-7)


def test_a_frozen_encoder_gets_no_gradient_and_keeps_no_graph(option, tiny_sam):
    adapted = option("method/decoder").apply(tiny_sam())
    accumulate_gradients(
        adapted, option("loss/sam"), examples(), chunk=16, multimask_points=False, scale=1.0, autocast=nullcontext()
    )
    assert all(parameter.grad is None for parameter in adapted.sam.image_encoder.parameters())
    assert all(parameter.grad is None for parameter in adapted.sam.prompt_encoder.parameters())
    assert any(parameter.grad is not None for parameter in adapted.trainable().values())


def test_low_resolution_targets_are_the_covered_share():
    captured = {}

    class Spy:
        resolution = "low"

        def __call__(self, logits, iou, targets):
            captured["targets"] = targets
            return {"loss": iou}

    targets = torch.zeros(1, 64, 64, dtype=torch.bool)
    targets[0, :4, :6] = True  # one whole 4 x 4 cell, half of the next
    mask_losses(Spy(), torch.zeros(1, 16, 16), torch.zeros(1), targets)
    assert captured["targets"][0, 0, :3].tolist() == [1.0, 0.5, 0.0]
    assert float(captured["targets"].sum()) == pytest.approx(1.5)


def point_examples() -> list[Example]:
    made = []
    for example in examples():
        centres = (example.boxes[:, :2] + example.boxes[:, 2:]) / 2
        labels = torch.ones(len(centres), 1, dtype=torch.int64)
        made.append(replace(example, boxes=None, points=centres.unsqueeze(1), labels=labels))
    return made


def test_a_single_point_trains_the_three_masks_too(option, tiny_sam):
    adapted, loss = option("method/decoder").apply(tiny_sam()), option("loss/sam")

    def tokens_with_gradient(batch: list[Example], multimask_points: bool) -> tuple[list[bool], dict[str, float]]:
        adapted.peft.zero_grad(set_to_none=True)
        parts = accumulate_gradients(
            adapted, loss, batch, chunk=3, multimask_points=multimask_points, scale=1.0, autocast=nullcontext()
        )
        layers = adapted.sam.mask_decoder.output_hypernetworks_mlps
        return [
            layer.layers[0].weight.grad is not None and bool(layer.layers[0].weight.grad.any()) for layer in layers
        ], parts

    boxes, _ = tokens_with_gradient(examples(), True)
    assert boxes == [True, False, False, False]
    off, single = tokens_with_gradient(point_examples(), False)
    assert off == [True, False, False, False]
    on, several = tokens_with_gradient(point_examples(), True)
    assert on[0]
    assert any(on[1:])
    assert several["loss"] == pytest.approx(single["loss"] + several["several_masks"], rel=1e-5)


def test_of_several_masks_only_the_best_needs_to_be_right(option):
    loss = option("loss/sam")
    targets = torch.zeros(1, 64, 64, dtype=torch.bool)
    targets[0, 8:40, 8:40] = True
    right = torch.where(targets[:, ::4, ::4], 20.0, -20.0)
    logits = torch.stack([-right[0], right[0], torch.zeros(16, 16)]).unsqueeze(0).requires_grad_()
    iou = torch.tensor([[0.0, 1.0, 0.5]])
    value = several_masks_loss(loss, logits, iou, targets)
    value.sum().backward()
    assert not logits.grad[0, 0].any()
    assert not logits.grad[0, 2].any()
    # the best mask is perfect; of the predicted IoU 0, 1, 0.5 the last is wrong (true: 0), by 0.25 over 3 masks
    assert value.item() == pytest.approx(loss.iou * 0.25 / 3, abs=1e-3)
