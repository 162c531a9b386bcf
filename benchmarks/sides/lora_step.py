"""One side of the LoRA step: prepare what the sides share, or time one of them in a process of its own."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks.settings import settings_for
from lora_sam.predictors.embeddings.images import VALUES
from lora_sam.training.examples import Example
from lora_sam.training.settings import Settings

if TYPE_CHECKING:
    from lora_sam.methods.adapted import AdaptedSam
    from lora_sam.models.base_model import BaseModel
    from lora_sam.predictors.embeddings.store import EmbeddingCache

LOSS_OF_RUN = "loss"
LATE_BLOCKS = 3
ROW = "0" * 64  # key of the one row of the prefix cache
MAX_CACHE_BYTES = 2**30

Step = Callable[[], float]
"""One optimiser step; returns the loss before it."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How a step is taken.

    Attributes:
        directory: Holds the peer (`peer/`) and the prefix cache (`rows/`) that `prepare` made.
        precision: `fp32`, `bf16` or `auto`.
        checkpointing: Blocks whose activations are made again: `off` or `all`.
        frozen: In what frozen weights are held: `fp32` or `bf16`.
        device: `cpu` or `cuda`.
        batch_size: Images of a step, each with one box.
    """

    directory: Path
    precision: str = "fp32"
    checkpointing: str = "off"
    frozen: str = "fp32"
    device: str = "cpu"
    batch_size: int = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the answer of the side that was asked for."""
    starts = {"ours": our_step, "late": late_step, "peer": peer_step, "tutorial": tutorial_step}
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=("prepare", "prepare_peer", *starts))
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--checkpointing", default="off")
    parser.add_argument("--frozen", default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args(arguments)
    torch.set_num_threads(given.threads)
    conditions = Conditions(
        directory=given.directory,
        precision=given.precision,
        checkpointing=given.checkpointing,
        frozen=given.frozen,
        device=given.device,
        batch_size=given.batch,
    )
    if given.side == "prepare":
        answer = prepare(given.overrides, conditions)
    elif given.side == "prepare_peer":
        answer = prepare_peer(given.overrides, conditions)
    else:
        settings = (late_settings if given.side == "late" else lora_settings)(given.overrides)
        answer = time_steps(lambda: starts[given.side](settings, conditions), given.steps, given.device)
    print(json.dumps(answer))
    return 0


def lora_settings(overrides: Sequence[str]) -> Settings:
    """LoRA on q and v of all blocks, mask decoder frozen."""
    return settings_for("method=lora", "method.decoder=frozen", "loss=sam", "loss.resolution=low", *overrides)


def late_settings(overrides: Sequence[str]) -> Settings:
    """The same in the last blocks alone: three, or fewer in an encoder so small that no block would be frozen."""
    depth = lora_settings(overrides).model.depth
    return lora_settings([*overrides, f"method.blocks=last:{min(LATE_BLOCKS, depth - 1)}"])


def example(image_size: int) -> Example:
    """A fixed image of noise with one ellipse and its box, in the input frame of side `image_size`."""
    draws = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(image_size), torch.arange(image_size), indexing="ij")
    inside = ((rows / image_size - 0.5) / 0.2) ** 2 + ((columns / image_size - 0.45) / 0.3) ** 2 <= 1
    image = torch.randn(3, image_size, image_size, generator=draws) * 0.5 + inside
    box = torch.tensor([[0.15, 0.3, 0.75, 0.7]]) * image_size
    size = (image_size, image_size)
    return Example("ellipse", image, box, None, None, inside.unsqueeze(0), size, ("1",))


