"""How much faster is the exported image encoder of SAM 2.1 tiny than the first SAM's own predictor?"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.processes import run_side, take_turns
from benchmarks.questions.openvino_encode import WHAT, check_same
from benchmarks.record import Figure, Outcome, figure, usable_cores

QUESTION = "SAM 2.1 tiny at 1024 px: OpenVINO against segment_anything's SamPredictor with ViT-B"
QUICK = False

SPEED_UPS = {"int8_bf16": 10.0, "int8": None, "bf16": None, "f32": None}
COSINE = {"f32": 0.9999, "bf16": 0.995, "int8": 0.98, "int8_bf16": 0.98}
"""Least cosine with the embedding of the same random weights in torch: so no statement on accuracy."""

_TORCH = "torch"


def measure(*, rehearse: bool) -> Outcome:
    """Export and quantise, check the sides against the same model in torch, then let them take turns on all cores."""
    threads = usable_cores()
    rounds, repeats = (1, 1) if rehearse else (3, 2)
    ours = ["model=sam2_random"] if rehearse else ["model=sam2_tiny", "model.weights=random"]
    theirs = ["model=tiny_random"] if rehearse else ["model=vit_b", "model.weights=random"]
    made: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        where = ["--directory", str(Path(temporary)), "--threads", str(threads)]
        for step in ("export", "quantize"):
            sys.stderr.write(f"  {step}\n")
            made[step] = run_side("openvino_encode", [step, *where, *ours], threads=threads)

        def side(name: str) -> Callable[[], dict[str, Any]]:
            overrides = theirs if name == "peer" else ours
            arguments = [name, *where, "--repeats", str(repeats), *overrides]
            return lambda: run_side("openvino_encode", arguments, threads=threads)

        measured = take_turns({name: side(name) for name in ("peer", *SPEED_UPS, _TORCH)}, rounds)
    checks = check_same(measured, _TORCH, "the same model's in torch", COSINE)
    for runs in measured.values():
        for one in runs:
            del one["embedding"]
    return Outcome(
        settings={
            "models": {"ours": ours, "peer": theirs},
            "threads": threads,
            "rounds": rounds,
            "repeats": repeats,
            "batch_size": 1,
        },
        checks=checks,
        figures=figures(measured, made),
        details={"sides": measured, "made": made},
    )


def figures(measured: dict[str, list[dict[str, Any]]], made: dict[str, dict[str, Any]]) -> list[Figure]:
    """Ratios round by round to the peer, seconds, size and memory."""
    seconds = {name: [min(one["seconds"]) for one in runs] for name, runs in measured.items()}
    whats = {**WHAT, _TORCH: "torch, eager fp32"}
    result = []
    for name in (*SPEED_UPS, _TORCH):
        limit = SPEED_UPS.get(name)
        result.append(
            figure(
                f"{name}_speed_up",
                f"SAM 2.1 tiny, {whats[name]}: times as fast as SamPredictor with ViT-B{' (goal 15)' if limit else ''}",
                [peer / own for peer, own in zip(seconds["peer"], seconds[name], strict=True)],
                limit=limit,
                relation=">=",
            )
        )
    peer = "SamPredictor.set_image with ViT-B, eager fp32"
    result.append(figure("peer_seconds", peer, seconds["peer"], unit="s"))
    result += [
        figure(f"{name}_seconds", f"SAM 2.1 tiny, {whats[name]}", seconds[name], unit="s")
        for name in (*SPEED_UPS, _TORCH)
    ]
    size = made["quantize"]["bytes"] / made["export"]["bytes"]
    result.append(figure("int8_size", "SAM 2.1 tiny: size of the INT8 encoder over FP16", size))
    memory = made["export"]["peak_bytes"] / 1e9
    result.append(figure("export_memory", "SAM 2.1 tiny: peak memory of exporting", memory, unit="GB"))
    return result
