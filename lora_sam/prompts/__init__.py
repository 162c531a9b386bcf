"""Prompts derived from the masks of labelled objects: boxes, points, rough masks, and corrections of predictions."""

from __future__ import annotations

from lora_sam.prompts.boxes import BoxPrompt, WholeImage
from lora_sam.prompts.everything import EverythingPrompt
from lora_sam.prompts.geometry import farthest_pixel, tight_boxes
from lora_sam.prompts.interface import CorrectingSource, Kind, PromptSource, trained_kinds
from lora_sam.prompts.iterative import IterativePrompt
from lora_sam.prompts.masks import MaskPrompt
from lora_sam.prompts.mixed import BoxOrPoint, MixedPrompt
from lora_sam.prompts.points import PointPrompt, PointsPrompt

__all__ = [
    "BoxOrPoint",
    "BoxPrompt",
    "CorrectingSource",
    "EverythingPrompt",
    "IterativePrompt",
    "Kind",
    "MaskPrompt",
    "MixedPrompt",
    "PointPrompt",
    "PointsPrompt",
    "PromptSource",
    "WholeImage",
    "farthest_pixel",
    "tight_boxes",
    "trained_kinds",
]
