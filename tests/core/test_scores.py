"""Scores at which masks are good: kept with the weights, read back, refused where they cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lora_sam.core.scores import META, Scores, from_metadata, scores_of

OWN = Scores(predicted_iou=0.55, stability=0.7, stability_offset=0.25)


def test_what_is_written_is_read() -> None:
    assert from_metadata(OWN.to_metadata()) == OWN
    assert scores_of(vars(OWN)) == OWN


def test_weights_that_say_nothing_have_those_of_meta() -> None:
    assert from_metadata(None) is from_metadata({}) is from_metadata({"format": "pt"}) is META
    assert from_metadata({"lora_sam": '{"step": "merge"}'}) is META
    assert (META.predicted_iou, META.stability, META.stability_offset) == (0.88, 0.95, 1.0)


def test_what_is_as_it_always_was_is_not_written() -> None:
    """So that earlier versions read it."""
    assert OWN.to_json() == {"predicted_iou": 0.55, "stability": 0.7, "stability_offset": 0.25}
    further = replace(OWN, box_overlap=0.5, mask_overlap=0.3, masks="single", ranking="iou_stability")
    assert from_metadata(further.to_metadata()) == scores_of(further.to_json()) == further
    assert set(further.to_json()) - set(OWN.to_json()) == {"box_overlap", "mask_overlap", "masks", "ranking"}
    denser = scores_of(replace(OWN, points_per_side=32).to_json())
    assert (denser.points_per_side, type(denser.points_per_side)) == (32, int)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "scores need exactly predicted_iou, stability, stability_offset"),
        ([0.5, 0.7, 0.25], "scores need exactly"),
        (
            {**vars(OWN), "crops": 1},
            "scores need exactly .*, and may have box_overlap, mask_overlap, masks, ranking, points_per_side: crops?",
        ),
        ({**vars(OWN), "masks": "four"}, "scores.masks = 'four': must be three or single"),
        ({**vars(OWN), "ranking": ["iou"]}, "scores.ranking = .*: must be iou or iou_stability"),
        ({**vars(OWN), "points_per_side": 65}, "scores.points_per_side = 65: must be a whole number from 1 to 64"),
        ({**vars(OWN), "points_per_side": 16.0}, "scores.points_per_side = 16.0: must be a whole number from 1 to 64"),
        ({**vars(OWN), "stability": "0.5"}, r"scores.stability = '0.5': must be a number from 0 on"),
        ({**vars(OWN), "stability": True}, "scores.stability = True: must be a number"),
        ({**vars(OWN), "predicted_iou": 1.5}, "scores.predicted_iou = 1.5: must be at most 1"),
        ({**vars(OWN), "stability_offset": float("nan")}, "scores.stability_offset = nan: must be a number"),
        ({**vars(OWN), "stability_offset": -1}, "scores.stability_offset = -1: must be a number"),
    ],
)
def test_scores_that_cannot_be(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scores_of(values)


def test_metadata_that_are_no_json() -> None:
    with pytest.raises(ValueError, match="no JSON"):
        from_metadata({"lora_sam": "{"})
