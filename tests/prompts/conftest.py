"""Samples whose prompts can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lora_sam.core.structures import Sample


@pytest.fixture(scope="session")
def squares() -> Callable[..., Sample]:
    """Makes an image of (height, width) with one rectangle per object, each given as (x0, y0, x1, y1)."""

    def make(size: tuple[int, int], *windows: tuple[int, int, int, int]) -> Sample:
        masks = np.zeros((len(windows), *size), np.bool_)
        for mask, (x0, y0, x1, y1) in zip(masks, windows, strict=True):
            mask[y0:y1, x0:x1] = True
        image = np.full((*size, 3), 90, np.uint8)
        return Sample("a.png", image, masks, tuple(str(index) for index in range(len(windows))))

    return make
