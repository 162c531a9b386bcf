"""Image + prompts → masks at the image's original size, on torch or OpenVINO; callers cannot tell which."""

from __future__ import annotations

from lora_sam.predictors.interface import AllMasks, Embeddings, Predictor
from lora_sam.predictors.openvino_predictor import OpenVINOPredictor, openvino_directory
from lora_sam.predictors.torch_predictor import ImageEmbedder, TorchPredictor, predictors_for

__all__ = [
    "AllMasks",
    "Embeddings",
    "ImageEmbedder",
    "OpenVINOPredictor",
    "Predictor",
    "TorchPredictor",
    "openvino_directory",
    "predictors_for",
]
