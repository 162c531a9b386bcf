"""Which images to label next: far from what is labelled, where adapter and base differ, no two alike."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

PER_SIDE = 8
"""Points of the grid that disagreement is measured at, per side."""


def described(embedding: NDArray[np.float32], extent: tuple[int, int], side: int) -> NDArray[np.float64]:
    """Means and standard deviations of the channels of an image embedding, [2 C].

    Args:
        embedding: float32 [1, C, h, w].
        extent: (height, width) of the image in the model's input frame; what lies beyond is padding and left out.
        side: Side of that frame.
    """
    rows, columns = (
        max(1, -(-length * cells // side)) for length, cells in zip(extent, embedding.shape[2:], strict=True)
    )
    cells = embedding[0, :, :rows, :columns].reshape(embedding.shape[1], -1).astype(np.float64)
    return np.concatenate([cells.mean(axis=1), cells.std(axis=1)])


def disagreement(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Mean over prompts of 1 - IoU of two sets of masks, bool [N, H, W]; two empty masks agree."""
    both = (one & other).sum(axis=(1, 2))
    either = (one | other).sum(axis=(1, 2))
    return float(np.mean(1.0 - np.where(either == 0, 1.0, both / np.maximum(either, 1))))


def ranked(
    known: NDArray[np.float64],
    candidates: NDArray[np.float64],
    weights: NDArray[np.float64] | None,
    count: int,
    alike: Callable[[int, int], bool],
    *,
    coverage: bool = True,
) -> list[tuple[int, float]]:
    """Places of at most `count` candidates, the first to be labelled first, with the score that chose each.

    Coverage is k-centre greedy (Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set
    Approach", ICLR 2018): the candidate that is farthest from all that is labelled or chosen comes next. Features are
    scaled to unit deviation over all images. Of equal scores the farthest candidate wins where there is coverage, then
    the first, so nothing is drawn.

    Args:
        known: Features of what is labelled, [M, D]; M may be 0, then the most central candidate is first.
        candidates: Features of the others, [N, D].
        weights: Disagreement of each, [N]: multiplies the distance, or is the score where there is no coverage; None
            for coverage alone.
        count: How many.
        alike: Whether two candidates, by their places, are near duplicates: only one of them is chosen.
        coverage: Whether distance counts.
    """
    everything = np.concatenate([known, candidates])
    deviation = everything.std(axis=0)
    # a channel that is the same for all tells nothing, whatever rounding makes of it
    scale = np.where(deviation > 1e-9 * np.abs(everything).max(initial=1.0), deviation, np.inf)
    points = (candidates - everything.mean(axis=0)) / scale
    nearest = np.full(len(points), np.inf)
    for one in (known - everything.mean(axis=0)) / scale:
        nearest = np.minimum(nearest, np.linalg.norm(points - one, axis=1))
    if not len(known):
        # to begin somewhere: the one in the middle
        nearest = 1.0 / (1.0 + np.linalg.norm(points - points.mean(axis=0), axis=1))
    left = np.ones(len(points), bool)
    chosen: list[tuple[int, float]] = []
    while len(chosen) < count and left.any():
        scores = nearest if coverage else np.ones(len(points))
        scores = np.where(left, scores if weights is None else scores * weights, -np.inf)
        # where adapter and base agree the product is 0, however far the image is
        place = int(np.lexsort((-np.arange(len(points)), nearest if coverage else np.zeros(len(points)), scores))[-1])
        left[place] = False
        if any(alike(place, earlier) for earlier, _ in chosen):
            continue
        begins = not chosen and not len(known)
        chosen.append((place, float(scores[place])))
        distances = np.linalg.norm(points - points[place], axis=1)
        nearest = distances if begins else np.minimum(nearest, distances)
    return chosen
