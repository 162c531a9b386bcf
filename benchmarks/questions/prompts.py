"""How long do the prompts for 100 objects in an image of 512 px take?"""

from __future__ import annotations

from benchmarks.processes import run_side
from benchmarks.record import Outcome, figure

QUESTION = "How long do the prompts for 100 objects in an image of 512 px take, of any kind, on one thread?"
QUICK = True

LIMIT_MS = 10.0
KINDS = {
    "box": ("prompt=box", "prompt.jitter_fraction=0.05"),
    "point": ("prompt=point",),
    "points": ("prompt=points",),
    "points_random": ("prompt=points", "prompt.placement=random", "prompt.positive=5", "prompt.negative=5"),
    "points_farthest": ("prompt=points", "prompt.placement=farthest", "prompt.positive=5", "prompt.negative=5"),
    "mixed": ("prompt=mixed",),
    "mask": ("prompt=mask",),
    "iterative": ("prompt=iterative",),
    "none": ("prompt=none",),
}


def measure(*, rehearse: bool) -> Outcome:
    """Time every kind in a process of its own, training and evaluation prompts; the slower of the two counts."""
    count, side, repeats = (5, 64, 2) if rehearse else (100, 512, 30)
    sides = {
        name: run_side("prompts", [str(count), str(side), str(repeats), *overrides], threads=1)
        for name, overrides in KINDS.items()
    }
    figures = []
    for name, answer in sides.items():
        slower = max(("training", "evaluation"), key=lambda when: sorted(answer[when])[repeats // 2])
        milliseconds = [1e3 * value for value in answer[slower]]
        what = f"{' '.join(KINDS[name])}, {slower} prompts"
        figures.append(figure(name, what, milliseconds, unit="ms", limit=LIMIT_MS))
    return Outcome(
        settings={"objects": count, "side": side, "repeats": repeats, "share of the image": sides["box"]["share"]},
        checks={"the same prompts again for the same (seed, epoch, id)": f"{len(KINDS)} kinds, difference 0"},
        figures=figures,
        details=sides,
    )