def prepare(overrides: Sequence[str], given: Conditions) -> dict[str, Any]:
    """Write the peer with our base weights and the rows of the prefix cache, and say how far apart the sides are.

    Returns:
        What `prepare_peer` returns; the largest absolute difference of the tutorial loop's logits (`tutorial`, with
        fresh adapters) in fp32; and what `prepare_rows` returns.
    """
    from benchmarks.sides import tutorial
    from lora_sam.models.decoding import decode_masks

    settings = lora_settings(overrides)
    device = torch.device(given.device)
    sam = settings.model.build().sam.to(device)
    other = tutorial.fused_sam(settings.model)
    tutorial.with_lora(other, _rank(settings))
    one = example(settings.model.image_size)
    image, boxes = _image_of(one).to(device), _boxes_of(one).to(device)
    with torch.no_grad():
        embedding = sam.image_encoder(image.unsqueeze(0))
        logits, _ = decode_masks(sam, embedding, boxes=boxes, points=None, labels=None)
        other.to(device)
        other_logits, _ = tutorial.low_res_masks(other, other.image_encoder(image.unsqueeze(0)), boxes)
    del other, sam
    return {
        **prepare_peer(overrides, given),
        "tutorial": float((logits[:, 0] - other_logits).abs().max()),
        **prepare_rows(late_settings(overrides), given),
    }


def prepare_peer(overrides: Sequence[str], given: Conditions) -> dict[str, Any]:
    """Write the peer with our base weights, and say how far apart the two are.

    Returns:
        Largest absolute differences, in fp32, of the peer's `embedding` and `logits`, beside the largest absolute
        values of ours.
    """
    from benchmarks.hf_sam import hf_embedding, hf_masks, hf_model
    from lora_sam.models.decoding import decode_masks

    settings = lora_settings(overrides)
    device = torch.device(given.device)
    sam = settings.model.build().sam.to(device)
    peer = hf_model(settings.model, sam).to(device)
    one = example(settings.model.image_size)
    image, boxes = _image_of(one).to(device), _boxes_of(one).to(device)
    with torch.no_grad():
        embedding = sam.image_encoder(image.unsqueeze(0))
        logits, _ = decode_masks(sam, embedding, boxes=boxes, points=None, labels=None)
        peer_embedding = hf_embedding(peer, image.unsqueeze(0))
        peer_logits, _ = hf_masks(peer, image, boxes)
    peer.save_pretrained(given.directory / "peer")
    return {
        "embedding": float((embedding - peer_embedding).abs().max()),
        "largest_embedding": float(embedding.abs().max()),
        "logits": float((logits[:, 0] - peer_logits).abs().max()),
        "largest_logit": float(logits.abs().max()),
    }


def prepare_rows(settings: Settings, given: Conditions) -> dict[str, Any]:
    """Fill the prefix cache, and compare a step from it with one from the image, both in fp32.

    Returns:
        `late_loss` and `late_loss_cached`, their losses; `late_gradient`, the largest difference of their gradients
        over the largest gradient; `row_bytes`, the size of a row.
    """
    base, adapted = _adapted(settings, given)
    stage, one = adapted.frozen_stage, example(settings.model.image_size)
    assert stage is not None
    encoder, image = adapted.sam.image_encoder, _image_of(one).to(given.device)
    step = _stepper(settings, adapted, replace(given, precision="fp32"))
    with rows_of(base, adapted, given.directory) as store, torch.no_grad():
        store.fill([ROW], lambda _: {VALUES: stage.of(encoder, image.unsqueeze(0)).float().cpu().numpy()})
    losses, gradients = [], []
    with rows_of(base, adapted, given.directory) as store:
        for taken in (one, replace(one, image=None, encoded=store.read(ROW)[VALUES])):
            adapted.peft.zero_grad(set_to_none=True)
            losses.append(step([taken]))
            gradients.append(torch.cat([_gradient(parameter) for parameter in adapted.trainable().values()]))
    return {
        "late_loss": losses[0],
        "late_loss_cached": losses[1],
        "late_gradient": float((gradients[0] - gradients[1]).abs().max() / gradients[0].abs().max()),
        "row_bytes": store.spec.row_bytes,
    }


