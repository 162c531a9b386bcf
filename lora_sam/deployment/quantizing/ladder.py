"""Which attempts at INT8 are made, in which order, and which one is kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

ALPHAS = (0.95, 0.5, 0.75, 0.15)
"""Shares of the difficulty that SmoothQuant moves from activations into weights; the first is NNCF's default."""

PATCHES = r".*patch_embed.*"
"""An image has 256 levels, and a dark one uses some dozens: rounded to another grid of 256 it loses a part of them."""

NECK = r".*neck\..*"
CLASS_HEAD = r".*class_head.*"
"""Tells classes from sums over pixels: a few thousand weights, and no loss of masks would show what rounding costs."""

HEADS = (r".*output_upscaling.*", r".*output_hypernetworks.*", r".*iou_prediction_head.*")


@dataclass(frozen=True)
class Rung:
    """One attempt.

    Attributes:
        name: In words, for people.
        alpha: SmoothQuant's exponent.
        in_float: Regular expressions of the operations that are computed in floating point.
        controlled: Give back the quantisers that cost most accuracy, one by one, until the loss is small enough.
    """

    name: str
    alpha: float = ALPHAS[0]
    in_float: tuple[str, ...] = (PATCHES,)
    controlled: bool = False


@dataclass(frozen=True)
class Attempt:
    """A rung and what it lost.

    Attributes:
        rung: What was tried.
        drop: Points of IoU lost; None where nothing was measured.
    """

    rung: Rung
    drop: float | None

    def __str__(self) -> str:
        lost = "not measured" if self.drop is None else f"IoU {-self.drop:+.2f} points"
        return f"{self.rung.name}: {lost}"


@dataclass(frozen=True)
class Rungs:
    """What to try, in order.

    Attributes:
        first: Tried as they are.
        then: Tried with the exponent of the best of the first.
    """

    first: tuple[Rung, ...]
    then: tuple[Rung, ...] = ()


def encoder_rungs(ends: Sequence[str]) -> Rungs:
    """For an image encoder whose first and last block have these names, like `blocks.0`."""
    ends_mlp = rf".*\b({'|'.join(map(re.escape, ends))})\.mlp\..*"
    return Rungs(
        tuple(Rung(f"SmoothQuant {alpha:g}", alpha) for alpha in ALPHAS),
        (
            Rung("neck in floating point", in_float=(PATCHES, NECK)),
            Rung("neck and the MLPs of the first and last block in floating point", in_float=(PATCHES, NECK, ends_mlp)),
            Rung("accuracy control", controlled=True),
        ),
    )


DECODER_RUNGS = Rungs((Rung("all of it", in_float=()), Rung("all but its heads", in_float=HEADS)))


def climb(rungs: Rungs, measure: Callable[[Rung], float | None], limit: float | None) -> list[Attempt]:
    """Try rungs until one loses at most `limit`.

    Args:
        rungs: What to try.
        measure: Makes an attempt and returns what it lost.
        limit: Points of IoU that may be lost; None is content with the first rung.

    Returns:
        What was tried, in order.
    """
    tried: list[Attempt] = []
    for rung in _in_order(rungs, tried):
        tried.append(Attempt(rung, measure(rung)))
        if is_enough(tried[-1], limit):
            break
    return tried


def best(tried: Sequence[Attempt]) -> Attempt:
    """The attempt that lost least; the first of equal ones."""
    return min(tried, key=lambda attempt: float("-inf") if attempt.drop is None else attempt.drop)


def is_enough(attempt: Attempt, limit: float | None) -> bool:
    """Whether an attempt lost at most `limit`."""
    return limit is None or (attempt.drop is not None and attempt.drop <= limit)


def _in_order(rungs: Rungs, tried: Sequence[Attempt]) -> Iterator[Rung]:
    yield from rungs.first
    for rung in rungs.then:
        smooth = best(tried[: len(rungs.first)]).rung
        yield replace(rung, name=f"{smooth.name}, {rung.name}", alpha=smooth.alpha)
