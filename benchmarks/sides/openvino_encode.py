"""Export one architecture with random weights, or time its image encoder, in a process that does nothing else."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.memory import peak_rss

ENCODERS = {"f32": ("fp16", "f32"), "bf16": ("fp16", "bf16"), "int8": ("int8", "f32"), "int8_bf16": ("int8", "bf16")}
"""Weights and arithmetic of the OpenVINO sides."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the answer of the side that was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=("export", "quantize", "peer", "torch", *ENCODERS))
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args(arguments)
    start = time.perf_counter()
    if given.side == "export":
        answer = export(given.overrides, given.directory, given.threads)
    elif given.side == "quantize":
        answer = quantize(given.overrides, given.directory)
    elif given.side == "peer":
        answer = time_peer(given.overrides, given.threads, given.repeats)
    elif given.side == "torch":
        answer = time_torch(given.overrides, given.threads, given.repeats)
    else:
        answer = time_openvino(given.side, given.directory, given.threads, given.repeats)
    print(json.dumps({**answer, "whole_seconds": time.perf_counter() - start, "peak_bytes": peak_rss()}))
    return 0


def picture(side: int) -> NDArray[np.uint8]:
    """A fixed RGB image of noise, uint8 [side, side, 3]: no scaling on either side."""
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def export(overrides: Sequence[str], directory: Path, threads: int) -> dict[str, Any]:
    """Write both parts as FP16 IR, as `python -m lora_sam.export` does."""
    import torch

    from benchmarks.settings import settings_for
    from lora_sam.deployment.ir_parts import decoder_ir, encoder_ir, save_ir

    torch.set_num_threads(threads)
    base = settings_for(*overrides).model.build()
    target = directory / "fp16"
    target.mkdir(parents=True, exist_ok=True)
    save_ir(decoder_ir(base.sam, base.image_size, multimask=False), target / "mask_decoder.xml", half=True)
    save_ir(encoder_ir(base.sam, base.image_size), target / "image_encoder.xml", half=True)
    return {
        "bytes": (target / "image_encoder.bin").stat().st_size,
        "parameters": sum(parameter.numel() for parameter in base.sam.parameters()),
    }


def quantize(overrides: Sequence[str], directory: Path) -> dict[str, Any]:
    """Make the exported encoder INT8 with one image of noise for calibration: size and speed do not depend on it."""
    import shutil

    from benchmarks.settings import settings_for
    from lora_sam.data.transforms import preprocess
    from lora_sam.deployment.quantizing.compression import Recipe, quantized, read, save
    from lora_sam.deployment.quantizing.ladder import Rung

    model = settings_for(*overrides).model
    source, target, scratch = (directory / name for name in ("fp16", "int8", "scratch"))
    for made in (target, scratch):
        made.mkdir(parents=True, exist_ok=True)
    examples = [{"images": preprocess(picture(model.image_size), model.frame).unsqueeze(0).numpy()}]
    save(read(source / "image_encoder.xml"), scratch / "image_encoder.xml")
    encoder = read(scratch / "image_encoder.xml")
    save(quantized(encoder, examples, Rung("default"), Recipe("mixed", fast=True)), target / "image_encoder.xml")
    for suffix in (".xml", ".bin"):
        shutil.copy(source / f"mask_decoder{suffix}", target)
    return {"bytes": (target / "image_encoder.bin").stat().st_size}


def time_peer(overrides: Sequence[str], threads: int, repeats: int) -> dict[str, Any]:
    """`SamPredictor.set_image` of segment_anything, eager, fp32."""
    import torch
    from segment_anything import SamPredictor

    from benchmarks.settings import settings_for
    from lora_sam.models.projections import fuse_projections

    torch.set_num_threads(threads)
    base = settings_for(*overrides).model.build()
    predictor = SamPredictor(fuse_projections(base.sam))
    image = picture(base.image_size)

    def encode() -> NDArray[np.float32]:
        predictor.set_image(image)
        embedding: NDArray[np.float32] = predictor.features.numpy()
        return embedding

    return _timed(encode, repeats)


def time_torch(overrides: Sequence[str], threads: int, repeats: int) -> dict[str, Any]:
    """Our image encoder of any family, eager, fp32, pre-processing included."""
    import torch

    from benchmarks.settings import settings_for
    from lora_sam.data.transforms import preprocess

    torch.set_num_threads(threads)
    model = settings_for(*overrides).model
    encoder, image = model.build().sam.image_encoder, picture(model.image_size)

    def encode() -> NDArray[np.float32]:
        with torch.inference_mode():
            embedding: NDArray[np.float32] = encoder(preprocess(image, model.frame).unsqueeze(0)).numpy()
        return embedding

    return _timed(encode, repeats)


def time_openvino(side: str, directory: Path, threads: int, repeats: int) -> dict[str, Any]:
    """`OpenVINOPredictor.set_image`, pre-processing included as on the peer's side."""
    from lora_sam.predictors.openvino_parts import Execution, openvino_directory
    from lora_sam.predictors.openvino_predictor import OpenVINOPredictor

    weights, arithmetic = ENCODERS[side]
    execution: Execution = "f32" if arithmetic == "f32" else "bf16"
    parts = openvino_directory(directory / weights)
    predictor = OpenVINOPredictor(*parts, execution=execution, threads=threads, compile_cache=False)
    image = picture(predictor.image_size)

    def encode() -> NDArray[np.float32]:
        predictor.forget()
        return predictor.embedding(image)

    return _timed(encode, repeats)


def _timed(encode: Any, repeats: int) -> dict[str, Any]:
    """Wall seconds of `repeats` encodings after one that warms up, and a sample of the embedding."""
    embedding = encode()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        encode()
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "embedding": embedding.ravel()[:: max(1, embedding.size // 1000)].tolist()}


if __name__ == "__main__":
    sys.exit(main())
