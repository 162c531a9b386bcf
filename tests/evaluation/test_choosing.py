"""Which images come first: far ones, those that differ, none twice; what is described of an embedding."""

from __future__ import annotations

import numpy as np
import pytest

from lora_sam.evaluation.choosing import described, disagreement, ranked


def nothing_alike(one: int, two: int) -> bool:
    return False


def test_the_farthest_from_all_that_is_labelled_or_chosen_comes_next() -> None:
    known = np.array([[0.0, 0.0]])
    candidates = np.array([[0.1, 0.0], [5.0, 0.0], [5.1, 0.0], [0.0, 4.0], [2.0, 2.0]])
    chosen = ranked(known, candidates, None, 3, nothing_alike)
    assert [place for place, _ in chosen] == [3, 2, 4]  # not 1, which is beside 2
    scores = [score for _, score in chosen]
    assert scores == sorted(scores, reverse=True)


def test_of_near_duplicates_one_is_chosen() -> None:
    known, candidates = np.zeros((1, 1)), np.array([[3.0], [2.9], [1.0]])
    chosen = ranked(known, candidates, None, 3, lambda one, two: {one, two} == {0, 1})
    assert [place for place, _ in chosen] == [0, 2]


def test_disagreement_alone_and_with_coverage() -> None:
    known, candidates = np.zeros((1, 1)), np.array([[3.0], [2.0], [1.0]])
    weights = np.array([0.1, 0.5, 0.6])
    alone = ranked(known, candidates, weights, 3, nothing_alike, coverage=False)
    assert alone == [(2, 0.6), (1, 0.5), (0, 0.1)]
    assert ranked(known, candidates, weights, 1, nothing_alike)[0][0] == 1  # 2 x 0.5 is the largest product


def test_where_adapter_and_base_agree_the_farthest_is_first() -> None:
    candidates = np.array([[1.0], [5.0], [3.0], [2.0]])
    found = ranked(np.zeros((1, 1)), candidates, np.array([0.0, 0.0, 0.0, 0.5]), 4, nothing_alike)
    assert [place for place, _ in found] == [3, 1, 0, 2]  # then the two that are 1 from what is chosen, in their order


def test_without_labelled_images_the_middle_is_first() -> None:
    candidates = np.array([[0.0], [1.0], [2.2], [9.0]])
    assert [place for place, _ in ranked(np.zeros((0, 1)), candidates, None, 2, nothing_alike)] == [2, 3]


def test_a_channel_that_is_the_same_for_all_counts_nothing() -> None:
    known = np.array([[0.0, 7.0]])
    candidates = np.array([[1.0, 7.0 + 1e-12], [2.0, 7.0]])
    assert ranked(known, candidates, None, 1, nothing_alike)[0][0] == 1


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
