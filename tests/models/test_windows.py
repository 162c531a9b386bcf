"""Positions of a window in a frame."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom

from lora_sam.models.windows import WindowedPositions, put_into_frame

SIDE, FRAME, TOKEN = 32, 64, 16


@pytest.fixture
def plain() -> PositionEmbeddingRandom:
    torch.manual_seed(0)
    return PositionEmbeddingRandom(8)


def test_without_training_the_window_is_the_middle_of_the_frame(plain: PositionEmbeddingRandom) -> None:
    windowed = WindowedPositions(plain, SIDE, FRAME).eval()
    whole = plain((FRAME // TOKEN, FRAME // TOKEN))
    for _ in range(2):
        torch.testing.assert_close(windowed((2, 2)), whole[:, 1:3, 1:3])
    points = torch.tensor([[[3.0, 30.0], [0.0, 12.5]]])
    expected = plain.forward_with_coords(points + (FRAME - SIDE) / 2, (FRAME, FRAME))
    torch.testing.assert_close(windowed.forward_with_coords(points, (SIDE, SIDE)), expected)


def test_in_training_it_moves_and_prompts_move_along(plain: PositionEmbeddingRandom) -> None:
    windowed = WindowedPositions(plain, SIDE, FRAME).train()
    centres = torch.tensor([[[TOKEN * 0.5, TOKEN * 0.5], [TOKEN * 1.5, TOKEN * 0.5]]])
    seen = []
    for _ in range(4):
        points = windowed.forward_with_coords(centres, (SIDE, SIDE))
        grid = windowed((2, 2))
        torch.testing.assert_close(points[0].T, grid[:, 0, :])
        seen.append(grid)
    assert all((one - other).abs().max() > 1e-3 for one, other in pairwise(seen))


def test_a_frame_as_large_as_the_input_changes_nothing(plain: PositionEmbeddingRandom) -> None:
    windowed = WindowedPositions(plain, SIDE, SIDE).train()
    windowed((2, 2))
    torch.testing.assert_close(windowed((2, 2)), plain((2, 2)))


def test_the_weights_keep_their_names(option: Any, tiny_sam: Callable[[], Any]) -> None:
    keys = set(tiny_sam().state_dict())
    sam = tiny_sam()
    put_into_frame(sam, 128)
    assert set(sam.state_dict()) == keys
    adapted = option("method/full", frame=128).apply(tiny_sam())
    assert isinstance(adapted.sam.prompt_encoder.pe_layer, WindowedPositions)
    merged = adapted.merge()
    assert "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix" in merged.state_dict()
