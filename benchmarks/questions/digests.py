"""What does it cost that weights are compared with their digest whenever they are loaded?"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from benchmarks.processes import run_side, take_turns
from benchmarks.record import BenchmarkError, Outcome, figure, usable_cores

QUESTION = "Loading ViT-B from a .pth file with and without its digest being compared"
QUICK = False

LIMIT = 1.05


def measure(*, rehearse: bool) -> Outcome:
    """Write random weights as Meta's file is, then load them in fresh processes in turns."""
    model, rounds = ("tiny_random", 1) if rehearse else ("vit_b", 5)
    with tempfile.TemporaryDirectory() as temporary:
        file = str(Path(temporary) / "weights.pth")
        written = run_side("digests", ["write", model, file], threads=1)
        sides = {
            name: partial(run_side, "digests", [name, model, file], threads=usable_cores())
            for name in ("checked", "weights", "unchecked")
        }
        answers = take_turns(sides, rounds)
    if {one["sha256"] for side in answers.values() for one in side} != {written["sha256"]}:
        raise BenchmarkError("the digest of the loaded file is not that of the written one")
    seconds = {name: [one["seconds"] for one in side] for name, side in answers.items()}
    ratios = {
        name: [one / other for one, other in zip(seconds[name], seconds["unchecked"], strict=True)]
        for name in ("checked", "weights")
    }
    return Outcome(
        settings={"model": model, "bytes": written["bytes"], "threads": usable_cores(), "rounds": rounds},
        checks={"digest": f"of the loaded file {written['sha256'][:12]}, as it was written"},
        figures=[
            figure("ratio", "loading ViT-B, its digest compared / not", ratios["checked"], limit=LIMIT),
            figure("checked", "its digest compared with that of the manifest", seconds["checked"], unit="s"),
            figure("unchecked", "without", seconds["unchecked"], unit="s"),
            figure("ratio_weights", "the same, and that of the weights asked for / without", ratios["weights"]),
            figure("weights", "the same, and that of the weights asked for", seconds["weights"], unit="s"),
        ],
        details=dict(answers),
    )
