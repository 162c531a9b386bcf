"""Does a LoRA step on SAM 2.1 tiny take less time and memory than with `transformers` and `peft`?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

from benchmarks.processes import run_side, take_turns
from benchmarks.questions.lora_step import BF16_TOLERANCE, TOLERANCE, check_bases, gib_of, of_side, ratio, seconds_of
from benchmarks.record import BenchmarkError, Figure, Outcome, usable_cores

QUESTION = "Time and peak memory of a LoRA step on SAM 2.1 tiny at 1024 px: ours against transformers.Sam2Model + peft"
QUICK = False

PARAMETERS = 0.01  # most difference of trainable parameters, as a share: ranks are whole numbers

_PEER = "transformers + peft, fp32"
_FP32 = "ours, fp32"
_AUTO = "ours, default precision"
_PEER_BF16 = "transformers + peft, bf16"
_CHECKPOINTED = "ours, fp32, every block checkpointed"
_SIDES: dict[str, tuple[str, ...]] = {
    _FP32: ("fp32", "ours", "--precision", "fp32"),
    _PEER: ("peer", "peer", "--precision", "fp32"),
    _CHECKPOINTED: ("checkpointed", "ours", "--precision", "fp32", "--checkpointing", "all"),
    _AUTO: ("auto", "ours", "--precision", "auto"),
    _PEER_BF16: ("peer_bf16", "peer", "--precision", "bf16"),
}
"""Of a side: its key in the ids of figures, and how it is started."""


def measure(*, rehearse: bool) -> Outcome:
    """Give all sides the same weights, check that they compute the same, then let them take turns."""
    rounds, steps = (1, 1) if rehearse else (2, 2)
    threads = min(2, usable_cores())
    overrides = ["model=sam2_random" if rehearse else "model=sam2_tiny", "model.weights=random"]
    with tempfile.TemporaryDirectory() as temporary:
        common = ["--directory", temporary, "--threads", str(threads), "--steps", str(steps)]

        def side(*options: str) -> Callable[[], dict[str, Any]]:
            return lambda: run_side("lora_step", [*options, *common, *overrides], threads=threads)

        bases = side("prepare_peer")()
        check_bases(bases)
        measured = take_turns({name: side(*options) for name, (_, *options) in _SIDES.items()}, rounds)
    return Outcome(
        settings={
            "overrides": overrides,
            "rank": 8,
            "targets": {"ours": ["q", "v"], "peer": ["qkv"]},
            "loss": "sam",
            "batch_size": 1,
            "boxes": 1,
            "threads": threads,
            "rounds": rounds,
            "steps": steps,
            "warm_up_steps": 1,
        },
        checks={
            "bases": f"the three maps of the image differ by {bases['embedding']:.1e}, masks by {bases['logits']:.1e}",
            **check_sides(measured),
        },
        figures=figures(measured),
        details={"bases": bases, "sides": measured},
    )


def check_sides(measured: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """A fresh adapter changes nothing, so all sides begin with one loss; and they train as many parameters.

    Raises:
        BenchmarkError: they do not.
    """
    reference = measured[_PEER][0]
    start, expected = reference["losses"][0], reference["trainable_parameters"]
    for name, runs in measured.items():
        for run in runs:
            if abs(run["trainable_parameters"] / expected - 1) > PARAMETERS:
                raise BenchmarkError(f"{name} trains {run['trainable_parameters']} parameters, the peer {expected}")
            allowed = TOLERANCE if run["precision"] == "fp32" else BF16_TOLERANCE * abs(start)
            if abs(run["losses"][0] - start) > allowed:
                raise BenchmarkError(
                    f"{name} begins with loss {run['losses'][0]:.6f}, the peer with {start:.6f}: not the same step"
                )
    ours = measured[_FP32][0]["trainable_parameters"]
    return {
        "loss before the first step": ", ".join(
            f"{name} {runs[0]['losses'][0]:.5f}" for name, runs in measured.items()
        ),
        "trainable parameters": f"ours {ours:,}, the peer {expected:,}: where channels widen, its fused layer gets "
        "rank 7 of 8, the nearest to as many",
    }


def figures(measured: dict[str, list[dict[str, Any]]]) -> list[Figure]:
    """Ratios round by round, then what each side took."""
    auto = measured[_AUTO][0]["precision"]
    rows = (
        ("fp32", "both in fp32", (_FP32, _PEER), (1.0, 0.7)),
        ("auto", f"ours at default precision ({auto} here) / peer in fp32", (_AUTO, _PEER), (None, None)),
        ("bf16", f"ours at default precision ({auto} here) / peer in bf16", (_AUTO, _PEER_BF16), (None, None)),
        ("checkpointed", "ours with every block checkpointed / peer without, both in fp32", (_CHECKPOINTED, _PEER),
         (None, None)),
    )  # fmt: skip
    result = []
    for key, what, pair, (most_time, most_memory) in rows:
        goals = (" (goal 0.7)", " (goal 0.5)") if most_time else ("", "")
        what_time = f"LoRA step of SAM 2.1 tiny, time, ours / peer: {what}{goals[0]}"
        what_memory = f"LoRA step of SAM 2.1 tiny, peak memory, ours / peer: {what}{goals[1]}"
        result.append(ratio(measured, f"time_{key}", what_time, pair, seconds_of, limit=most_time))
        result.append(ratio(measured, f"memory_{key}", what_memory, pair, gib_of, limit=most_memory))
    for name, runs in measured.items():
        result += of_side(name, _SIDES[name][0], runs)
    return result
