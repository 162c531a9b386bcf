"""Which images to label next: what stands for many, or is far, or where adapter and base differ; no two alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.spaced import evenly_spaced

PER_SIDE = 8
"""Points of the grid that disagreement is measured at, per side."""

Rule: TypeAlias = Literal["coverage", "farthest", "none"]

_FEWEST, _MOST_DISTANCES = 200, 50_000_000


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
    rule: Rule = "coverage",
) -> list[tuple[int, float]]:
    """Places of at most `count` candidates, the first to be labelled first, with the score that chose each.

    Features are scaled to unit deviation over all images. `coverage` takes the candidate that brings all candidates
    nearer to what is labelled or chosen, in the mean: greedy k-medians, which is facility location (Wei, Iyer and
    Bilmes, "Submodularity in Data Subset Selection and Active Learning", ICML 2015). With few labels, images that stand
    for many teach more than odd ones (Hacohen, Dekel and Weinshall, "Active Learning on a Budget", ICML 2022).
    `farthest` takes the candidate that is farthest from all of these: k-centre greedy (Sener and Savarese, "Active
    Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018). Of equal scores the one that the rule
    prefers wins, then the first, so nothing is drawn.

    Args:
        known: Features of what is labelled, [M, D]; M may be 0, then a central candidate is first.
        candidates: Features of the others, [N, D].
        weights: Disagreement of each, [N]: multiplies what the rule says, or is the score where there is none; None
            for the rule alone.
        count: How many.
        alike: Whether two candidates, by their places, are near duplicates: only one of them is chosen.
        rule: How distances count; `none` for weights alone.
    """
    everything = np.concatenate([known, candidates])
    deviation = everything.std(axis=0)
    # a channel that is the same for all tells nothing, whatever rounding makes of it
    scale = np.where(deviation > 1e-9 * np.abs(everything).max(initial=1.0), deviation, np.inf)
    points, labelled = ((part - everything.mean(axis=0)) / scale for part in (candidates, known))
    kinds: dict[Rule, type[_Worth]] = {"coverage": _Coverage, "farthest": _Farthest, "none": _Nothing}
    worth = kinds[rule](points, labelled)
    left = np.ones(len(points), bool)
    chosen: list[tuple[int, float]] = []
    while len(chosen) < count and left.any():
        alone = worth.of_each()
        scores = np.where(left, alone if weights is None else alone * weights, -np.inf)
        # where adapter and base agree the product is 0, however far the image is
        place = int(np.lexsort((-np.arange(len(points)), alone if rule != "none" else scores, scores))[-1])
        left[place] = False
        if any(alike(place, earlier) for earlier, _ in chosen):
            continue
        chosen.append((place, float(scores[place])))
        worth.take(place)
    return chosen


class _Worth(Protocol):
    """What candidates are worth, given what is labelled and chosen."""

    def __init__(self, points: NDArray[np.float64], labelled: NDArray[np.float64]) -> None:
        """Of candidates [N, D], where images [M, D] are labelled."""

    def of_each(self) -> NDArray[np.float64]:
        """Of each candidate, [N]."""
        ...

    def take(self, place: int) -> None:
        """Count one of them among the chosen."""


class _Coverage(_Worth):
    """Distance that a candidate saves: the mean over some of all candidates, evenly chosen where they are very many."""

    def __init__(self, points: NDArray[np.float64], labelled: NDArray[np.float64]) -> None:
        most = max(_FEWEST, _MOST_DISTANCES // max(1, len(points)))
        some = np.array(evenly_spaced(len(points), most), np.intp)
        self._distances = np.stack([np.linalg.norm(points - points[place], axis=1) for place in some], axis=1)
        self._nearest = np.full(len(some), self._distances.max(initial=0.0))
        for one in labelled:
            self._nearest = np.minimum(self._nearest, np.linalg.norm(points[some] - one, axis=1))

    def of_each(self) -> NDArray[np.float64]:
        saved: NDArray[np.float64] = np.maximum(self._nearest - self._distances, 0.0).mean(axis=1)
        return saved

    def take(self, place: int) -> None:
        self._nearest = np.minimum(self._nearest, self._distances[place])


class _Farthest(_Worth):
    """Distance of a candidate from the nearest image that is labelled or chosen."""

    def __init__(self, points: NDArray[np.float64], labelled: NDArray[np.float64]) -> None:
        self._points = points
        self._nearest: NDArray[np.float64] | None = None
        for one in labelled:
            self._come_near(one)

    def of_each(self) -> NDArray[np.float64]:
        if self._nearest is not None:
            return self._nearest
        # to begin somewhere: the one in the middle
        central: NDArray[np.float64] = 1 / (1 + np.linalg.norm(self._points - self._points.mean(axis=0), axis=1))
        return central

    def take(self, place: int) -> None:
        self._come_near(self._points[place])

    def _come_near(self, one: NDArray[np.float64]) -> None:
        distances: NDArray[np.float64] = np.linalg.norm(self._points - one, axis=1)
        self._nearest = distances if self._nearest is None else np.minimum(self._nearest, distances)


class _Nothing(_Worth):
    """All candidates are worth the same."""

    def __init__(self, points: NDArray[np.float64], labelled: NDArray[np.float64]) -> None:
        self._same = np.ones(len(points))

    def of_each(self) -> NDArray[np.float64]:
        return self._same

    def take(self, place: int) -> None:
        """Changes nothing."""
