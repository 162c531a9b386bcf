"""Image + prompts → masks at the image's original size, on torch or OpenVINO; callers cannot tell which."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_sam.predictors.openvino_parts import openvino_directory as openvino_directory
    from lora_sam.predictors.openvino_predictor import OpenVINOPredictor as OpenVINOPredictor
    from lora_sam.predictors.torch_predictor import TorchPredictor as TorchPredictor

# imported on first use: the options of the embedding cache are in this room, and answer without torch
_PUBLIC = {
    "OpenVINOPredictor": "lora_sam.predictors.openvino_predictor",
    "TorchPredictor": "lora_sam.predictors.torch_predictor",
    "openvino_directory": "lora_sam.predictors.openvino_parts",
}
__all__ = ["OpenVINOPredictor", "TorchPredictor", "openvino_directory"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'lora_sam.predictors' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_PUBLIC[name]), name)
