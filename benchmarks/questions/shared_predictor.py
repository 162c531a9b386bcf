"""Is one OpenVINO predictor that threads share as right as one alone, and faster than behind a lock?"""

from __future__ import annotations

import tempfile
from functools import partial

from benchmarks.needs import packaged_nano
from benchmarks.processes import run_side, take_turns
from benchmarks.record import Outcome, figure, usable_cores

QUESTION = "Eight threads that share one OpenVINO predictor of the packaged nano, against the same behind a lock"
QUICK = False

THREADS, CALLS = 8, 100
LIMIT = 1.3


def measure(*, rehearse: bool) -> Outcome:
    """Export both parts once; then threads ask about 8 images in turn, in fresh processes, with and without a lock."""
    packaged_nano()
    calls, rounds = (2, 1) if rehearse else (CALLS, 3)
    with tempfile.TemporaryDirectory() as directory:
        run_side("shared_predictor", ["export", directory], threads=usable_cores())
        words = [directory, "--threads", str(THREADS), "--calls", str(calls)]
        sides = {
            name: partial(run_side, "shared_predictor", [name, *words], threads=usable_cores())
            for name in ("shared", "locked")
        }
        answers = take_turns(sides, rounds)
    rates = {name: [one["calls_per_second"] for one in side] for name, side in answers.items()}
    ratios = [one / other for one, other in zip(rates["shared"], rates["locked"], strict=True)]
    wrong = sum(one["wrong"] for one in answers["shared"])
    asked = rounds * THREADS * calls
    return Outcome(
        settings={
            "threads": THREADS,
            "calls of a thread": calls,
            "images": 8,
            "threads of a request": 1,
            "cores": usable_cores(),
            "rounds": rounds,
        },
        checks={"every call": "compared with the same call alone; the images are told apart by their masks"},
        figures=[
            figure("wrong", f"answers of {asked:,} that are not those of the call alone", wrong, limit=0),
            figure("ratio", "calls a second, shared / behind a lock", ratios, limit=LIMIT, relation=">="),
            figure("shared", "calls a second, shared", rates["shared"], unit="calls/s", relation=">="),
            figure("locked", "calls a second, behind a lock", rates["locked"], unit="calls/s", relation=">="),
        ],
        details=dict(answers),
    )