def rows_of(base: BaseModel, adapted: AdaptedSam, directory: Path) -> EmbeddingCache:
    """The prefix cache: what the blocks before the first adapter make, rounded to float16."""
    from lora_sam.predictors.embeddings.store import EmbeddingCache, RowSpec

    stage = adapted.frozen_stage
    assert stage is not None
    spec = RowSpec(
        variant=base.variant,
        weights=base.sha256,
        stage=stage.name,
        image_size=base.image_size,
        precision="float32",
        shapes={VALUES: stage.shape(adapted.sam.image_encoder)},
        dtype="float16",
    )
    return EmbeddingCache.open(directory / "rows", spec, max_bytes=MAX_CACHE_BYTES)


def our_step(settings: Settings, given: Conditions) -> tuple[Step, dict[str, Any]]:
    """Our model and step, and facts about them."""
    _, adapted = _adapted(settings, given)
    batch = [example(settings.model.image_size)] * given.batch_size
    return _our_step(settings, adapted, given, lambda: batch)


def late_step(settings: Settings, given: Conditions) -> tuple[Step, dict[str, Any]]:
    """The same from the prefix cache, which every step reads."""
    base, adapted = _adapted(settings, given)
    one = replace(example(settings.model.image_size), image=None)
    store = rows_of(base, adapted, given.directory)
    return _our_step(
        settings,
        adapted,
        given,
        lambda: [replace(one, encoded=store.read(ROW)[VALUES]) for _ in range(given.batch_size)],
    )


def peer_step(settings: Settings, given: Conditions) -> tuple[Step, dict[str, Any]]:
    """The model of `transformers` with `peft` as their documents show it, on the loss and the optimiser of our side."""
    from benchmarks.hf_sam import read_peer, with_lora
    from lora_sam.models.device import autocast, pick_precision
    from lora_sam.training.step import mask_losses

    torch.manual_seed(settings.seed)
    device = torch.device(given.device)
    picked = pick_precision(given.precision, device)
    base = read_peer(given.directory / "peer")
    attention = base.config._attn_implementation
    method: Any = settings.method
    peer = with_lora(base, rank=method.rank, alpha=method.alpha).to(device)
    peer.train()
    trainable = {name: parameter for name, parameter in peer.named_parameters() if parameter.requires_grad}
    optimizer = settings.optim.build(trainable)
    batch = [example(settings.model.image_size)] * given.batch_size
    images = torch.stack([_image_of(one) for one in batch]).to(device)
    boxes = torch.stack([_boxes_of(one) for one in batch]).to(device)
    targets = torch.cat([one.targets for one in batch]).to(device)

    def step() -> float:
        with autocast(device, picked):
            output = peer(pixel_values=images, input_boxes=boxes, multimask_output=False)
        logits, iou = output.pred_masks[:, :, 0].flatten(0, 1), output.iou_scores[:, :, 0].flatten()
        loss = mask_losses(settings.loss, logits, iou, targets)[LOSS_OF_RUN].mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    count = sum(parameter.numel() for parameter in trainable.values())
    return step, {"precision": picked, "trainable_parameters": count, "attention": attention}


def tutorial_step(settings: Settings, given: Conditions) -> tuple[Step, dict[str, Any]]:
    """The loop of the tutorials, in fp32; see `benchmarks.sides.tutorial`."""
    from benchmarks.sides import tutorial

    torch.manual_seed(settings.seed)
    sam = tutorial.fused_sam(settings.model).to(given.device)
    batch = [example(settings.model.image_size)] * given.batch_size
    step, count = tutorial.lora_step(sam, batch, _rank(settings))
    return step, {"precision": "fp32", "trainable_parameters": count}


