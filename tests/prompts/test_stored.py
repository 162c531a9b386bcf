"""Stored prompts: every bit, and nothing that is not there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lora_sam.core.structures import Prompts, Sample
from lora_sam.prompts.stored import entry, stored_prompts, write_prompts

Squares = Callable[..., Sample]


def test_numbers_are_kept_to_the_bit() -> None:
    boxes = np.random.default_rng(0).uniform(0, 1000, (50, 4)).astype(np.float32)
    text = json.dumps(stored_prompts(Prompts(boxes=boxes)))
    np.testing.assert_array_equal(np.array(json.loads(text)["boxes"], np.float32), boxes)
    assert len(text) < 50 * 4 * 12
    assert stored_prompts(Prompts(boxes=np.array([[0.1, 2, 3.5, 4]], np.float32))) == {"boxes": [[0.1, 2.0, 3.5, 4.0]]}


def test_objects_without_a_part_have_null() -> None:
    nan = np.nan
    mask = np.arange(16, dtype=np.float32).reshape(4, 4)
    prompts = Prompts(
        boxes=np.array([[1, 2, 3, 4], [nan] * 4], np.float32),
        points=np.array([[[0, 0], [0, 0]], [[5.5, 6.5], [0, 0]]], np.float32),
        labels=np.array([[-1, -1], [1, -1]]),
        mask_inputs=np.stack([mask, np.full((4, 4), nan, np.float32)]),
    )
    assert stored_prompts(prompts) == {
        "boxes": [[1.0, 2.0, 3.0, 4.0], None],
        "points": [None, [[5.5, 6.5, 1], [0.0, 0.0, -1]]],
        "masks": [hashlib.sha256(mask.tobytes()).hexdigest(), None],
    }


def test_a_file_has_a_line_for_every_image(tmp_path: Path, squares: Squares, option: Callable[..., Any]) -> None:
    sample = squares((60, 80), (5, 5, 30, 30), (40, 20, 70, 50))
    samples = [replace(sample, id=name) for name in ("a.png", 'b"ä.png')]
    source = option("prompt/points")
    path = tmp_path / "prompts.json"
    write_prompts(
        path,
        (entry(one, source.evaluation_prompts(one, 3)) for one in samples),
        split="test",
        seed=3,
        settings={"positive": 3},
    )
    text = path.read_text(encoding="utf-8")
    stored = json.loads(text)
    assert {key: stored[key] for key in ("schema_version", "split", "seed", "prompt")} == {
        "schema_version": 1,
        "split": "test",
        "seed": 3,
        "prompt": {"positive": 3},
    }
    assert len(text.splitlines()) == 4
    for one, image in zip(samples, stored["images"], strict=True):
        assert (image["id"], image["objects"]) == (one.id, ["0", "1"])
        points = np.array(image["points"], np.float32)
        expected = source.evaluation_prompts(one, 3)
        np.testing.assert_array_equal(points[..., :2], expected.points)
        np.testing.assert_array_equal(points[..., 2], expected.labels)
    write_prompts(path, [], split="val", seed=3, settings={})
    assert json.loads(path.read_text(encoding="utf-8"))["images"] == []
