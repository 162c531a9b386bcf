"""Decoding with the projections moved to the tokens: results and gradients of the decoder as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom

from lora_sam.models import decoding as decode
from lora_sam.models.decoding import decode_all_masks, masks_from_embeddings
from lora_sam.models.device import autocast
from lora_sam.models.shared_decoding import MOST_TOKENS, affine, masks_of_tokens
from lora_sam.models.windows import put_into_frame

GENERATOR = torch.Generator().manual_seed(0)
EMBEDDINGS = torch.randn(3, 32, 4, 4, generator=GENERATOR)
CORNERS = torch.rand(6, 2, generator=GENERATOR) * 30
BOXES = torch.cat([CORNERS, CORNERS + 4 + torch.rand(6, 2, generator=GENERATOR) * 28], dim=1)
POINTS = torch.rand(6, 2, 2, generator=GENERATOR) * 64
LABELS = torch.tensor([[1, 0], [1, 1], [0, -1], [1, -1], [0, 1], [1, 0]])
ROUGH = torch.randn(6, 16, 16, generator=GENERATOR) * 4
IMAGES = torch.tensor([2, 0, 1, 1, 2, 0])
KINDS: dict[str, dict[str, Any]] = {
    "boxes": {"boxes": BOXES, "points": None, "labels": None},
    "one box": {"boxes": BOXES[:1], "points": None, "labels": None},
    "points": {"boxes": None, "points": POINTS, "labels": LABELS},
    "both": {"boxes": BOXES, "points": POINTS, "labels": LABELS},
    "masks": {"boxes": BOXES, "points": None, "labels": None, "mask_inputs": ROUGH},
    "several images": {"boxes": BOXES, "points": None, "labels": None, "images": IMAGES},
    "masks of several images": {"boxes": BOXES, "points": None, "labels": None, "mask_inputs": ROUGH, "images": IMAGES},
}


def plain(sam: Any, embeddings: torch.Tensor, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks by the modules of `segment_anything`, with everything repeated for every prompt."""
    prompts = KINDS[kind]
    points = None if prompts["points"] is None else (prompts["points"], prompts["labels"])
    rough = prompts.get("mask_inputs")
    sparse, dense = sam.prompt_encoder(
        points=points, boxes=prompts["boxes"], masks=None if rough is None else rough.unsqueeze(1)
    )
    images = prompts.get("images", torch.zeros(len(sparse), dtype=torch.int64))
    logits, iou = masks_from_embeddings(sam, embeddings[images] + dense, sparse)
    return logits.float(), iou.float()


def shared(sam: Any, embeddings: torch.Tensor, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    first = embeddings if "images" in KINDS[kind] else embeddings[:1]
    return decode_all_masks(sam, first, **KINDS[kind])


def frozen(option: Callable[..., Any]) -> Any:
    return option("model/tiny_random").build().sam


def whole(option: Callable[..., Any]) -> Any:
    return option("method/decoder").apply(frozen(option)).sam


def with_lora(option: Callable[..., Any], **changes: Any) -> Any:
    method = option("method/lora", decoder="lora", targets=["q", "k", "v", "proj", "mlp"], **changes)
    torch.manual_seed(0)  # PEFT draws A
    adapted = method.apply(frozen(option))
    generator = torch.Generator().manual_seed(3)
    for parameter in adapted.trainable().values():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return adapted.sam


MODELS = {
    "frozen": frozen,
    "trained whole": whole,
    "LoRA": with_lora,
    "DoRA with biases": lambda option: with_lora(option, dora=True, bias="lora_only"),
}


def gradients(
    compute: Callable[..., tuple[torch.Tensor, torch.Tensor]], sam: Any, kind: str, single: bool = False
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor | None]]:
    embeddings = EMBEDDINGS.clone().requires_grad_()
    logits, iou = compute(sam, embeddings, kind)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    loss = logits * weights + iou[..., None, None]
    sam.zero_grad(set_to_none=True)
    (loss[:, 0] if single else loss).sum().backward()
    found = {name: value.grad for name, value in sam.mask_decoder.named_parameters() if value.requires_grad}
    return logits.detach(), iou.detach(), {"embedding": embeddings.grad, **found}


def assert_near(found: torch.Tensor, expected: torch.Tensor, relative: float, name: str = "") -> None:
    assert found.shape == expected.shape, name
    # biases that the softmax cancels have gradients of rounding alone
    assert (found - expected).norm() <= relative * expected.norm() + 2e-5, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", MODELS)