def time_steps(start: Callable[[], tuple[Step, dict[str, Any]]], steps: int, device: str = "cpu") -> dict[str, Any]:
    """One warm-up step, then `steps` timed ones, in a process that does nothing else.

    Returns:
        Losses of all steps; wall and CPU seconds of the timed ones; bytes before the first step (`before`,
        `peak_before`) and their peak at the end (`peak`): on a CPU resident ones, imports and weights included, on a
        GPU those that tensors occupy there.
    """
    step, facts = start()
    before, peak_before = held_bytes(device), peak_bytes(device)
    losses, seconds, cpu_seconds = [step()], [], []
    for _ in range(steps):
        synchronize(device)
        wall, cpu = time.perf_counter(), time.process_time()
        losses.append(step())
        synchronize(device)
        seconds.append(time.perf_counter() - wall)
        cpu_seconds.append(time.process_time() - cpu)
    memory = {"before": before, "peak_before": peak_before, "peak": peak_bytes(device)}
    return {**facts, "losses": losses, "seconds": seconds, "cpu_seconds": cpu_seconds, **memory}


def synchronize(device: str) -> None:
    """Wait until the device has done what it was given; a CPU has."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak_bytes(device: str = "cpu") -> int:
    """Largest memory so far: resident memory of this process, or what its tensors occupied on the GPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def held_bytes(device: str = "cpu") -> int:
    """The same now."""
    if device == "cuda":
        return torch.cuda.memory_allocated()
    import psutil

    return int(psutil.Process().memory_info().rss)


def _adapted(settings: Settings, given: Conditions) -> tuple[BaseModel, AdaptedSam]:
    from lora_sam.models.held import hold, linears_of

    torch.manual_seed(settings.seed)
    base = settings.model.build()
    linears = linears_of(base.sam.image_encoder)
    adapted: AdaptedSam = settings.method.apply(base.sam)
    adapted.peft.to(given.device)
    if given.frozen == "bf16":
        hold(adapted.sam.image_encoder, linears)
    adapted.train_mode()
    return base, adapted


def _our_step(
    settings: Settings, adapted: AdaptedSam, given: Conditions, batch: Callable[[], list[Example]]
) -> tuple[Step, dict[str, Any]]:
    from benchmarks.emulated import has_bf16, where_needed
    from lora_sam.models.device import pick_precision

    optimizer = settings.optim.build(adapted.trainable())
    accumulate = _stepper(settings, adapted, given)

    picked = pick_precision(given.precision, torch.device(given.device))

    def step() -> float:
        with where_needed(given.device, picked):
            loss = accumulate(batch())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    emulated = given.device == "cpu" and picked == "bf16" and not has_bf16()
    return step, {"precision": picked, "emulated": emulated, "trainable_parameters": adapted.count()[0]}


def _stepper(settings: Settings, adapted: AdaptedSam, given: Conditions) -> Callable[[list[Example]], float]:
    """Adds the gradients of a batch, and returns its loss."""
    from lora_sam.models.device import autocast, pick_precision
    from lora_sam.training.options import checkpointed_blocks
    from lora_sam.training.step import accumulate_gradients

    device, model = torch.device(given.device), settings.model
    picked = pick_precision(given.precision, device)
    checkpointing: Any = given.checkpointing
    blocks = checkpointed_blocks(model.depth, model.global_attention, checkpointing)

    def accumulate(batch: list[Example]) -> float:
        parts = accumulate_gradients(
            adapted,
            settings.loss,
            batch,
            chunk=settings.trainer.decoder_chunk,
            multimask_points=False,
            scale=1.0,
            autocast=autocast(device, picked),
            checkpointed=blocks,
        )
        return parts[LOSS_OF_RUN]

    return accumulate


def _rank(settings: Settings) -> int:
    method: Any = settings.method
    return int(method.rank)


def _image_of(one: Example) -> Tensor:
    assert one.image is not None
    return one.image


def _boxes_of(one: Example) -> Tensor:
    assert one.boxes is not None
    return one.boxes


def _gradient(parameter: torch.nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.flatten().clone()


if __name__ == "__main__":
    sys.exit(main())
