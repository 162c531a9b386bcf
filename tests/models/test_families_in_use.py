"""What every family of SAMs does beside training, family by check, on drawn weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lora_sam.core.errors import CheckpointError
from lora_sam.deployment.class_output import ClassOutput
from lora_sam.models.decoding import decode_all_masks
from lora_sam.models.device import autocast
from lora_sam.models.family import OPTIONS, frame_of
from lora_sam.models.projections import fuse_state_dict
from lora_sam.predictors.class_head import ClassHead, features_of
from lora_sam.predictors.torch_predictor import TorchPredictor

VARIANTS = {name: "tiny_random" if name == "vit" else f"{name}_random" for name in OPTIONS}
TAKEN_BY = {"vit": "vit_b", "sam2": "sam2_tiny", "sam_hq": "sam_hq_b"}
PICTURE = np.random.default_rng(1).integers(0, 256, (40, 56, 3), np.uint8)


@pytest.fixture(scope="module", params=VARIANTS)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def variant(family: str) -> str:
    return f"model/{VARIANTS[family]}"


@pytest.fixture(scope="module")
def base(option: Callable[..., Any], variant: str) -> Any:
    """A split SAM that no test changes."""
    return option(variant).build().sam


@pytest.fixture(scope="module")
def embeddings(base: Any) -> torch.Tensor:
    """Of two images."""
    side = frame_of(base).side
    return base.image_encoder(torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)))


@torch.no_grad()
def test_prompts_of_all_kinds_give_all_masks(base: Any, embeddings: torch.Tensor) -> None:
    side = frame_of(base).side
    low = base.prompt_encoder.mask_input_size[0]
    boxes = torch.tensor([[0.1, 0.1, 0.6, 0.7], [0.2, 0.1, 0.9, 0.9], [0.0, 0.3, 0.5, 0.8]]) * side
    points, labels = boxes.view(3, 2, 2) * 0.9, torch.tensor([[1, 0], [1, 1], [1, -1]])
    rough = torch.randn(3, low, low, generator=torch.Generator().manual_seed(1)) * 4
    of_kind = {
        "boxes": {"boxes": boxes, "points": None, "labels": None},
        "points": {"boxes": None, "points": points, "labels": labels},
        "both": {"boxes": boxes, "points": points, "labels": labels},
        "masks": {"boxes": boxes, "points": None, "labels": None, "mask_inputs": rough},
    }
    which = torch.tensor([0, 1, 0])
    found = {}
    for kind, prompts in of_kind.items():
        logits, scores = decode_all_masks(base, embeddings, images=which, **prompts)
        assert logits.shape == (3, 4, low, low)
        assert scores.shape == (3, 4)
        for row, image in enumerate(which.tolist()):
            alone = {name: None if value is None else value[row : row + 1] for name, value in prompts.items()}
            one, score = decode_all_masks(base, embeddings[image : image + 1], **alone)
            assert (one[0] - logits[row]).abs().max() < 1e-5, kind
            assert (score[0] - scores[row]).abs().max() < 1e-5, kind
        single, _ = decode_all_masks(base, embeddings, images=which, masks=slice(0, 1), **prompts)
        assert (single - logits[:, :1]).abs().max() < 1e-5, kind
        found[kind] = logits
    apart = [(first, second) for first in found for second in found if first < second]
    assert all((found[first] - found[second]).abs().max() > 1e-4 for first, second in apart)
    assert all((found["boxes"][:, 0] - found["boxes"][:, mask]).abs().max() > 1e-4 for mask in (1, 2, 3))


def test_a_file_of_another_family_names_the_model_that_takes_it(
    option: Callable[..., Any], family: str, variant: str, base: Any, tmp_path: Path
) -> None:
    state = fuse_state_dict(base.state_dict())
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "w.safetensors")
    for name, other in VARIANTS.items():
        if name == family:
            continue
        with pytest.raises(CheckpointError) as caught:
            option(f"model/{other}", weights="pretrained", checkpoint=str(tmp_path / "w.safetensors")).build()
        text = str(caught.value)
        assert "\n" not in text
        assert f"choose model={TAKEN_BY.get(family, family)}" in text, (name, text)
    option(variant, weights="pretrained", checkpoint=str(tmp_path / "w.safetensors")).build()


@torch.no_grad()
def test_switched_off_it_is_the_base_and_strength_goes_between(
    option: Callable[..., Any], variant: str, base: Any
) -> None:
    adapted = option("method/lora", decoder="train").apply(option(variant).build().sam)
    generator = torch.Generator().manual_seed(1)
    for parameter in adapted.trainable().values():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    side = frame_of(base).side
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[0.1, 0.1, 0.6, 0.7]]) * side

    def masks(sam: Any) -> torch.Tensor:
        return decode_all_masks(sam, sam.image_encoder(image), boxes=boxes, points=None, labels=None)[0]

    wanted, tuned = masks(base), masks(adapted.sam)
    with adapted.base():
        assert torch.equal(masks(adapted.sam), wanted)
    strength = adapted.strength()
    strength.set(0)
    assert (masks(adapted.sam) - wanted).abs().max() < 1e-6
    strength.set(0.5)
    between = masks(adapted.sam)
    strength.set(1)
    assert torch.equal(masks(adapted.sam), tuned)
    assert min((between - end).abs().max() for end in (wanted, tuned)) > 1e-4


@torch.no_grad()
def test_bf16_stays_near(base: Any, embeddings: torch.Tensor) -> None:
    side = frame_of(base).side
    image = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))[:1]
    boxes = torch.tensor([[0.1, 0.1, 0.6, 0.7], [0.2, 0.1, 0.9, 0.9]]) * side
    wanted, _ = decode_all_masks(base, embeddings[:1], boxes=boxes, points=None, labels=None)
    with autocast(torch.device("cpu"), "bf16"):
        rounded = base.image_encoder(image)
        found, _ = decode_all_masks(base, rounded, boxes=boxes, points=None, labels=None)
    assert found.dtype == torch.float32
    assert 0 < (rounded.float() - embeddings[:1]).norm() / embeddings[:1].norm() < 0.05
    assert 0 < (found - wanted).norm() / wanted.norm() < 0.1


@torch.no_grad()
def test_weights_fit_another_input_size(
    option: Callable[..., Any], variant: str, base: Any, embeddings: torch.Tensor, tmp_path: Path
) -> None:
    state = fuse_state_dict(base.state_dict())
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "w.safetensors")
    side = 2 * frame_of(base).side
    changes = {"weights": "pretrained", "checkpoint": str(tmp_path / "w.safetensors"), "image_size": side}
    sam = option(variant, **changes).build().sam
    larger = sam.image_encoder(torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)))
    assert larger.shape[1:] == (embeddings.shape[1], *(2 * length for length in embeddings.shape[2:]))
    boxes = torch.tensor([[0.1, 0.1, 0.6, 0.7]]) * side
    logits, _ = decode_all_masks(sam, larger, boxes=boxes, points=None, labels=None)
    assert logits.shape[-1] == 2 * base.prompt_encoder.mask_input_size[0]
    assert bool(torch.isfinite(logits).all())
    small = {key: value for key, value in fuse_state_dict(sam.state_dict()).items() if value.shape == state[key].shape}
    assert len(small) > 0.9 * len(state)
    assert all(torch.equal(value, state[key]) for key, value in small.items())


def test_classes_are_told_alike_where_they_are_exported(base: Any) -> None:
    frame = frame_of(base)
    predictor = TorchPredictor(base, frame.side)
    embedding = predictor.embedding(PICTURE)
    draws = np.random.default_rng(0)
    head = ClassHead(
        ("one", "two", "three"),
        draws.normal(size=(3, embedding.shape[1] + 1)).astype(np.float32),
        draws.normal(size=3).astype(np.float32),
    )
    masks = np.zeros((3, 40, 56), np.bool_)
    masks[0, 5:20, 8:30], masks[1, 10:40, 20:56] = True, True  # the third is empty
    wanted = head.of_features(features_of(embedding, masks, predictor.frame))
    assert np.allclose(wanted.sum(axis=1), 1, atol=1e-5)
    found = ClassOutput(head, frame.side)(
        torch.from_numpy(embedding),
        torch.from_numpy(masks).float().sub(0.5).unsqueeze(1),
        torch.tensor([40, 56]),
        torch.tensor(frame.extent((40, 56))),
    )
    assert np.abs(found[:, 0].numpy() - wanted).max() < 1e-4
    assert np.abs(head.probabilities(predictor, PICTURE, masks) - wanted).max() < 1e-6
