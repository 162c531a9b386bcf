"""How long predictors take, measured in turns so that whatever else the machine does meets all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.structures import Prompts

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor

QUANTITIES = ("encoder", "decoder", "first_prompt", "next_prompt")

# Small, so that the time of encoder and decoder is theirs and not that of scaling pixels; square, so that it is not
# padded.
_SIDE = 64

# Lets the threads of the predictor before go to sleep: they wait actively for a while.
_PAUSE_SECONDS = 0.02


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one quantity.

    Attributes:
        median: Of all repetitions.
        low: The shortest.
        high: The longest.
    """

    median: float
    low: float
    high: float


def measure_latency(
    predictors: Mapping[str, Predictor],
    image: NDArray[np.uint8],
    prompts: Prompts,
    repeats: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    on_turn: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, Timing]]:
    """Time every predictor `repeats` times, in turns, after one turn that is not counted.

    - `encoder`: an image of 64 x 64 pixels, scaled, normalised and encoded; the embedding is not known before
    - `decoder`: one prompt on that image, once it is encoded
    - `first_prompt`: one prompt on `image`, from pixels to mask
    - `next_prompt`: one more prompt on `image`

    Args:
        predictors: What to measure, by name.
        image: RGB, uint8 [H, W, 3].
        prompts: At least one prompt on it.
        repeats: Counted turns.
        clock: Seconds.
        on_turn: Called with (turns done, all turns).

    Returns:
        A `Timing` for each of `QUANTITIES`, by name of the predictor.
    """
    assert len(prompts)
    assert repeats > 0
    first, following = prompts[slice(0, 1)], prompts[slice(-1, None)]
    small = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)
    inside = Prompts(boxes=np.array([[16, 16, 48, 48]], np.float32))
    taken: dict[str, dict[str, list[float]]] = {name: {what: [] for what in QUANTITIES} for name in predictors}
    for turn in range(repeats + 1):
        for name, predictor in predictors.items():
            predictor.forget()
            time.sleep(_PAUSE_SECONDS)
            moments = [clock()]
            predictor.predict(image, first)
            moments.append(clock())
            predictor.predict(image, following)
            moments.append(clock())
            predictor.set_image(small)
            moments.append(clock())
            predictor.predict(small, inside)
            moments.append(clock())
            if turn:
                steps = dict(zip(("first_prompt", "next_prompt", "encoder", "decoder"), np.diff(moments), strict=True))
                for what in QUANTITIES:
                    taken[name][what].append(1000 * float(steps[what]))
            predictor.forget()
        if on_turn is not None:
            on_turn(turn + 1, repeats + 1)
    return {name: {what: _timing(values) for what, values in found.items()} for name, found in taken.items()}


def _timing(values: list[float]) -> Timing:
    return Timing(float(np.median(values)), min(values), max(values))
