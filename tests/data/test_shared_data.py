"""The two development sets, where they are present."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

DATA = Path(os.environ.get("LORA_SAM_DATA", Path(__file__).parents[2] / "../shared/data"))
Make = Callable[..., Any]


@pytest.mark.skipif(not (DATA / "nuclei").is_dir(), reason="the nuclei set is not at $LORA_SAM_DATA/nuclei")
def test_nuclei(coco: Make) -> None:
    splits = coco(DATA / "nuclei").open(0)
    sources = (splits.train, splits.val, splits.test)
    assert [len(source) for source in sources] == [104, 28, 42]
    assert [sum(source.object_counts) for source in sources] == [4776, 977, 1860]
    assert splits.skipped == splits.notes == ()
    sample = splits.test[4]
    assert sample.masks.shape == (136, *sample.size)
    assert sample.masks.any(axis=(1, 2)).all()
    assert not (sample.masks.sum(axis=0) > 1).any()  # nuclei do not overlap


@pytest.mark.skipif(not (DATA / "rings").is_dir(), reason="the rings set is not at $LORA_SAM_DATA/rings")
def test_rings(folder: Make) -> None:
    splits = folder(DATA / "rings", few_images=0).open(0)
    assert [len(splits.train), len(splits.val), len(splits.test)] == [7, 1, 2]
    assert splits.notes == ("no val split: 1 of 8 training images were set aside for it",)
    assert all(count == 1 for source in (splits.train, splits.val, splits.test) for count in source.object_counts)
    sample = splits.test[1]
    assert sample.image.shape == (740, 740, 3)
    assert 0.01 < np.mean(sample.masks) < 0.5
