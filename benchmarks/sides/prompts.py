"""Time how long prompts for the objects of one image take, for every option of conf/prompt."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.settings import settings_for
from lora_sam.core.structures import Prompts, Sample

SEED = 0


def ellipses(count: int, side: int) -> NDArray[np.bool_]:
    """Masks bool [count, side, side] of ellipses that together have about a third of the area of the image."""
    draws = np.random.default_rng(SEED)
    rows, columns = np.mgrid[:side, :side]
    # mean of r * r * ratio * pi for the draws below, solved for a third of the image
    longest = np.sqrt(side * side / 3 / count / (np.pi * 0.4375 * 0.75)).item()
    masks = np.zeros((count, side, side), np.bool_)
    for mask in masks:
        radius, ratio = draws.uniform(0.25, 1) * longest, draws.uniform(0.5, 1)
        y, x = draws.uniform(radius, side - radius, 2)
        mask |= ((rows - y) / radius) ** 2 + ((columns - x) / (radius * ratio)) ** 2 < 1
        mask[int(y), int(x)] = True
    return masks


def measure(overrides: list[str], *, count: int, side: int, repeats: int) -> dict[str, Any]:
    """Seconds of each call, for training and evaluation, and whether a second call gave the same prompts."""
    source = settings_for("model=tiny_random", *overrides).prompt
    masks = ellipses(count, side)
    calls: dict[str, Callable[[Sample, int], Prompts]] = {
        "training": lambda sample, number: source.training_prompts(sample, SEED, number),
        "evaluation": lambda sample, number: source.evaluation_prompts(sample, SEED),
    }
    answer: dict[str, Any] = {"share": float(masks.sum() / side**2)}
    for name, call in calls.items():
        seconds = []
        for number in range(repeats + 1):
            # a new sample, as every image of a data set is: nothing is known of its masks
            sample = Sample("ellipses", np.zeros((side, side, 3), np.uint8), masks, tuple(map(str, range(count))))
            start = time.perf_counter()
            prompts = call(sample, number)
            seconds.append(time.perf_counter() - start)
            again = call(sample, number)
            assert len(prompts) == count
            for one, other in zip(vars(prompts).values(), vars(again).values(), strict=True):
                np.testing.assert_array_equal(one, other)
        answer[name] = seconds[1:]
    return answer


if __name__ == "__main__":
    number, pixels, rounds, *rest = sys.argv[1:]
    print(json.dumps(measure(rest, count=int(number), side=int(pixels), repeats=int(rounds))))
