"""One side of the LoRA step: prepare both, or time ours or the peer's in a process of its own."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.settings import settings_for
from lora_sam.config import Settings
from lora_sam.data.batches import Example

LOSS_OF_RUN = "loss"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the answer of the side that was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=("prepare", "ours", "peer"))
    parser.add_argument("--peer-directory", type=Path, required=True)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args(arguments)
    torch.set_num_threads(given.threads)
    settings = settings_for("method=lora", "method.decoder=frozen", *given.overrides)
    if given.side == "prepare":
        answer = prepare(settings, given.peer_directory)
    else:
        start = our_step if given.side == "ours" else peer_step
        answer = time_steps(lambda: start(settings, given.peer_directory, given.precision), given.steps)
    print(json.dumps(answer))
    return 0


def example(image_size: int) -> Example:
    """A fixed image of noise with one ellipse and its box, in the input frame of side `image_size`."""
    draws = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(image_size), torch.arange(image_size), indexing="ij")
    inside = ((rows / image_size - 0.5) / 0.2) ** 2 + ((columns / image_size - 0.45) / 0.3) ** 2 <= 1
    image = torch.randn(3, image_size, image_size, generator=draws) * 0.5 + inside
    box = torch.tensor([[0.15, 0.3, 0.75, 0.7]]) * image_size
    size = (image_size, image_size)
    return Example("ellipse", image, box, None, None, inside.unsqueeze(0), size, ("1",))


def prepare(settings: Settings, directory: Path) -> dict[str, Any]:
    """Write the peer with our base weights to `directory`, and say how far apart the two bases are.

    Returns:
        `embedding` and `logits`, the largest absolute differences, beside the largest absolute values of ours.
    """
    from benchmarks.hf_sam import hf_masks, hf_model
    from lora_sam.models.decode import decode_masks

    sam = settings.model.build().sam
    peer = hf_model(settings.model, sam)
    one = example(settings.model.image_size)
    assert one.boxes is not None
    with torch.no_grad():
        embedding = sam.image_encoder(one.image.unsqueeze(0))
        logits, _ = decode_masks(sam, embedding, boxes=one.boxes, points=None, labels=None)
        peer_embedding = peer.get_image_embeddings(one.image.unsqueeze(0))
        peer_logits, _ = hf_masks(peer, one.image, one.boxes)
    peer.save_pretrained(directory)
    return {
        "embedding": float((embedding - peer_embedding).abs().max()),
        "largest_embedding": float(embedding.abs().max()),
        "logits": float((logits[:, 0] - peer_logits).abs().max()),
        "largest_logit": float(logits.abs().max()),
    }


Step = Callable[[], float]
"""One optimiser step; returns the loss before it."""


def our_step(settings: Settings, _: Path, precision: str) -> tuple[Step, dict[str, Any]]:
    """Our model and step, and facts about them."""
    from lora_sam.models.device import autocast, pick_precision
    from lora_sam.training.step import accumulate_gradients

    torch.manual_seed(settings.seed)
    adapted = settings.method.apply(settings.model.build().sam)
    adapted.train_mode()
    optimizer = settings.optim.build(adapted.trainable())
    device = torch.device("cpu")
    picked = pick_precision(precision, device)
    one = example(settings.model.image_size)

    def step() -> float:
        parts = accumulate_gradients(
            adapted,
            settings.loss,
            [one],
            chunk=settings.trainer.decoder_chunk,
            multimask_points=False,
            scale=1.0,
            autocast=autocast(device, picked),
        )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return parts[LOSS_OF_RUN]

    return step, {"precision": picked, "trainable_parameters": adapted.count()[0]}


def peer_step(settings: Settings, directory: Path, precision: str) -> tuple[Step, dict[str, Any]]:
    """`transformers.SamModel` with `peft` as their documents show it, on the loss and the optimiser of our side."""
    from transformers import SamModel

    from benchmarks.hf_sam import hf_masks, with_lora
    from lora_sam.training.step import mask_losses

    assert precision == "fp32", "the peer is measured in its default arithmetic"
    torch.manual_seed(settings.seed)
    method: Any = settings.method
    base = SamModel.from_pretrained(directory, local_files_only=True)
    attention = base.config._attn_implementation
    peer = with_lora(base, rank=method.rank, alpha=method.alpha)
    peer.train()
    trainable = {name: parameter for name, parameter in peer.named_parameters() if parameter.requires_grad}
    optimizer = settings.optim.build(trainable)
    one = example(settings.model.image_size)
    assert one.boxes is not None
    boxes = one.boxes

    def step() -> float:
        logits, iou = hf_masks(peer, one.image, boxes)
        loss = mask_losses(settings.loss, logits, iou, one.targets)[LOSS_OF_RUN].mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    count = sum(parameter.numel() for parameter in trainable.values())
    return step, {"precision": "fp32", "trainable_parameters": count, "attention": attention}


def time_steps(start: Callable[[], tuple[Step, dict[str, Any]]], steps: int) -> dict[str, Any]:
    """One warm-up step, then `steps` timed ones, in a process that does nothing else.

    Returns:
        Losses of all steps; wall and CPU seconds of the timed ones; resident bytes before the first step (`before`,
        `peak_before`) and their peak at the end (`peak`): imports and weights are in all of them.
    """
    step, facts = start()
    before, peak_before = resident_bytes(), peak_bytes()
    losses, seconds, cpu_seconds = [step()], [], []
    for _ in range(steps):
        wall, cpu = time.perf_counter(), time.process_time()
        losses.append(step())
        seconds.append(time.perf_counter() - wall)
        cpu_seconds.append(time.process_time() - cpu)
    memory = {"before": before, "peak_before": peak_before, "peak": peak_bytes()}
    return {**facts, "losses": losses, "seconds": seconds, "cpu_seconds": cpu_seconds, **memory}


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes() -> int:
    """Resident memory of this process now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    sys.exit(main())
