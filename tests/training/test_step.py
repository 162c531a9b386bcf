"""Gradients of a micro-batch: chunks and batches add up to the plain computation."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from lora_sam.models.decoding import decode_masks
from lora_sam.training import step
from lora_sam.training.examples import Example
from lora_sam.training.prompted import alike, on_background
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
    loss = option("loss/sam", resolution="low")
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
        adapted,
        option("loss/sam", resolution="low"),
        examples(),
        chunk=16,
        multimask_points=False,
        scale=1.0,
        autocast=nullcontext(),
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
    adapted, loss = option("method/decoder").apply(tiny_sam()), option("loss/sam", resolution="low")

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
    loss = option("loss/sam", resolution="low")
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


# --- several masks ---------------------------------------------------------------------------------------------------


def test_reductions_of_several_masks(option):
    loss = option("loss/sam", resolution="low")
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 3, 16, 16, generator=generator) * 5
    iou = torch.rand(20, 3, generator=generator)
    targets = torch.rand(20, 64, 64, generator=generator) > 0.7
    values = {name: several_masks_loss(loss, logits, iou, targets, name) for name in ("mean", "best_loss", "best_iou")}
    each = [mask_losses(loss, logits[:, index], iou[:, index], targets) for index in range(3)]
    masks = torch.stack([parts["loss"] - loss.iou * parts["iou"] for parts in each], dim=1)
    errors = loss.iou * torch.stack([parts["iou"] for parts in each], dim=1).mean(dim=1)
    torch.testing.assert_close(values["mean"], masks.mean(dim=1) + errors)
    torch.testing.assert_close(values["best_loss"], masks.min(dim=1).values + errors)
    torch.testing.assert_close(values["best_iou"], masks[torch.arange(20), iou.argmax(dim=1)] + errors)
    assert (values["best_loss"] < values["mean"]).all()
    assert (values["best_loss"] <= values["best_iou"]).all()
    assert (values["best_loss"] < values["best_iou"]).any()


@pytest.mark.parametrize("reduction", ["mean", "best_loss", "best_iou"])
def test_several_masks_train_whatever_the_prompt_is(option, tiny_sam, reduction):
    adapted, loss = option("method/decoder").apply(tiny_sam()), option("loss/sam", resolution="low")
    single = accumulate_gradients(
        adapted, loss, examples(), chunk=3, multimask_points=False, scale=1.0, autocast=nullcontext()
    )
    adapted.peft.zero_grad(set_to_none=True)
    parts = accumulate_gradients(
        adapted,
        loss,
        examples(),
        chunk=3,
        multimask_points=False,
        multimask=reduction,
        scale=1.0,
        autocast=nullcontext(),
    )
    assert parts["loss"] == pytest.approx(single["loss"] + parts["several_masks"], rel=1e-5)
    trained = [bool(layer.layers[0].weight.grad.any()) for layer in adapted.sam.mask_decoder.output_hypernetworks_mlps]
    assert trained[0]
    assert any(trained[1:])
    assert all(trained) or reduction != "mean"


# --- prompts of several kinds, and rounds ----------------------------------------------------------------------------


def mixed_examples() -> list[Example]:
    """In each image boxes for some objects, a point for others, both for the last, and a mask for the first."""
    made = []
    for example, single in zip(examples(), point_examples(), strict=True):
        boxes, labels = example.boxes.clone(), single.labels.clone()
        boxes[1::2] = torch.nan
        boxes[-1] = example.boxes[-1]
        labels[::2] = -1
        labels[-1] = 1
        masks = torch.full((len(boxes), 16, 16), torch.nan)
        masks[0] = 3.0
        made.append(replace(example, boxes=boxes, points=single.points, labels=labels, mask_inputs=masks))
    return made


def gradients(adapted, loss, batch, chunk=16, **changes):
    adapted.peft.zero_grad(set_to_none=True)
    parts = accumulate_gradients(
        adapted,
        loss,
        batch,
        **{"chunk": chunk, "multimask_points": False, "scale": 1.0, "autocast": nullcontext(), **changes},
    )
    return parts, {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in adapted.trainable().items()
    }


def assert_close(one, other):
    for name, value in one.items():
        assert (value - other[name]).abs().max() <= 1e-4 * float(value.abs().max()) + 1e-8, name


def test_objects_of_one_image_may_be_prompted_differently(option, tiny_sam):
    """The gradient is the sum of those of the objects alone."""
    adapted, loss = option("method/lora").apply(tiny_sam()), option("loss/sam", resolution="low")
    batch = mixed_examples()
    assert len(alike(batch)) == 4
    parts, together = gradients(adapted, loss, batch, chunk=2)
    total, sums = 0.0, {name: torch.zeros_like(value) for name, value in together.items()}
    for example in batch:
        for row in range(len(example.targets)):
            has_box, has_point = not example.boxes[row].isnan().any(), bool((example.labels[row] == 1).any())
            has_mask = not example.mask_inputs[row].isnan().any()
            one = slice(row, row + 1)
            alone = replace(
                example,
                boxes=example.boxes[one] if has_box else None,
                points=example.points[one] if has_point else None,
                labels=example.labels[one] if has_point else None,
                mask_inputs=example.mask_inputs[one] if has_mask else None,
                targets=example.targets[one],
            )
            single, gradient = gradients(adapted, loss, [alone])
            total += single["loss"]
            sums = {name: sums[name] + value for name, value in gradient.items()}
    objects = sum(OBJECTS)
    assert parts["loss"] == pytest.approx(total / objects, rel=1e-5)
    assert_close({name: value / objects for name, value in sums.items()}, together)


def corrected_examples(rounds: int, batch=None) -> list[Example]:
    generator = torch.Generator().manual_seed(1)
    return [
        replace(
            example,
            places=torch.rand(len(example.targets), rounds - 1, generator=generator, dtype=torch.float64),
            corrected_masks=torch.rand(len(example.targets), rounds - 1, generator=generator) < 0.5,
        )
        for example in batch or examples()
    ]


@pytest.mark.parametrize("kind", ["boxes", "mixed"])
def test_gradients_of_rounds_do_not_depend_on_chunks(option, tiny_sam, kind):
    adapted, loss = option("method/decoder").apply(tiny_sam()), option("loss/sam", resolution="low")
    # the first wrong pixel: rounding may turn one where the logit is 0, which would move a click at any other place
    batch = [
        replace(example, places=torch.zeros_like(example.places))
        for example in corrected_examples(4, examples() if kind == "boxes" else mixed_examples())
    ]
    parts, whole = gradients(adapted, loss, batch, chunk=16)
    assert any(value.any() for value in whole.values())
    for chunk in (1, 2, 3):
        again, gradient = gradients(adapted, loss, batch, chunk=chunk)
        assert again["loss"] == pytest.approx(parts["loss"], rel=1e-4)
        assert_close(whole, gradient)


def test_rounds_encode_once_and_decode_a_chunk_at_a_time(option, tiny_sam, monkeypatch):
    adapted, loss = option("method/lora").apply(tiny_sam()), option("loss/sam", resolution="low")
    encoded, decoded = [], []
    adapted.sam.image_encoder.register_forward_hook(lambda *_: encoded.append(1))
    original = step.decode_all_masks

    def decode(*arguments, **options):
        tensors = {name: value for name, value in options.items() if name != "masks"}
        decoded.append({name: None if value is None else tuple(value.shape) for name, value in tensors.items()})
        return original(*arguments, **options)

    monkeypatch.setattr(step, "decode_all_masks", decode)
    batch = corrected_examples(3)
    gradients(adapted, loss, batch, chunk=3)
    assert len(encoded) == 1
    assert all(call["boxes"][0] <= 3 for call in decoded)
    points = [0 if call["points"] is None else call["points"][1] for call in decoded]
    assert sum(call["boxes"][0] for call, number in zip(decoded, points, strict=True) if number == 0) == sum(OBJECTS)
    assert sum(call["boxes"][0] for call, number in zip(decoded, points, strict=True) if number == 2) == sum(OBJECTS)
    with_masks = sum(call["mask_inputs"][0] for call in decoded if call["mask_inputs"] is not None)
    assert with_masks == sum(int(example.corrected_masks.sum()) for example in batch)


def test_the_first_of_several_rounds_is_what_one_round_is(option, tiny_sam, monkeypatch):
    """Corrections that change nothing: the mean over rounds is the loss of one."""
    adapted, loss = option("method/decoder").apply(tiny_sam()), option("loss/sam", resolution="low")
    once, gradient = gradients(adapted, loss, examples())
    idle = [
        replace(
            example,
            places=torch.full((len(example.targets), 2), torch.nan, dtype=torch.float64),
            corrected_masks=torch.zeros(len(example.targets), 2, dtype=torch.bool),
        )
        for example in examples()
    ]
    thrice, same = gradients(adapted, loss, idle)
    assert thrice == pytest.approx(once, rel=1e-5)
    assert_close(gradient, same)


def test_clicks_lie_where_the_prediction_is_wrong():
    (batch,) = alike(corrected_examples(3))
    logits = torch.randn(len(batch.images), 16, 16, generator=torch.Generator().manual_seed(2))
    after = batch.corrected(logits, 0)
    assert after.points.shape == (7, 1, 2)
    enlarged = torch.nn.functional.interpolate(logits.unsqueeze(1), (64, 64), mode="bilinear")[:, 0] > 0
    for row, ((x, y), label) in enumerate(zip(after.points[:, 0].tolist(), after.labels[:, 0].tolist(), strict=True)):
        assert enlarged[row, int(y), int(x)] != batch.targets[row, int(y), int(x)]
        assert label == batch.targets[row, int(y), int(x)]
    assert torch.equal(after.boxes, batch.boxes)
    with_mask = ~after.mask_inputs.isnan().any(dim=(1, 2))
    assert torch.equal(with_mask, batch.corrected_masks[:, 0])
    assert torch.equal(after.mask_inputs[with_mask], logits[with_mask])
    twice = after.corrected(logits, 1)
    assert twice.points.shape == (7, 2, 2)
    assert torch.equal(twice.points[:, :1], after.points)
    # the padding of the frame is no place for a click, whatever is predicted there
    low = replace(batch, extents=torch.tensor([[40, 64]]).expand(7, 2), targets=batch.targets.clone())
    low.targets[:, 40:] = False
    everywhere = low.corrected(torch.ones_like(logits), 0)
    assert (everywhere.points[:, 0, 1] < 40).all()
    assert (everywhere.labels == 0).all()


@pytest.mark.parametrize(
    ("method", "changes"), [("decoder", {}), ("lora", {"blocks": "last:1"})], ids=["decoder", "last block"]
)
@pytest.mark.parametrize("encoded", [(0, 1), (1,)], ids=["both", "one of two"])
def test_gradients_are_those_without_encoding_ahead(option, tiny_sam, method, changes, encoded):
    """From what the frozen part made of an image, in fp32, come the same gradients as from the image."""
    found = []
    for ahead in (False, True):
        adapted = option(f"method/{method}", **changes).apply(tiny_sam())
        for number, parameter in enumerate(adapted.trainable().values()):
            if "lora" in method:
                torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(number))
        batch = examples()
        if ahead:
            stage, encoder = adapted.frozen_stage, adapted.sam.image_encoder
            with torch.no_grad():
                for number in encoded:
                    values = stage.of(encoder, batch[number].image.unsqueeze(0))[0]
                    batch[number] = replace(batch[number], image=None, encoded=values)
        parts = accumulate_gradients(
            adapted,
            option("loss/sam", resolution="low"),
            batch,
            chunk=16,
            multimask_points=False,
            scale=1.0,
            autocast=nullcontext(),
        )
        found.append((parts["loss"], {name: parameter.grad for name, parameter in adapted.trainable().items()}))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-6)
    for name, gradient in found[0][1].items():
        if gradient is not None:
            torch.testing.assert_close(found[1][1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


# --- points on the background ----------------------------------------------------------------------------------------


def examples_with_background() -> list[Example]:
    """One point beside the objects of the first image, two beside those of the second."""
    first, second = examples()
    return [
        replace(first, background=torch.tensor([[60.5, 3.5]])),
        replace(second, background=torch.tensor([[2.5, 60.5], [61.5, 61.5]])),
    ]


@pytest.mark.parametrize(("iou_weight", "mask"), [(0.5, 0.0), (0.0, 2.0), (0.25, 0.5)])
@pytest.mark.parametrize("several", [False, True])
def test_the_background_adds_its_weighted_loss(option, tiny_sam, iou_weight, mask, several):
    """Loss and gradient are those of the objects plus those of the points against empty masks, whatever the chunks."""
    adapted, loss = option("method/lora").apply(tiny_sam()), option("loss/sam", resolution="low")
    weights = {"background_iou": iou_weight, "background_mask": mask, "multimask_points": several}
    plain, gradient = gradients(adapted, loss, examples(), multimask_points=several)
    adapted.peft.zero_grad(set_to_none=True)
    total = torch.zeros(())
    for example in examples_with_background():
        embedding = adapted.sam.image_encoder(example.image.unsqueeze(0))
        points, labels = example.background.unsqueeze(1), torch.ones(len(example.background), 1, dtype=torch.int64)
        for multimask in (False, True)[: 1 + several]:
            logits, iou = decode_masks(
                adapted.sam, embedding, boxes=None, points=points, labels=labels, multimask=multimask
            )
            empty = torch.zeros(len(points), 64, 64, dtype=torch.bool)
            for index in range(logits.shape[1]):
                parts = mask_losses(loss, logits[:, index], iou[:, index], empty)
                wrong = iou_weight * iou[:, index] ** 2 + mask * (20 * parts["focal"] + parts["dice"])
                total = total + wrong.sum() / logits.shape[1]
    (total / sum(OBJECTS)).backward()
    added = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in adapted.trainable().items()
    }
    assert any(value.any() for value in added.values())
    for chunk in (1, 16):
        parts, both = gradients(adapted, loss, examples_with_background(), chunk, **weights)
        assert parts["background"] == pytest.approx(float(total.detach()) / sum(OBJECTS), rel=1e-4)
        assert parts["loss"] == pytest.approx(plain["loss"] + parts["background"], rel=1e-5)
        assert_close({name: value + gradient[name] for name, value in added.items()}, both)


def test_background_without_weight_is_not_decoded(option, tiny_sam):
    adapted, loss = option("method/decoder").apply(tiny_sam()), option("loss/sam", resolution="low")
    plain, gradient = gradients(adapted, loss, examples())
    same, again = gradients(adapted, loss, examples_with_background(), background_iou=0.0, background_mask=0.0)
    assert same == plain
    assert_close(gradient, again)


def test_images_without_background_beside_others(option, tiny_sam):
    first, second = examples_with_background()
    batch = [replace(first, background=torch.empty(0, 2)), second, replace(first, background=None)]
    found = on_background(batch)
    assert found.images.tolist() == [1, 1]
    assert found.points.tolist() == second.background.unsqueeze(1).tolist()
    assert not found.targets.any()
    assert found.single_points
    assert on_background(batch[:1]) is None


def test_rounds_without_a_click_are_apart_from_those_with_one(option, tiny_sam):
    """Images of one batch may differ in their rounds, and in which of them have no click."""
    first, second = corrected_examples(3)
    second = replace(second, places=second.places.clone(), corrected_masks=second.corrected_masks.clone())
    second.places[:, 0] = torch.nan
    second.corrected_masks[:, 0] = True
    once = replace(examples()[0], places=torch.zeros(OBJECTS[0], 0), corrected_masks=torch.zeros(OBJECTS[0], 0).bool())
    batch = [first, second, once]
    groups = alike(batch)
    assert sorted((group.rounds, len(group.images)) for group in groups) == [(1, 5), (3, 2), (3, 5)]
    idle = next(group for group in groups if len(group.images) == 2)
    after = idle.corrected(torch.randn(2, 16, 16), 0)
    assert after.points is None
    assert after.mask_inputs is not None
    assert not after.mask_inputs.isnan().any()
    assert after.corrected(torch.randn(2, 16, 16), 1).points.shape == (2, 1, 2)
    adapted, loss = option("method/decoder").apply(tiny_sam()), option("loss/sam", resolution="low")
    parts, _ = gradients(adapted, loss, batch)
    single = [gradients(adapted, loss, [example]) for example in batch]
    counts = [len(example.targets) for example in batch]
    value = sum(count * part["loss"] for count, (part, _) in zip(counts, single, strict=True))
    assert parts["loss"] == pytest.approx(value / sum(counts), rel=1e-4)
