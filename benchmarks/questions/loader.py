"""How many training examples does one core make in a second, and how much of that time is not decoding and scaling?"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.processes import run_side, take_turns
from benchmarks.record import BenchmarkError, Figure, Outcome, figure

QUESTION = "How fast is the loader alone with JPEG photographs for an input of 1024 px, on one core?"
QUICK = True

LIMIT_RATE = 12.0
LIMIT_SHARE = 0.95
SIDES = {
    "loader": ("loader", "prompt=box"),
    "loader_points": ("loader", "prompt=points"),
    "decode": ("decode", "prompt=box"),
}
"""Action of `benchmarks.sides.loader` and prompts, by name of the side."""


def measure(*, rehearse: bool) -> Outcome:
    """Write a COCO set, then let training examples and decoding + scaling alone take turns in fresh processes."""
    images, objects, size = (4, 2, (48, 64)) if rehearse else (24, 8, (1024, 1365))
    rounds, passes = (1, 2) if rehearse else (3, 5)
    model = "model=tiny_random" if rehearse else "model=vit_b"
    with tempfile.TemporaryDirectory() as temporary:
        root = str(Path(temporary) / "set")
        numbers = ["--images", str(images), "--objects", str(objects), "--size", *map(str, size)]
        written = run_side("loader", ["write", root, *numbers], threads=1)
        runs = {
            name: partial(run_side, "loader", [action, root, model, prompt, "--passes", str(passes)], threads=1)
            for name, (action, prompt) in SIDES.items()
        }
        answers = take_turns(runs, rounds)
    check_same(answers, objects)
    return Outcome(
        settings={
            "images": answers["decode"][0]["images"],
            "height": size[0],
            "width": size[1],
            "objects of an image": objects,
            "share of the image": round(written["share"], 3),
            "bytes of a JPEG": round(written["jpeg_bytes"]),
            "model": model,
            "passes": passes,
            "rounds": rounds,
        },
        checks={
            "image tensors of all sides": f"equal, SHA-256 {answers['decode'][0]['pixels'][:12]}",
            "targets": f"{answers['loader'][0]['objects']} objects in each pass, none empty",
        },
        figures=figures(answers),
        details=dict(answers),
    )


def check_same(answers: Mapping[str, Sequence[Mapping[str, Any]]], objects: int) -> None:
    """Refuse sides that computed other image tensors than each other, or not all objects. Raises `BenchmarkError`."""
    pixels = {name: {answer["pixels"] for answer in side} for name, side in answers.items()}
    if len(set().union(*pixels.values())) != 1:
        raise BenchmarkError(f"the sides do not compute the same image tensors: {pixels}")
    for name, side in answers.items():
        for answer in side:
            expected = 0 if name == "decode" else objects * answer["images"]
            if answer["objects"] != expected:
                raise BenchmarkError(f"{name}: {answer['objects']} objects were loaded, {expected} were written")


def figures(answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Figure]:
    """Rates, one of each round, and what share of the rate of decoding and scaling the loader reaches."""
    rates = {name: [_rate(answer) for answer in side] for name, side in answers.items()}
    what = "of the rate of decode + resize alone"
    shares = {
        name: [ours / alone for ours, alone in zip(rates[name], rates["decode"], strict=True)]
        for name in ("loader", "loader_points")
    }
    return [
        figure(
            "rate", "training examples, prompt=box", rates["loader"], unit="images/s", limit=LIMIT_RATE, relation=">="
        ),
        figure("share", f"the same as a share {what}", shares["loader"], limit=LIMIT_SHARE, relation=">="),
        figure("decode", "decode + resize alone", rates["decode"], unit="images/s", relation=">="),
        figure("rate_points", "training examples, prompt=points", rates["loader_points"], unit="images/s"),
        figure("share_points", f"the same as a share {what}", shares["loader_points"]),
    ]


def _rate(answer: Mapping[str, Any]) -> float:
    """Images per second: the median of the passes of a process."""
    return float(answer["images"] / statistics.median(answer["seconds"]))
