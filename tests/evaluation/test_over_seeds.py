"""Intervals over seeds and images cover a known truth as often as they say."""

from __future__ import annotations

from collections.abc import Hashable
from operator import itemgetter

import numpy as np
import pytest

from lora_sam.evaluation import comparison
from lora_sam.evaluation.over_seeds import clusters_in, mean_over_seeds

TRUTH, IMAGES, SETS = 0.1, 40, 120


def runs(
    generator: np.random.Generator, seeds: int, spread: tuple[float, float, float], shared: bool
) -> list[dict[Hashable, tuple[int, float]]]:
    """Gains of images: of the image, of the seed, and of both together."""
    of_image, of_seed, of_both = spread
    images = generator.normal(0, of_image, (1 if shared else seeds, IMAGES)).repeat(seeds if shared else 1, axis=0)
    gains = TRUTH + images + generator.normal(0, of_seed, (seeds, 1)) + generator.normal(0, of_both, (seeds, IMAGES))
    return [
        {(0 if shared else seed, place): (5, float(gain)) for place, gain in enumerate(row)}
        for seed, row in enumerate(gains)
    ]


@pytest.mark.parametrize("shared", [True, False], ids=["same images", "own images"])
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", [(0.1, 0.002, 0.03), (0.02, 0.05, 0.02)], ids=str)
def test_intervals_cover_the_truth(
    seeds: int, spread: tuple[float, float, float], shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing runs, and images anew within each, covered it in 54 to 84 % of the sets where images are the same."""
    monkeypatch.setattr(comparison, "RESAMPLES", 200)
    generator = np.random.default_rng(0)
    covered = 0
    for number in range(SETS):
        low, high = mean_over_seeds(runs(generator, seeds, spread, shared), number)[1]
        covered += low <= TRUTH <= high
    assert covered / SETS >= 0.9


def test_more_seeds_on_the_same_images_tell_nothing_of_other_images() -> None:
    """The interval of equal runs is that of one of them, however many they are."""
    (one,) = runs(np.random.default_rng(1), 1, (0.1, 0.0, 0.0), True)
    (several, ends), (alone, of_one) = mean_over_seeds([one] * 5, 3), mean_over_seeds([one], 3)
    assert several == pytest.approx(alone)
    assert ends == pytest.approx(of_one)


def test_two_seeds_that_differ_are_hardly_an_interval() -> None:
    """Student's t with one degree of freedom: 12.7 standard errors of the mean of two; never beyond the figure."""
    two = [{0: (1, 0.6), 1: (1, 0.6)}, {0: (1, 0.602), 1: (1, 0.602)}]
    mean, (low, high) = mean_over_seeds(two, 0, least=0.0)
    assert mean == pytest.approx(0.601)
    assert (high - low) / 2 == pytest.approx(12.7 * 0.001, rel=0.05)
    assert mean_over_seeds([{0: (1, 0.2)}, {0: (1, 0.9)}], 0, least=0.0)[1] == (0.0, 1.0)


def test_what_is_the_same_image_is_told_by_its_name() -> None:
    entries = [{"id": f"{place}.png", "objects": 1 + place, "iou": 0.1 * place, "group": None} for place in range(4)]
    found = clusters_in(entries, itemgetter("iou"))
    assert found == {("image", f"{place}.png"): (1 + place, pytest.approx(0.1 * place)) for place in range(4)}
    volumes = [entry | {"group": "ab"[place // 2]} for place, entry in enumerate(entries)]
    of_a = (2 * 0.1) / 3
    assert clusters_in(volumes, itemgetter("iou"))["group", "a"] == (3, pytest.approx(of_a))
