"""Encoder and decoder of a run alone, on inputs that are ready: seconds per image."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the answer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--boxes", type=int, required=True)
    parser.add_argument("--side", type=int, required=True)
    given = parser.parse_args(arguments)

    from lora_sam.predictors.openvino_parts import (
        compile_settings,
        openvino_core,
        openvino_directory,
        read_part,
        with_one_enlarged,
    )

    # as predict opens its back end int8
    core, settings = openvino_core(), compile_settings("f32", "latency", None, compile_cache=False)
    first, second = (read_part(path) for path in openvino_directory(given.parts))
    encoder, decoder = (core.compile_model(part, "CPU", settings) for part in (first, with_one_enlarged(second)))
    frame = encoder.input("images").shape[3]
    rng = np.random.default_rng(0)
    images = rng.normal(0, 1, (1, 3, frame, frame)).astype(np.float32)
    corners = rng.uniform(0, frame / 2, (given.boxes, 2, 2)).astype(np.float32)
    corners[:, 1] += frame / 4
    side = encoder.output("image_embeddings").shape[3] * 4
    prompts = {
        "point_coords": corners,
        "point_labels": np.tile(np.array([[2, 3]], np.float32), (given.boxes, 1)),
        "mask_input": np.zeros((given.boxes, 1, side, side), np.float32),
        "has_mask_input": np.zeros((given.boxes, 1), np.float32),
        "orig_size": np.array([[given.side, given.side]], np.int64),
    }

    def image() -> float:
        start = time.perf_counter()
        embedding = encoder({"images": images})["image_embeddings"]
        decoder({"image_embeddings": embedding, **prompts})
        return time.perf_counter() - start

    image()  # libraries set themselves up
    seconds = [image() for _ in range(given.images)]
    print(json.dumps({"seconds": sum(seconds) / given.images}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
