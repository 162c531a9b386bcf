"""The loops that tutorials show, written anew: `segment_anything` as it is, in fp32, images encoded at every step.

`lora_step` follows Sam_LoRA (https://github.com/MathieuNlp/Sam_LoRA): eager attention, low-rank updates added into
slices of the fused projection in place, the loss at the size of the image, and prompt encoder and mask decoder left
requiring gradients, which are computed and never used. `decoder_step` is the usual loop around `SamPredictor`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from segment_anything.modeling import Sam

    from lora_sam.models.family import SamModel
    from lora_sam.training.examples import Example
    from lora_sam.training.losses import Loss

LEARNING_RATE = 1e-4


class SlicedLoRA(nn.Module):
    """A fused `qkv` with low-rank updates of q and v (scale 1, second factors zero), [..., C] to [..., 3C]."""

    def __init__(self, qkv: nn.Linear, rank: int) -> None:
        super().__init__()
        dim = qkv.in_features
        self.qkv = qkv
        self.down_q, self.down_v = (nn.Linear(dim, rank, bias=False) for _ in range(2))
        self.up_q, self.up_v = (nn.Linear(rank, dim, bias=False) for _ in range(2))
        for down, up in ((self.down_q, self.up_q), (self.down_v, self.up_v)):
            nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
            nn.init.zeros_(up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Queries, keys and values side by side."""
        out: Tensor = self.qkv(x)
        dim = self.qkv.in_features
        out[..., :dim] += self.up_q(self.down_q(x))
        out[..., -dim:] += self.up_v(self.down_v(x))
        return out


def fused_sam(model: SamModel) -> Sam:
    """The package's own modules with the weights of `model`; nothing requires gradients."""
    from lora_sam.models.projections import fuse_projections

    return fuse_projections(model.build().sam).eval()


def with_lora(sam: Sam, rank: int) -> list[nn.Parameter]:
    """Put `SlicedLoRA` into every block, in place, and leave both decoders requiring gradients.

    Returns:
        What the optimiser gets: the low-rank factors.
    """
    sam.requires_grad_(True)
    sam.image_encoder.requires_grad_(False)
    for block in sam.image_encoder.blocks:
        block.attn.qkv = SlicedLoRA(block.attn.qkv, rank)
    return [parameter for parameter in sam.image_encoder.parameters() if parameter.requires_grad]


def low_res_masks(sam: Sam, embedding: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [N, S/4, S/4] and predicted IoU [N] for boxes [N, 4] on one embedding [1, C, S/16, S/16]."""
    sparse, dense = sam.prompt_encoder(points=None, boxes=boxes, masks=None)
    logits, iou = sam.mask_decoder(
        image_embeddings=embedding,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    return logits[:, 0], iou[:, 0]


def lora_step(sam: Sam, examples: Sequence[Example], rank: int) -> tuple[Callable[[], float], int]:
    """A step of LoRA on q and v of all blocks, with MONAI's Dice + cross entropy on masks of the image's size.

    Args:
        sam: What `fused_sam` returned, on the device of the step; changed in place.
        examples: Images of the input's size with one box each.
        rank: Rank of the updates.

    Returns:
        The step, which returns the loss before it, and how many parameters it trains.
    """
    from monai.losses import DiceCELoss

    device = sam.device
    trained = with_lora(sam, rank)
    sam.to(device).train()  # what was added is still on the CPU
    loss_of = DiceCELoss(sigmoid=True, squared_pred=True, reduction="mean")
    optimizer = torch.optim.Adam(trained, lr=LEARNING_RATE)
    images = torch.stack([example.image for example in examples if example.image is not None]).to(device)
    boxes = [example.boxes.to(device) for example in examples if example.boxes is not None]
    targets = torch.cat([example.targets for example in examples]).unsqueeze(1).float().to(device)
    size = tuple(targets.shape[-2:])

    def step() -> float:
        embeddings = sam.image_encoder(images).split(1)
        low_res = [low_res_masks(sam, *pair)[0] for pair in zip(embeddings, boxes, strict=True)]
        masks = sam.postprocess_masks(torch.cat(low_res).unsqueeze(1), input_size=size, original_size=size)
        loss = loss_of(masks, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step, sum(parameter.numel() for parameter in trained)


DecoderStep = Callable[["NDArray[np.uint8]", "NDArray[np.float32]", Tensor], float]
"""Takes an RGB image [H, W, 3], boxes [N, 4] in its pixels, targets bool [N, S, S]; returns the loss before it."""


def decoder_step(sam: Sam, loss: Loss) -> DecoderStep:
    """A step that trains the mask decoder and encodes its image with `SamPredictor`, on our loss, with Adam."""
    from segment_anything import SamPredictor

    from lora_sam.training.step import mask_losses

    predictor = SamPredictor(sam)
    sam.mask_decoder.requires_grad_(True)
    optimizer = torch.optim.Adam(sam.mask_decoder.parameters(), lr=LEARNING_RATE)

    def step(image: NDArray[np.uint8], boxes: NDArray[np.float32], targets: Tensor) -> float:
        predictor.set_image(image)
        scaled = torch.as_tensor(predictor.transform.apply_boxes(boxes, image.shape[:2]), dtype=torch.float32)
        logits, iou = low_res_masks(sam, predictor.features, scaled)
        value = mask_losses(loss, logits, iou, targets)["loss"].mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return float(value.detach())

    return step
