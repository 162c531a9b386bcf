"""Image + prompts → masks at the image's original size, on torch or OpenVINO; callers cannot tell which."""

from __future__ import annotations

from lora_sam.predictors.interface import AllMasks, Embeddings, Predictor
from lora_sam.predictors.torch_predictor import ImageEmbedder, TorchPredictor, predictors_for

__all__ = ["AllMasks", "Embeddings", "ImageEmbedder", "Predictor", "TorchPredictor", "predictors_for"]