def test_results_and_gradients_are_those_of_the_decoder(option: Callable[..., Any], model: str, kind: str) -> None:
    sam = MODELS[model](option)
    logits, iou, expected = gradients(plain, sam, kind)
    found_logits, found_iou, found = gradients(shared, sam, kind)
    assert_near(found_logits, logits, 1e-5)
    assert_near(found_iou, iou, 1e-5)
    assert found.keys() == expected.keys()
    assert len(found) > 1 or model == "frozen"
    for name, gradient in expected.items():
        assert gradient is not None, name
        value = found[name]
        assert value is not None, name
        assert_near(value, gradient, 1e-4, name)
    assert expected["embedding"] is not None
    assert expected["embedding"].norm() > 1e-3


@pytest.mark.parametrize("kind", ["boxes", "several images"])
@pytest.mark.parametrize("model", ["trained whole", "LoRA"])
def test_bf16_is_as_close_as_the_decoder_in_bf16(option: Callable[..., Any], model: str, kind: str) -> None:
    sam = MODELS[model](option)
    exact = gradients(plain, sam, kind)
    with autocast(torch.device("cpu"), "bf16"):
        ours = gradients(shared, sam, kind)
        theirs = gradients(plain, sam, kind)
    for found, other, wanted in zip(ours[:2], theirs[:2], exact[:2], strict=True):
        assert (found - wanted).norm() < 2 * (other - wanted).norm() + 0.01 * wanted.norm()
    mine, wanted_gradient = ours[2]["embedding"], exact[2]["embedding"]
    assert mine is not None
    assert wanted_gradient is not None
    assert (mine - wanted_gradient).norm() < 0.1 * wanted_gradient.norm()


