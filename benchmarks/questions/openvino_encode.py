"""How much faster is an exported image encoder than SAM's own predictor, and does exporting fit into a laptop?"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import run_side, take_turns
from benchmarks.record import BenchmarkError, Figure, Outcome, figure, usable_cores

QUESTION = "ViT-B encoder at 1024 px: OpenVINO against segment_anything's SamPredictor; exporting up to ViT-H"
QUICK = False

SPEED_UPS = {"f32": 2.0, "bf16": 3.8, "int8": 4.8, "int8_bf16": None}
INT8_SIZE = 0.55  # of the FP16 encoder
MEMORY = 24 * 2**30
COSINE = {"f32": 0.9999, "bf16": 0.999, "int8": 0.99, "int8_bf16": 0.99}
"""Least cosine between the embedding of a side and the peer's: of random weights, so no statement on accuracy."""

WHAT = {
    "f32": "OpenVINO FP16 files executed in f32",
    "bf16": "OpenVINO FP16 files executed in bf16",
    "int8": "OpenVINO INT8, the rest in f32",
    "int8_bf16": "OpenVINO INT8, the rest in bf16",
}


def measure(*, rehearse: bool) -> Outcome:
    """Export and quantise, check that all sides compute the same, then let them take turns on all cores."""
    threads = usable_cores()
    rounds, repeats = (1, 1) if rehearse else (3, 2)
    models = {"vit_b": ["model=vit_b", "model.weights=random"]}
    if rehearse:
        models = {"vit_b": ["model=tiny_random"]}
    else:
        models |= {name: [f"model={name}", "model.weights=random"] for name in ("vit_l", "vit_h")}
    made: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, overrides in models.items():
            where = ["--directory", str(Path(temporary) / name), "--threads", str(threads)]
            for step in ("export",) if name == "vit_h" else ("export", "quantize"):
                sys.stderr.write(f"  {step} {name}\n")
                made[f"{name} {step}"] = run_side("openvino_encode", [step, *where, *overrides], threads=threads)
        where = ["--directory", str(Path(temporary) / "vit_b"), "--threads", str(threads), "--repeats", str(repeats)]

        def side(name: str) -> Callable[[], dict[str, Any]]:
            arguments = [name, *where, *models["vit_b"]]
            return lambda: run_side("openvino_encode", arguments, threads=threads)

        measured = take_turns({name: side(name) for name in ("peer", *SPEED_UPS)}, rounds)
    checks = check_same(measured)
    for runs in measured.values():
        for one in runs:
            del one["embedding"]
    return Outcome(
        settings={"models": models, "threads": threads, "rounds": rounds, "repeats": repeats, "batch_size": 1},
        checks=checks,
        figures=figures(measured, made),
        details={"sides": measured, "made": made},
    )


def check_same(
    measured: dict[str, list[dict[str, Any]]],
    other: str = "peer",
    whose: str = "SamPredictor's",
    cosines: Mapping[str, float] = COSINE,
) -> dict[str, str]:
    """Cosines with the embedding of the side `other`, for people. Raises `BenchmarkError` where one is too small."""
    peer = np.array(measured[other][0]["embedding"])
    checks = {}
    for name, least in cosines.items():
        embedding = np.array(measured[name][0]["embedding"])
        cosine = float(peer @ embedding / np.linalg.norm(peer) / np.linalg.norm(embedding))
        if not cosine >= least:
            raise BenchmarkError(f"{name} does not compute what {other} computes: cosine {cosine:.5f}, least {least}")
        checks[f"embedding of {name}"] = f"cosine with {whose} {cosine:.6f} (random weights)"
    return checks


def figures(measured: dict[str, list[dict[str, Any]]], made: dict[str, dict[str, Any]]) -> list[Figure]:
    """Ratios round by round to the peer, seconds, sizes and memory."""
    seconds = {name: [min(one["seconds"]) for one in runs] for name, runs in measured.items()}
    result = [
        figure(
            f"{name}_speed_up",
            f"{WHAT[name]}: times as fast as SamPredictor",
            [peer / ours for peer, ours in zip(seconds["peer"], seconds[name], strict=True)],
            limit=limit,
            relation=">=",
        )
        for name, limit in SPEED_UPS.items()
    ]
    result.append(figure("peer_seconds", "SamPredictor.set_image, eager fp32", seconds["peer"], unit="s"))
    result += [figure(f"{name}_seconds", f"{WHAT[name]}", seconds[name], unit="s") for name in SPEED_UPS]
    for name in sorted({key.split()[0] for key in made}):
        exported, quantized = made[f"{name} export"], made.get(f"{name} quantize")
        if quantized is not None:
            ratio = quantized["bytes"] / exported["bytes"]
            limit = INT8_SIZE if name == "vit_b" else None
            result.append(
                figure(f"{name}_int8_size", f"{name}: size of the INT8 encoder over FP16", ratio, limit=limit)
            )
        limit = MEMORY / 1e9 if name == "vit_h" else None
        what = f"{name}: peak memory of exporting"
        result.append(figure(f"{name}_export_memory", what, exported["peak_bytes"] / 1e9, unit="GB", limit=limit))
        result.append(figure(f"{name}_export_seconds", f"{name}: exporting", exported["whole_seconds"], unit="s"))
    return result
