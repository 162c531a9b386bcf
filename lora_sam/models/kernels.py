"""Names of the ways in which an image encoder attends; without torch, for whoever only names them."""

from __future__ import annotations

from typing import Literal

TrainingKernel = Literal["tiled", "channels"]
InferenceKernel = Literal["mask", "channels", "tiled"]