def test_positions_are_exact_under_autocast(tiny_sam: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sam = tiny_sam()
    seen: list[torch.Tensor] = []

    def record(
        decoder: Any, pixels: Any, positions: torch.Tensor, tokens: torch.Tensor, masks: slice, fine: Any
    ) -> Any:
        seen.extend((positions, tokens))
        return masks_of_tokens(decoder, pixels, positions, tokens, masks, fine)

    monkeypatch.setattr(decode, "masks_of_tokens", record)
    with autocast(torch.device("cpu"), "bf16"):
        shared(sam, EMBEDDINGS, "boxes")
    assert torch.equal(seen[0], sam.prompt_encoder.get_dense_pe()[0].permute(1, 2, 0))
    assert torch.equal(torch.cat(seen[1::2])[:, 5:], sam.prompt_encoder(points=None, boxes=BOXES, masks=None)[0])


@pytest.mark.parametrize("masks", [slice(0, 1), slice(1, None), slice(2, 3)])
def test_some_masks_are_those_of_all(option: Callable[..., Any], masks: slice) -> None:
    sam = whole(option)
    logits, iou = shared(sam, EMBEDDINGS, "boxes")
    some_logits, some_iou = decode_all_masks(sam, EMBEDDINGS[:1], **KINDS["boxes"], masks=masks)
    assert_near(some_logits, logits[:, masks], 1e-5)
    assert torch.equal(some_iou, iou[:, masks])


def test_one_mask_has_the_gradients_of_a_loss_of_one_of_all(option: Callable[..., Any]) -> None:
    def first(sam: Any, embeddings: torch.Tensor, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
        return decode_all_masks(sam, embeddings[:1], **KINDS[kind], masks=slice(0, 1))

    def all_and_cut(sam: Any, embeddings: torch.Tensor, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
        logits, iou = plain(sam, embeddings, kind)
        return logits[:, :1], iou[:, :1]

    sam = whole(option)
    expected = gradients(all_and_cut, sam, "boxes")[2]
    for name, gradient in gradients(first, sam, "boxes")[2].items():
        wanted = expected[name]
        assert gradient is not None, name  # of zero where nothing was asked for, so that weights decay as they did
        assert wanted is not None, name
        assert_near(gradient, wanted, 1e-4, name)


def test_switched_off_adapters_give_the_base(option: Callable[..., Any]) -> None:
    adapted = option("method/lora", decoder="lora").apply(frozen(option))
    for parameter in adapted.trainable().values():
        parameter.data.normal_(std=0.1)
    expected = shared(frozen(option), EMBEDDINGS, "boxes")[0]
    assert (shared(adapted.sam, EMBEDDINGS, "boxes")[0] - expected).norm() > 1e-3 * expected.norm()
    with adapted.base():
        assert_near(shared(adapted.sam, EMBEDDINGS, "boxes")[0], expected, 1e-5)


def used(sam: Any, monkeypatch: pytest.MonkeyPatch, **prompts: Any) -> bool:
    """Whether these prompts are decoded with moved projections."""
    calls: list[bool] = []
    monkeypatch.setattr(decode, "masks_of_tokens", lambda *values: calls.append(True) or masks_of_tokens(*values))
    decode_all_masks(sam, EMBEDDINGS[:1], **prompts)
    return bool(calls)


def test_many_clicks_and_dropout_are_left_to_the_decoder(
    option: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sam = frozen(option)
    points, labels = torch.rand(2, MOST_TOKENS - 6, 2) * 64, torch.ones(2, MOST_TOKENS - 6, dtype=torch.int64)
    assert used(sam, monkeypatch, boxes=None, points=points, labels=labels)
    more = {"points": torch.rand(2, MOST_TOKENS, 2) * 64, "labels": torch.ones(2, MOST_TOKENS, dtype=torch.int64)}
    assert not used(sam, monkeypatch, boxes=None, **more)
    adapted = option("method/lora", decoder="lora", dropout=0.5).apply(frozen(option))
    assert used(adapted.sam, monkeypatch, **KINDS["boxes"])
    adapted.train_mode()
    assert not used(adapted.sam, monkeypatch, **KINDS["boxes"])
    assert decode_all_masks(adapted.sam, EMBEDDINGS[:1], **KINDS["boxes"], masks=slice(0, 1))[0].shape[:2] == (6, 1)


@pytest.mark.parametrize("at_once", [1, 4, 100])
@pytest.mark.parametrize("kind", ["boxes", "masks of several images"])
def test_how_many_at_once_does_not_matter(
    option: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, at_once: int, kind: str
) -> None:
    sam = whole(option)
    expected = gradients(plain, sam, kind)
    monkeypatch.setattr(decode, "PIXELS_AT_ONCE", at_once * EMBEDDINGS.shape[2] * EMBEDDINGS.shape[3])
    found = gradients(shared, sam, kind)
    assert_near(found[0], expected[0], 1e-5)
    for name, gradient in found[2].items():
        wanted = expected[2][name]
        assert gradient is not None, name
        assert wanted is not None, name
        assert_near(gradient, wanted, 1e-4, name)


def test_positions_are_made_once_and_follow_the_model(
    tiny_sam: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sam = tiny_sam()
    calls: list[tuple[int, int]] = []
    forward = PositionEmbeddingRandom.forward
    monkeypatch.setattr(
        PositionEmbeddingRandom, "forward", lambda self, size: calls.append(size) or forward(self, size)
    )
    with torch.inference_mode():
        before = shared(sam, EMBEDDINGS, "boxes")[0].clone()
    embeddings = EMBEDDINGS[:1].clone().requires_grad_()
    logits = decode_all_masks(sam, embeddings, **KINDS["boxes"])[0]
    logits.sum().backward()  # what was made in inference mode could not be used here
    assert_near(logits.detach(), before, 1e-6)
    assert len(calls) == 1
    sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.mul_(1.5)
    changed = shared(sam, EMBEDDINGS, "boxes")[0]
    assert len(calls) == 2
    assert_near(changed, plain(sam, EMBEDDINGS, "boxes")[0], 1e-5)
    assert (changed - before).norm() > 1e-3 * before.norm()
    other = tiny_sam()
    shared(other.double().float(), EMBEDDINGS, "boxes")
    assert len(calls) == 4  # one by `plain`


def test_places_of_windows_are_drawn_for_every_call(tiny_sam: Callable[[], Any]) -> None:
    sam = tiny_sam()
    put_into_frame(sam, 128)
    sam.prompt_encoder.pe_layer.train()
    torch.manual_seed(0)
    first, second = (shared(sam, EMBEDDINGS, "boxes")[0] for _ in range(2))
    assert (first - second).norm() > 1e-3 * first.norm()
    state = torch.get_rng_state()
    put_into_frame(again := tiny_sam(), 128)
    again.prompt_encoder.pe_layer.train()
    torch.manual_seed(0)
    for result in (first, second):
        assert_near(plain(again, EMBEDDINGS, "boxes")[0], result, 1e-5)
    assert torch.equal(state, torch.get_rng_state())  # as many draws


def test_an_adapted_layer_is_read_by_running_it() -> None:
    class Adapted(torch.nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.base_layer = torch.nn.Linear(5, 3)
            self.factor = factor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.base_layer(x) * self.factor
            return result

    layer = Adapted(2)
    with autocast(torch.device("cpu"), "bf16"):
        matrix, offset = affine(layer)
    torch.testing.assert_close(matrix, 2 * layer.base_layer.weight.T)
    torch.testing.assert_close(offset, 2 * layer.base_layer.bias)
    unchanged = Adapted(1)
    for found, exact in zip(affine(unchanged), affine(unchanged.base_layer), strict=True):
        assert torch.equal(found, exact)
