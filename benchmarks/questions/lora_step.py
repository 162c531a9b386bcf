"""Does a LoRA step on ViT-B take more time or memory than with `transformers` and `peft`?"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.processes import run_side, take_turns
from benchmarks.record import BenchmarkError, Figure, Outcome, figure, usable_cores

QUESTION = "Time and peak memory of a LoRA step on ViT-B at 1024 px: ours against transformers.SamModel + peft"
QUICK = True

TOLERANCE = 1e-3  # of embeddings and logits of the two bases, and of the first losses in fp32
BF16_TOLERANCE = 2e-2  # of the first loss, relative

_PEER = "transformers + peft, fp32"
_FP32 = "ours, fp32"
_AUTO = "ours, default precision"


def measure(*, rehearse: bool) -> Outcome:
    """Give both sides the same weights, check that they compute the same, then let them take turns."""
    rounds, steps = (1, 1) if rehearse else (2, 3)
    threads = min(2, usable_cores())
    model = "model=tiny_random" if rehearse else "model=vit_b"
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / "peer"
        common = ["--peer-directory", str(directory), "--threads", str(threads), "--steps", str(steps)]
        overrides = [model, "model.weights=random"]

        def side(name: str, precision: str) -> Callable[[], dict[str, Any]]:
            arguments = [name, *common, "--precision", precision, *overrides]
            return lambda: run_side("lora_step", arguments, threads=threads)

        bases = side("prepare", "fp32")()
        _check_bases(bases)
        sides = {_FP32: side("ours", "fp32"), _PEER: side("peer", "fp32"), _AUTO: side("ours", "auto")}
        measured = take_turns(sides, rounds)
    checks = {"bases": f"image embeddings differ by {bases['embedding']:.1e}, masks by {bases['logits']:.1e}"}
    checks |= _check_sides(measured)
    return Outcome(
        settings={
            "overrides": overrides,
            "rank": 8,
            "targets": {"ours": ["q", "v"], "peer": ["qkv"]},
            "batch_size": 1,
            "boxes": 1,
            "threads": threads,
            "rounds": rounds,
            "steps": steps,
            "warm_up_steps": 1,
        },
        checks=checks,
        figures=_figures(measured),
        details={"bases": bases, "sides": measured},
    )


def _check_bases(bases: dict[str, Any]) -> None:
    if max(bases["embedding"], bases["logits"]) > TOLERANCE:
        raise BenchmarkError(
            f"the two bases do not compute the same: embeddings differ by {bases['embedding']:.2e} and masks by "
            f"{bases['logits']:.2e}, {TOLERANCE} is allowed"
        )


def _check_sides(measured: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """A fresh adapter changes nothing, so all sides begin with the same loss; and with as many parameters."""
    (expected,) = {run["trainable_parameters"] for run in measured[_PEER]}
    reference = measured[_PEER][0]["losses"][0]
    for name, runs in measured.items():
        for run in runs:
            if run["trainable_parameters"] != expected:
                raise BenchmarkError(f"{name} trains {run['trainable_parameters']} parameters, the peer {expected}")
            allowed = TOLERANCE if run["precision"] == "fp32" else BF16_TOLERANCE * abs(reference)
            if abs(run["losses"][0] - reference) > allowed:
                raise BenchmarkError(
                    f"{name} begins with loss {run['losses'][0]:.6f}, the peer with {reference:.6f}: not the same step"
                )
    first = ", ".join(f"{name} {runs[0]['losses'][0]:.5f}" for name, runs in measured.items())
    return {"loss before the first step": first, "trainable parameters": f"{expected:,} on every side"}


def _figures(measured: dict[str, list[dict[str, Any]]]) -> list[Figure]:
    figures = []
    for name, key in ((_FP32, "fp32"), (_AUTO, "auto")):
        precision = measured[name][0]["precision"]
        shown = f"ours ({precision})" if key == "fp32" else f"ours at default precision ({precision} here)"
        time_ratios, time_ratio = _ratios(measured, name, _seconds)
        memory_ratios, memory_ratio = _ratios(measured, name, _gib)
        figures += [
            figure(f"time_{key}", f"LoRA step, time, {shown} / peer", time_ratios, value=time_ratio, limit=1.0),
            figure(f"memory_{key}", f"LoRA step, memory, {shown} / peer", memory_ratios, value=memory_ratio, limit=0.5),
        ]
    for name, key in ((_FP32, "fp32"), (_AUTO, "auto"), (_PEER, "peer")):
        runs = measured[name]
        seconds = [value for run in runs for value in run["seconds"]]
        cpu_seconds = [value for run in runs for value in run["cpu_seconds"]]
        figures += [
            figure(f"seconds_{key}", f"{name}: time of a step", seconds, unit="s"),
            figure(f"cpu_seconds_{key}", f"{name}: CPU time of a step, all threads", cpu_seconds, unit="s"),
            figure(f"gib_{key}", f"{name}: peak memory", [_gib(run) for run in runs], unit="GiB"),
            figure(
                f"gib_before_{key}",
                f"{name}: memory before the first step",
                [run["before"] / 2**30 for run in runs],
                unit="GiB",
            ),
        ]
    return figures


def _ratios(
    measured: dict[str, list[dict[str, Any]]], name: str, of: Callable[[dict[str, Any]], float]
) -> tuple[list[float], float]:
    """Ratio to the peer in every round, and of the medians over all rounds."""
    ours, peers = [of(run) for run in measured[name]], [of(run) for run in measured[_PEER]]
    ratios = [our / peer for our, peer in zip(ours, peers, strict=True)]
    return ratios, statistics.median(ours) / statistics.median(peers)


def _seconds(run: dict[str, Any]) -> float:
    return float(statistics.median(run["seconds"]))


def _gib(run: dict[str, Any]) -> float:
    return float(run["peak"] / 2**30)
