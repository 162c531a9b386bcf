"""Time the image encoder of `model=nano` on one image, in a process that does nothing else."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.settings import settings_for
from lora_sam.core.frame import Frame
from lora_sam.training.settings import Settings

WARM_UP = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the answer of the side that was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=("compare", "fp32", "bf16", "peer"))
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args(arguments)
    torch.set_num_threads(given.threads)
    settings = settings_for(*given.overrides)
    print(
        json.dumps(
            compare(settings) if given.side == "compare" else time_encodings(settings, given.side, given.repeats)
        )
    )
    return 0


def picture(height: int = 480, width: int = 640) -> NDArray[np.uint8]:
    """A fixed RGB image of noise, uint8 [H, W, 3]."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def compare(settings: Settings) -> dict[str, Any]:
    """Which weights are measured, and how far apart the embeddings of the three encoders are.

    Returns:
        `peer` and `bf16`, the largest absolute differences to our embedding in fp32; `largest`, the largest absolute
        value of that.
    """
    base = settings.model.build()
    pixels = _pixels(settings)
    with torch.no_grad():
        ours = base.sam.image_encoder(pixels)
        with torch.autocast("cpu", torch.bfloat16):
            half = base.sam.image_encoder(pixels).float()
        peer = _fused(settings)(pixels)
    return {
        "source": base.source,
        "sha256": base.sha256,
        "shape": list(ours.shape),
        "encoder_parameters": sum(parameter.numel() for parameter in base.sam.image_encoder.parameters()),
        "largest": float(ours.abs().max()),
        "peer": float((peer - ours).abs().max()),
        "bf16": float((half - ours).abs().max()),
    }


def time_encodings(settings: Settings, side: str, repeats: int) -> dict[str, Any]:
    """Wall seconds of `repeats` encodings after some that warm up.

    Returns:
        `seconds` of the encoder alone, from pixels in the input frame; with `fp32` also `embed_seconds`, of
        `ImageEmbedder.embed` from an RGB image of 640 x 480.
    """
    if side == "peer":
        encoder = _fused(settings)
    else:
        sam = settings.model.build().sam
        encoder = sam.image_encoder
    pixels = _pixels(settings)

    def encode() -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=side == "bf16"):
            encoder(pixels)

    answer: dict[str, Any] = {"seconds": _timed(encode, repeats)}
    if side == "fp32":
        from lora_sam.predictors.torch_predictor import ImageEmbedder

        embedder, image = ImageEmbedder(sam), picture()

        def embed() -> None:
            embedder.forget()
            embedder.embed(image)

        answer["embed_seconds"] = _timed(embed, repeats)
    return answer


def _timed(action: Callable[[], None], repeats: int) -> list[float]:
    for _ in range(WARM_UP):
        action()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return seconds


def _pixels(settings: Settings) -> torch.Tensor:
    from lora_sam.data.transforms import preprocess

    side = settings.model.image_size
    return preprocess(picture(side, side), Frame(side, square=False)).unsqueeze(0)


def _fused(settings: Settings) -> torch.nn.Module:
    """The encoder of the package segment_anything, with the same weights."""
    from lora_sam.models.projections import fuse_projections

    encoder: torch.nn.Module = fuse_projections(settings.model.build().sam).image_encoder.eval()
    return encoder


if __name__ == "__main__":
    sys.exit(main())
