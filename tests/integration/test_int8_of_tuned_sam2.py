"""What INT8 takes from a SAM 2 that segments: a small one, trained on drawn discs until its masks mean something."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lora_sam.core.frame import Frame
from lora_sam.core.structures import Prompts
from lora_sam.data.transforms import preprocess
from lora_sam.deployment.ir_parts import decoder_ir, encoder_ir, save_ir
from lora_sam.deployment.quantizing.compression import Recipe, quantized, read, save
from lora_sam.deployment.quantizing.ladder import Rung
from lora_sam.evaluation.metrics import mask_iou
from lora_sam.predictors.openvino_parts import openvino_directory
from lora_sam.predictors.openvino_predictor import OpenVINOPredictor
from lora_sam.training.examples import Example
from lora_sam.training.step import accumulate_gradients

SIDE, STEPS, TESTED = 64, 400, 60
FRAME = Frame(SIDE, square=True)

Disc = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]


def disc(number: int) -> Disc:
    """Image [S, S, 3], a loose box [1, 4] and the mask [S, S]: where the disc ends only the image says."""
    draws = np.random.default_rng(number)
    radius, (x, y) = draws.uniform(7, 15), draws.uniform(20, 44, 2)
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    mask = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    ground, colour = draws.permutation([draws.uniform(20, 110, 3), draws.uniform(150, 240, 3)])
    pixels = np.where(mask[..., None], colour, ground) + draws.normal(0, 8, (SIDE, SIDE, 3))
    left, top, right, bottom = draws.uniform(1, 9, 4) + radius
    box = np.array([[x - left, y - top, x + right, y + bottom]], np.float32).clip(0, SIDE)
    return pixels.clip(0, 255).astype(np.uint8), box, mask


def trained(option: Callable[..., Any]) -> Any:
    """The merged SAM after `STEPS` steps of four discs."""
    torch.manual_seed(0)
    adapted = option("method/full").apply(option("model/sam2_random").build().sam)
    adapted.train_mode()
    optimizer = torch.optim.AdamW(adapted.trainable().values(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=STEPS)
    loss = option("loss/sam", resolution="low")
    for step in range(STEPS):
        drawn = [disc(1000 + 4 * step + number) for number in range(4)]
        batch = [
            Example(
                "disc", preprocess(image, FRAME), torch.from_numpy(box), None, None, torch.from_numpy(mask)[None],
                (SIDE, SIDE), ("1",),
            )
            for image, box, mask in drawn
        ]  # fmt: skip
        accumulate_gradients(adapted, loss, batch, chunk=16, multimask_points=False, scale=1.0, autocast=nullcontext())
        torch.nn.utils.clip_grad_norm_(adapted.trainable().values(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
    return adapted.merge().eval()


def iou_of(directory: Path, execution: Any, discs: list[Disc], blank: bool = False) -> float:
    predictor = OpenVINOPredictor(*openvino_directory(directory), execution=execution, compile_cache=False)
    found = []
    for image, box, mask in discs:
        seen = np.full_like(image, 128) if blank else image
        found.append(mask_iou(predictor.predict(seen, Prompts(boxes=box)).masks[0], mask))
    return float(np.mean(found))


@pytest.mark.slow
def test_int8_of_a_sam2_that_segments_loses_at_most_half_a_point(option: Callable[..., Any], tmp_path: Path) -> None:
    sam = trained(option)
    for name in ("fp32", "int8"):
        (tmp_path / name).mkdir()
    save_ir(decoder_ir(sam, SIDE, multimask=False), tmp_path / "fp32" / "mask_decoder.xml", half=False)
    save_ir(encoder_ir(sam, SIDE), tmp_path / "fp32" / "image_encoder.xml", half=False)
    calibration = [{"images": preprocess(disc(number)[0], FRAME)[None].numpy()} for number in range(100, 116)]
    encoder = quantized(
        read(tmp_path / "fp32" / "image_encoder.xml"), calibration, Rung("default"), Recipe("mixed", fast=True)
    )
    save(encoder, tmp_path / "int8" / "image_encoder.xml")
    for suffix in (".xml", ".bin"):
        shutil.copy(tmp_path / "fp32" / f"mask_decoder{suffix}", tmp_path / "int8")
    discs = [disc(number) for number in range(TESTED)]
    whole = iou_of(tmp_path / "fp32", "f32", discs)
    found = {execution: iou_of(tmp_path / "int8", execution, discs) for execution in ("f32", "bf16")}
    blank = iou_of(tmp_path / "fp32", "f32", discs, blank=True)
    assert whole > 0.5
    assert whole - blank > 0.1, "the box alone says it: nothing about the image encoder would be tested"
    assert 100 * (whole - min(found.values())) <= 0.5
