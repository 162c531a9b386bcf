"""Which images come first: far ones, those that differ, none twice; what is described of an embedding."""

from __future__ import annotations

import numpy as np
import pytest

from lora_sam.evaluation import choosing
from lora_sam.evaluation.choosing import described, disagreement, ranked


def nothing_alike(one: int, two: int) -> bool:
    return False


def test_the_farthest_from_all_that_is_labelled_or_chosen_comes_next() -> None:
    known = np.array([[0.0, 0.0]])
    candidates = np.array([[0.1, 0.0], [5.0, 0.0], [5.1, 0.0], [0.0, 4.0], [2.0, 2.0]])
    chosen = ranked(known, candidates, None, 3, nothing_alike, rule="farthest")
    assert [place for place, _ in chosen] == [3, 2, 4]  # not 1, which is beside 2
    scores = [score for _, score in chosen]
    assert scores == sorted(scores, reverse=True)


def test_what_stands_for_many_comes_before_what_is_odd() -> None:
    rng = np.random.default_rng(0)
    crowds = [rng.normal(middle, 0.3, (count, 2)) for middle, count in (((0, 0), 12), ((6, 0), 8), ((0, 6), 5))]
    candidates = np.concatenate([*crowds, [[12.0, 12.0]]])
    found = [place for place, _ in ranked(np.array([[0.0, 0.0]]), candidates, None, 2, nothing_alike)]
    assert 12 <= found[0] < 20  # the first crowd is covered, the odd one stands for itself alone
    assert found[1] >= 20
    assert ranked(np.array([[0.0, 0.0]]), candidates, None, 1, nothing_alike, rule="farthest")[0][0] == 25


def test_coverage_saves_the_mean_distance_that_it_says() -> None:
    known, candidates = np.zeros((1, 1)), np.array([[-2.0], [1.0], [4.0], [5.0]])
    deviation = np.concatenate([known, candidates]).std()
    (first, saved), (second, more) = ranked(known, candidates, None, 2, nothing_alike)
    assert (first, second) == (2, 0)
    assert (saved * deviation, more * deviation) == pytest.approx(((4 + 4) / 4, 2 / 4))


def test_of_very_many_candidates_some_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = np.random.default_rng(0).normal(0, 1, (300, 3))
    whole = ranked(np.zeros((1, 3)), candidates, None, 3, nothing_alike)
    monkeypatch.setattr(choosing, "_MOST_DISTANCES", 1)
    assert ranked(np.zeros((1, 3)), candidates, None, 3, nothing_alike) != whole
    monkeypatch.setattr(choosing, "_FEWEST", 300)
    assert ranked(np.zeros((1, 3)), candidates, None, 3, nothing_alike) == whole


def test_of_near_duplicates_one_is_chosen() -> None:
    known, candidates = np.zeros((1, 1)), np.array([[3.0], [2.9], [1.0]])
    chosen = ranked(known, candidates, None, 3, lambda one, two: {one, two} == {0, 1})
    assert [place for place, _ in chosen] == [0, 2]


def test_disagreement_alone_and_with_coverage() -> None:
    known, candidates = np.zeros((1, 1)), np.array([[3.0], [2.0], [1.0]])
    weights = np.array([0.1, 0.5, 0.6])
    alone = ranked(known, candidates, weights, 3, nothing_alike, rule="none")
    assert alone == [(2, 0.6), (1, 0.5), (0, 0.1)]
    # 2 x 0.5 is the largest product
    assert ranked(known, candidates, weights, 1, nothing_alike, rule="farthest")[0][0] == 1


def test_where_adapter_and_base_agree_the_farthest_is_first() -> None:
    candidates = np.array([[1.0], [5.0], [3.0], [2.0]])
    found = ranked(np.zeros((1, 1)), candidates, np.array([0.0, 0.0, 0.0, 0.5]), 4, nothing_alike, rule="farthest")
    assert [place for place, _ in found] == [3, 1, 0, 2]  # then the two that are 1 from what is chosen, in their order


def test_without_labelled_images_the_middle_is_first() -> None:
    candidates = np.array([[0.0], [1.0], [2.2], [9.0]])
    for rule, expected in (("farthest", [2, 3]), ("coverage", [1, 3])):
        found = ranked(np.zeros((0, 1)), candidates, None, 2, nothing_alike, rule=rule)
        assert [place for place, _ in found] == expected


def test_a_channel_that_is_the_same_for_all_counts_nothing() -> None:
    known = np.array([[0.0, 7.0]])
    candidates = np.array([[1.0, 7.0 + 1e-12], [2.0, 7.0]])
    assert ranked(known, candidates, None, 1, nothing_alike, rule="farthest")[0][0] == 1
    apart = np.array([[1.0, 7.0 + 1e-12], [2.0, 7.0], [2.1, 7.0]])
    assert ranked(known, apart, None, 1, nothing_alike)[0][0] == 1


def test_padding_is_left_out_of_what_is_described() -> None:
    embedding = np.full((1, 2, 4, 4), 100.0, np.float32)
    embedding[0, :, :2] = np.array([1.0, 3.0])[:, None, None]
    np.testing.assert_allclose(described(embedding, (32, 64), 64), [1, 3, 0, 0])


def test_disagreement_is_one_minus_iou() -> None:
    one, other = np.zeros((2, 3, 2, 2), bool)
    one[0], other[0, 0] = True, True
    one[1, 0] = True
    # half, nothing in common, both empty
    assert disagreement(one, other) == pytest.approx((0.5 + 1 + 0) / 3)
