"""One side of encoding on a GPU: what the card is, how far the encoders are apart, or how fast one of them is."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.settings import settings_for
from benchmarks.sides.lora_step import example, peak_bytes, synchronize
from lora_sam.training.settings import Settings

WARM_UP = 3
# dense bf16 products with fp32 sums, TFLOP/s, from the vendors' data sheets; the first name that fits
PEAKS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "A40": 150.0,
    "A10": 125.0,
    "L4": 121.0,
    "RTX 4090": 165.0,
}
GEMM_SIDE = {"cuda": 8192, "cpu": 256}

Encode = Callable[[Tensor], Tensor]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the answer of the side that was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=("card", "compare", *_ENCODERS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args(arguments)
    settings = settings_for(*given.overrides)
    if given.side == "card":
        answer = card(settings, given.device)
    elif given.side == "compare":
        answer = compare(settings, given.device)
    else:
        answer = time_encodings(settings, given.side, given.device, given.batch, given.repeats)
    print(json.dumps(answer))
    return 0


def card(settings: Settings, device: str) -> dict[str, Any]:
    """Name of the card, its peak in bf16 and where that is from, and the work of encoding an image.

    Returns:
        `name`; `tflops` and `source`, `data sheet` or `measured`; `gemm_tflops`, measured in any case; `encode_tflop`.
    """
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    measured = gemm_tflops(device)
    known = known_peak(name)
    return {
        "name": name,
        "tflops": known or measured,
        "source": "data sheet" if known else "measured with a large matrix product",
        "gemm_tflops": measured,
        "encode_tflop": encode_tflop(settings),
    }


def known_peak(name: str) -> float | None:
    """Peak of a card by its name; None for one that is not in the table."""
    words = name.replace("-", " ").split()
    return next((peak for known, peak in PEAKS.items() if all(word in words for word in known.split())), None)


def gemm_tflops(device: str) -> float:
    """Best rate of a large square matrix product in bf16."""
    side = GEMM_SIDE[device]
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = min(_timed(lambda: one @ other, device, 10))
    return 2e-12 * side**3 / seconds


def encode_tflop(settings: Settings) -> float:
    """Multiplications and additions for one image in the package's own encoder, counted on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.sides import tutorial

    encoder = tutorial.fused_sam(settings.model).image_encoder.to("meta")
    side = settings.model.image_size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(torch.empty(1, 3, side, side, device="meta"))
    return float(counter.get_total_flops()) * 1e-12


def compare(settings: Settings, device: str) -> dict[str, Any]:
    """Largest absolute differences of every encoder's embedding of one image to the eager one in fp32.

    Returns:
        A number per encoder, and `largest`, the largest absolute value.
    """
    image = _images(settings, device, 1)
    with torch.no_grad():
        reference = _ENCODERS["eager_fp32"](settings, device)(image).float()
        found = {
            name: float((make(settings, device)(image).float() - reference).abs().max())
            for name, make in _ENCODERS.items()
        }
    torch.backends.cuda.matmul.allow_tf32 = False
    return {**found, "largest": float(reference.abs().max())}


def time_encodings(settings: Settings, side: str, device: str, batch: int, repeats: int) -> dict[str, Any]:
    """Wall seconds of `repeats` encodings of a batch after some that warm up; `peak` bytes on the device."""
    encode, images = _ENCODERS[side](settings, device), _images(settings, device, batch)
    with torch.no_grad():
        seconds = _timed(lambda: encode(images), device, repeats)
    return {"seconds": seconds, "batch_size": batch, "peak": peak_bytes(device)}


def _timed(action: Callable[[], object], device: str, repeats: int) -> list[float]:
    for _ in range(WARM_UP):
        action()
    seconds = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        action()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds


def _images(settings: Settings, device: str, count: int) -> Tensor:
    image = example(settings.model.image_size).image
    assert image is not None
    return torch.stack([image] * count).to(device)


def _ours(precision: str) -> Callable[[Settings, str], Encode]:
    def make(settings: Settings, device: str) -> Encode:
        from lora_sam.models.device import autocast

        encoder = settings.model.build().sam.to(device).image_encoder

        def encode(images: Tensor) -> Tensor:
            with autocast(torch.device(device), "bf16" if precision == "bf16" else "fp32"):
                embedding: Tensor = encoder(images)
            return embedding

        return encode

    return make


def _eager(*, tf32: bool) -> Callable[[Settings, str], Encode]:
    def make(settings: Settings, device: str) -> Encode:
        from benchmarks.sides import tutorial

        encoder: nn.Module = tutorial.fused_sam(settings.model).to(device).image_encoder

        def encode(images: Tensor) -> Tensor:
            torch.backends.cuda.matmul.allow_tf32 = tf32
            torch.backends.cudnn.allow_tf32 = tf32
            embedding: Tensor = encoder(images)
            return embedding

        return encode

    return make


def _hf_bf16(settings: Settings, device: str) -> Encode:
    from benchmarks.hf_sam import hf_model

    # as `from_pretrained(..., dtype=torch.bfloat16)` gives it
    peer = hf_model(settings.model, settings.model.build().sam).to(device, torch.bfloat16)

    def encode(images: Tensor) -> Tensor:
        embedding: Tensor = peer.get_image_embeddings(images.to(torch.bfloat16))
        return embedding

    return encode


_ENCODERS: dict[str, Callable[[Settings, str], Encode]] = {
    "ours_bf16": _ours("bf16"),
    "ours_fp32": _ours("fp32"),
    "eager_fp32": _eager(tf32=False),
    "eager_tf32": _eager(tf32=True),
    "hf_bf16": _hf_bf16,
}


if __name__ == "__main__":
    sys.exit(main())
