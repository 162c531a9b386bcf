"""What does a LoRA step on ViT-B take on a processor without bf16, and how little memory can it do with?"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import frozen_masks
from benchmarks.processes import run_side, take_turns
from benchmarks.questions.lora_step import (
    check_bases,
    check_same_step,
    gib_of,
    of_side,
    ratio,
    seconds_of,
)
from benchmarks.record import Figure, Outcome, figure, usable_cores

QUESTION = (
    "A LoRA step on ViT-B at 1024 px: time at the peer's precision, and memory with blocks and weights made small"
)
QUICK = False

PEER = "transformers + peft, fp32"
OURS = "ours, fp32"
CHECKPOINTED = "ours, fp32, every block checkpointed"
HELD = "ours, bf16, frozen weights in bf16"
_KEYS = {OURS: "fp32", PEER: "peer", CHECKPOINTED: "checkpointed", HELD: "held"}


def measure(*, rehearse: bool) -> Outcome:
    """Give all sides the same weights, check that they compute the same, then let them take turns."""
    rounds, steps = (1, 1) if rehearse else (2, 2)
    threads = min(2, usable_cores())
    overrides = ["model=tiny_random" if rehearse else "model=vit_b", "model.weights=random"]
    with tempfile.TemporaryDirectory() as temporary:
        common = ["--directory", temporary, "--threads", str(threads)]

        def side(name: str, *options: str) -> Callable[[], dict[str, Any]]:
            return lambda: run_side("lora_step", [name, *common, *options, *overrides], threads=threads)

        bases = side("prepare_peer")()
        check_bases(bases)
        timed = {
            OURS: side("ours", "--precision", "fp32", "--steps", str(steps)),
            PEER: side("peer", "--precision", "fp32", "--steps", str(steps)),
        }
        # memory alone is asked of these, and it is the same at every step: one round is enough
        of_memory = {
            CHECKPOINTED: side("ours", "--precision", "fp32", "--checkpointing", "all", "--steps", "1"),
            HELD: side("ours", "--precision", "bf16", "--frozen", "bf16", "--steps", "1"),
        }
        measured = {**take_turns(timed, rounds), **take_turns(of_memory, 1)}
        masks = frozen_masks.tuned(Path(temporary), steps=2 if rehearse else 40)
    return Outcome(
        settings={"overrides": overrides, "rank": 8, "batch_size": 1, "boxes": 1, "threads": threads, "steps": steps},
        checks={
            "bases": f"image embeddings differ by {bases['embedding']:.1e}, masks by {bases['logits']:.1e}",
            **check_sides(measured),
            **frozen_masks.check(masks),
        },
        figures=figures(measured),
        details={"bases": bases, "sides": measured, "masks": masks},
    )


def check_sides(measured: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """That all begin with the loss of the peer and train as many parameters. Raises `BenchmarkError` if not."""
    check_same_step(measured, PEER)
    first = ", ".join(f"{name} {runs[0]['losses'][0]:.5f}" for name, runs in measured.items())
    emulated = any(run.get("emulated") for run in measured[HELD])
    return {
        "loss before the first step": first,
        "bf16": "emulated: products in fp32 of pieces, tensors of bf16" if emulated else "of the processor",
    }


def figures(measured: dict[str, list[dict[str, Any]]]) -> list[Figure]:
    """Ratios to the peer in fp32, and what each side took."""
    peer = statistics.median(map(gib_of, measured[PEER]))
    found = [
        ratio(measured, "time_fp32", "time, ours / peer, both in fp32 (goal 0.5)", (OURS, PEER), seconds_of, limit=0.7),
        ratio(
            measured, "memory_fp32", "memory, ours / peer, both in fp32 (goal 0.4)", (OURS, PEER), gib_of, limit=0.55
        ),
    ]
    rows = (
        (CHECKPOINTED, "memory, ours with every block checkpointed / peer, both in fp32 (goal 0.25)", 0.35),
        (HELD, "memory, ours in bf16 with frozen weights in bf16 / peer in fp32 (goal 0.22)", 0.30),
    )
    for name, what, limit in rows:
        found.append(figure(f"memory_{_KEYS[name]}", what, [gib_of(run) / peer for run in measured[name]], limit=limit))
    for name, runs in measured.items():
        found += of_side(name, _KEYS[name], runs)
    return found
