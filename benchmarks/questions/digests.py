"""What does it cost that weights are compared with their digest whenever they are loaded?"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from benchmarks.processes import run_side, take_turns
from benchmarks.record import BenchmarkError, Outcome, figure, usable_cores

QUESTION = "Loading ViT-B from a .pth file with and without the digest of file and tensors"
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
            for name in ("checked", "unchecked")
        }
        answers = take_turns(sides, rounds)
    if {one["sha256"] for one in answers["checked"]} != {written["sha256"]}:
        raise BenchmarkError("the digest of the loaded file is not that of the written one")
    seconds = {name: [one["seconds"] for one in side] for name, side in answers.items()}
    ratios = [one / other for one, other in zip(seconds["checked"], seconds["unchecked"], strict=True)]
    return Outcome(
        settings={"model": model, "bytes": written["bytes"], "threads": usable_cores(), "rounds": rounds},
        checks={"digest": f"of the loaded file {written['sha256'][:12]}, as it was written"},
        figures=[
            figure("ratio", "loading ViT-B, with digests / without", ratios, limit=LIMIT),
            figure("checked", "with digests of file and tensors", seconds["checked"], unit="s"),
            figure("unchecked", "without", seconds["unchecked"], unit="s"),
        ],
        details=dict(answers),
    )
