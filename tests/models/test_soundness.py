"""A broken base is refused when it is loaded, by the name of its first bad tensor; a sound one of any kind is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lora_sam.core.errors import CheckpointError

NAME = "image_encoder.blocks.1.mlp.lin2.weight"


@pytest.fixture
def weights(option: Callable[..., Any]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {key: value.clone() for key, value in option("model/tiny_random")._random().state_dict().items()}


def with_one(value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        tensor[-1, 3] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (with_one(float("nan")), "has 1 values that are NaN or infinite; fetch or train these weights again"),
        (with_one(float("inf")), "has 1 values that are NaN or infinite"),
        (with_one(-float("inf")), "has 1 values that are NaN or infinite"),
        (lambda tensor: torch.full_like(tensor, 1e300, dtype=torch.float64), "NaN or infinite"),
        (lambda tensor: tensor.to(torch.int8), "is of type torch.int8; weights are fp16, bf16, fp32 or fp64"),
        (lambda tensor: tensor > 0, "is of type torch.bool"),
        (lambda tensor: tensor.long(), "is of type torch.int64"),
        (lambda tensor: tensor.to(torch.complex64), "is of type torch.complex64"),
        (lambda tensor: tensor.to(torch.float8_e4m3fn), "is of type torch.float8_e4m3fn"),
        (torch.zeros_like, "is zero throughout; fetch or train these weights again"),
        (lambda tensor: tensor.to_sparse(), r"is sparse \(torch.sparse_coo\); save it with .to_dense\(\)"),
        (lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8), "is quantised; save the weights as"),
        (lambda tensor: tensor.to("meta"), r"has a shape and no values \(a meta tensor\); save the model with its val"),
    ],
)
def test_a_tensor_that_no_model_can_compute_with(
    option: Callable[..., Any],
    weights: dict[str, Tensor],
    tmp_path: Path,
    change: Callable[[Tensor], Tensor],
    fault: str,
) -> None:
    weights[NAME] = change(weights[NAME])
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=f"w.pth: '{NAME}' .*{fault}") as caught:
        option("model/tiny_random", weights="pretrained", checkpoint=str(tmp_path / "w.pth")).build()
    assert "\n" not in str(caught.value)


def test_safetensors_are_looked_at_too(option: Callable[..., Any], weights: dict[str, Tensor], tmp_path: Path) -> None:
    weights["mask_decoder.iou_token.weight"][0, 0] = float("nan")
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"w.safetensors: 'mask_decoder.iou_token.weight' has 1 values"):
        option("model/tiny_random", weights="pretrained", checkpoint=str(tmp_path / "w.safetensors")).build()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_sound_weights_of_other_precisions_and_fresh_ones_load(
    option: Callable[..., Any], weights: dict[str, Tensor], tmp_path: Path, dtype: torch.dtype
) -> None:
    for key in weights:  # as a model has them before any training: positions and biases are zero
        if key.endswith(("bias", "pos_embed", "rel_pos_h", "rel_pos_w")):
            weights[key].zero_()
    torch.save({key: value.to(dtype) for key, value in weights.items()}, tmp_path / "w.pth")
    settings = option("model/tiny_random", weights="pretrained", checkpoint=str(tmp_path / "w.pth"))
    sam = settings.build().sam
    assert torch.equal(sam.state_dict()[NAME], weights[NAME].to(dtype).float())


def test_large_values_are_no_fault(option: Callable[..., Any], weights: dict[str, Tensor], tmp_path: Path) -> None:
    weights[NAME].fill_(3e38)  # their sum is infinite, each is not
    torch.save(weights, tmp_path / "w.pth")
    sam = option("model/tiny_random", weights="pretrained", checkpoint=str(tmp_path / "w.pth")).build().sam
    assert float(sam.state_dict()[NAME].max()) > 2e38
