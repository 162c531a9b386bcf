"""What no family can do that squeezes images into a square."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


def cannot_of_squeezed(model: str, prompt_tokens: str) -> Mapping[str, str]:
    """`Family.cannot` of such a family, whose attention hands its projections tokens of four dimensions.

    Args:
        model: What the model is called, `SAM 2`.
        prompt_tokens: What its attention does to queries or keys, for which prompt tokens have no place.
    """
    square = f"{model} wants them squeezed into a square"
    return MappingProxyType(
        {
            "model_api": f"Model API scales prompts by the longer side, and {model} squeezes images into a square",
            "x_anylabeling": f"X-AnyLabeling pads images, and {square}",
            "frame": f"{model} squeezes images into a square, and method.frame places windows of images as they are",
            "flat": f"attention of {model} hands its projections tokens of four dimensions, to it an image",
            "prompt_tokens": f"attention of {model} {prompt_tokens}",
            "SamPredictor": f"segment_anything's SamPredictor pads images, and {square}",
        }
    )
