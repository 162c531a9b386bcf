"""A folder of images and a predictor that needs no model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lora_sam.core.frame import Frame
from lora_sam.core.predictor import AllMasks, Worth
from lora_sam.core.scores import META, Scores
from lora_sam.core.structures import Masks, Prompts
from lora_sam.deployment.predicting.found import FoundImage, objects_from


class Boxes:
    """Answers a box with the box as its mask, a point with a square around it; counts the images it was given."""

    image_size = 64
    frame = Frame(64, square=False)
    scores: Scores = META
    encoded = 0

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def predict(
        self, image: NDArray[np.uint8], prompts: Prompts, *, multimask: bool = False, threshold: float = 0.0
    ) -> Masks:
        self.seen.append(image.tobytes())
        masks = np.zeros((len(prompts), *image.shape[:2]), np.bool_)
        for row, mask in enumerate(masks):
            if prompts.boxes is not None:
                x1, y1, x2, y2 = prompts.boxes[row].astype(int)
                mask[max(0, y1) : y2, max(0, x1) : x2] = True
            elif prompts.points is not None and prompts.labels is not None:
                for (x, y), label in zip(prompts.points[row].astype(int), prompts.labels[row], strict=True):
                    mask[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = label == 1
        scores = np.linspace(0.9, 0.5, len(prompts)).astype(np.float32)
        return Masks(masks, scores, np.zeros((len(prompts), 16, 16), np.float32))

    def predict_all(self, image: NDArray[np.uint8], prompts: Prompts, *, worth: Worth | None = None) -> AllMasks:
        masks = self.predict(image, prompts)
        logits = np.where(masks.masks, 9.0, -9.0).astype(np.float32)[:, None]
        return AllMasks(
            logits, np.full((len(logits), 1), 0.95, np.float32), np.zeros((len(logits), 1, 16, 16), np.float32)
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`images/a.png`, `images/b.jpg` and `images/deep/c.tif`, 40 pixels wide and 30 high."""
    root = tmp_path / "images"
    (root / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.jpg", "deep/c.tif")):
        rng = np.random.default_rng(number)
        Image.fromarray(rng.integers(0, 255, (30, 40, 3)).astype(np.uint8)).save(root / name)
    return root


@pytest.fixture
def found() -> Callable[..., FoundImage]:
    """Makes the record of an image out of masks [N, H, W]."""

    def make(masks: np.ndarray, scores: list[float] | None = None, **changes: object) -> FoundImage:
        count = len(masks)
        categories = changes.pop("categories", ["object"] * count)
        made = objects_from(masks, scores or [0.5] * count, categories, [None] * count, [None] * count)  # type: ignore[arg-type]
        values = {"name": "deep/c.tif", "stem": "deep/c", "empty": 0, "settings": "s", "content": "c", "prompts": ""}
        return FoundImage(
            size=masks.shape[1:], objects=tuple(one for one in made if one is not None), **(values | changes)
        )

    return make
