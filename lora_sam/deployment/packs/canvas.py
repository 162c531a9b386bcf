"""SAM's two parts for a tool that lays images into a canvas of its own: as traceable torch modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from lora_sam.core.frame import Frame
from lora_sam.deployment.ir_parts import PromptedDecoder

if TYPE_CHECKING:
    from segment_anything.modeling import Sam


class CanvasEncoder(nn.Module):
    """An image encoder that takes the canvas; the pre-processing is that of `lora_sam.data.transforms`.

    Args:
        sam: The model.
        frame: Its input frame.
        canvas: (height, width) of the canvas.
    """

    rows: Tensor
    columns: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, sam: Sam, frame: Frame, canvas: tuple[int, int]) -> None:
        super().__init__()
        self.encoder = sam.image_encoder
        self.side, self.rounds = frame.side, not frame.square
        extent = frame.extent(canvas)
        self.register_buffer("rows", _scaling(canvas[0], extent[0]))
        self.register_buffer("columns", _scaling(canvas[1], extent[1]).T.contiguous())
        self.register_buffer("mean", torch.tensor(frame.mean).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(frame.std).reshape(3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Image embedding [1, C, S/16, S/16] of a canvas, RGB of 0 to 255, float32 [H, W, 3]."""
        # columns, then rows, with a grey level rounded after each: as Pillow has it
        planes = self._rounded(image.permute(2, 0, 1) @ self.columns)
        planes = self._rounded(self.rows @ planes)
        planes = (planes - self.mean) / self.std
        missing = (0, self.side - planes.shape[2], 0, self.side - planes.shape[1])
        return cast("Tensor", self.encoder(F.pad(planes, missing).unsqueeze(0)))

    def _rounded(self, values: Tensor) -> Tensor:
        return torch.floor(values + 0.5) if self.rounds else values


class CanvasDecoder(nn.Module):
    """A decoder whose prompts are pixels of the canvas; inputs and outputs as `segment_anything`'s own export has them.

    Args:
        sam: The model.
        frame: Its input frame.
        canvas: (height, width) of the canvas.
    """

    scale: Tensor

    def __init__(self, sam: Sam, frame: Frame, canvas: tuple[int, int]) -> None:
        super().__init__()
        self.decoder = PromptedDecoder(sam, frame.side, multimask=False)
        self.pads_boxes = getattr(sam.prompt_encoder, "pads_boxes", False)
        height, width = frame.extent(canvas)
        self.register_buffer("scale", torch.tensor([width / canvas[1], height / canvas[0]]))

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        orig_im_size: Tensor,
    ) -> tuple[Tensor, ...]:
        """See `PromptedDecoder`, with one mask for a prompt."""
        coords, labels = point_coords * self.scale, point_labels
        if not self.pads_boxes:
            # the tool adds a point of padding beside a box too, where SAM has none
            extra = ((labels.amax() > 1) & (labels[:, -1].amax() < 0)).to(torch.int64)
            kept = labels.shape[1] - extra
            coords, labels = coords[:, :kept], labels[:, :kept]
        found = self.decoder(image_embeddings, coords, labels, mask_input, has_mask_input, orig_im_size)
        return cast("tuple[Tensor, ...]", found)


def _scaling(length: int, to: int) -> Tensor:
    """What Pillow's bilinear scaling multiplies a column of `length` pixels with, float32 [to, length]."""
    unit = Image.fromarray(np.eye(length, dtype=np.float32))
    return torch.from_numpy(np.array(unit.resize((length, to), Image.Resampling.BILINEAR), np.float32))
