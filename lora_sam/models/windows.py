"""Positions of a small image as those of a window in a larger one: pre-training for an input larger than the images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom
from torch import Tensor

from lora_sam.core.errors import ConfigError
from lora_sam.models.family import family_of

if TYPE_CHECKING:
    from segment_anything.modeling import Sam


class WindowedPositions(PositionEmbeddingRandom):  # type: ignore[misc]
    """Positions of prompts and image tokens as if the input were a window, placed at random, of a square frame.

    What a prompt encoder learns on whole images of 256 px is too coarse by half on an input of 512 px. On windows of a
    frame of 512 px it learns the larger input at the price of the smaller.

    The place changes whenever the positions of the image tokens were asked for, which `decode_all_masks` does after
    those of the prompts. Without training the window is in the middle of the frame.

    Args:
        positions: The layer whose frequencies are taken over.
        side: Side of the input in pixels.
        frame: Side of the frame in pixels.
    """

    def __init__(self, positions: PositionEmbeddingRandom, side: int, frame: int) -> None:
        matrix = positions.positional_encoding_gaussian_matrix
        super().__init__(matrix.shape[1])
        self.positional_encoding_gaussian_matrix = matrix
        self.side, self.frame = side, frame
        self._corner = torch.full((2,), 0.5)

    def forward(self, size: tuple[int, int]) -> Tensor:
        """Positions of a grid of `size` = (rows, columns) over the window, [C, rows, columns]."""
        rows, columns = size
        y = (torch.arange(rows) + 0.5) * (self.side / rows)
        x = (torch.arange(columns) + 0.5) * (self.side / columns)
        grid = torch.stack([x.expand(rows, -1), y.unsqueeze(1).expand(-1, columns)], dim=-1)
        encoded: Tensor = self._encode(grid).permute(2, 0, 1)
        self._corner = torch.rand(2) if self.training else torch.full((2,), 0.5)
        return encoded

    def forward_with_coords(self, coords_input: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Positions of points (x, y) in pixels of the input, [B, N, 2] to [B, N, C]."""
        del image_size  # it is `side` in both directions
        return self._encode(coords_input.float())

    def _encode(self, xy: Tensor) -> Tensor:
        corner = self._corner.to(xy) * (self.frame - self.side)
        device = self.positional_encoding_gaussian_matrix.device
        encoded: Tensor = self._pe_encoding((xy + corner).to(device) / self.frame)
        return encoded


def put_into_frame(sam: Sam, frame: int) -> None:
    """Let `sam` take its input for a window of a frame of `frame` pixels, in place.

    Raises:
        ConfigError: its family cannot.
    """
    reason = family_of(sam.image_encoder).cannot.get("frame")
    if reason is not None:
        raise ConfigError(f"method.frame = {frame}: {reason}; leave method.frame out")
    encoder = sam.prompt_encoder
    side = encoder.input_image_size[0]
    encoder.pe_layer = WindowedPositions(encoder.pe_layer, side, frame)
