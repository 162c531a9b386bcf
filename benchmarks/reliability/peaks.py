"""Peak memory of what is large: thousands of boxes, an image full of objects, an image of 64 megapixels."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.forked import forked
from benchmarks.reliability.jobs import TINY, Clock, Tally, trainer

BOXES = 2000
GRID, SIDE = 31, 1536  # 961 objects
LARGE = 8000


def measure(root: Path, tries: int, seconds: float, seed: int) -> Tally:
    """Each once, in a process of its own; `tries` and `seed` are of no use."""
    del tries, seed
    tally, clock = Tally(), Clock(seconds)
    finished = root / "finished"
    ended = forked(trainer([*TINY, "trainer.max_steps=2"], finished))
    if ended.code:
        tally.wrong("broken", ended.said[-300:])
        return tally
    _crowded(root / "crowded")
    jobs: dict[str, Callable[[], int]] = {
        f"{BOXES} boxes in one image": lambda: _boxes(finished),
        f"{GRID * GRID} objects of {SIDE} x {SIDE} in one training image": lambda: _objects(root),
        f"an image of {LARGE} x {LARGE}": lambda: _large(finished),
    }
    for name, job in jobs.items():
        if clock.left <= 0:
            break
        one = forked(job)
        if one.code or one.answer is None:
            tally.wrong("crashed", f"{name}: {one.answer or one.said[-300:]} (signal {one.signal})")
            continue
        tally.add(f"MiB above the model: {name}", one.answer >> 20)
    return tally


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _boxes(run: Path) -> int:
    import lora_sam

    predictor = lora_sam.load(run)
    image = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    predictor.segment(image, boxes=[[3, 4, 40, 30]])
    before = _peak()
    corners = np.random.default_rng(1).uniform(0, 400, (BOXES, 2))
    found = predictor.segment(image, boxes=np.concatenate([corners, corners + 80], axis=1).tolist())
    assert len(found.masks) == BOXES
    return _peak() - before


def _objects(root: Path) -> int:
    overrides = [one for one in TINY if not one.startswith("data")]
    small = [*overrides, "data=coco", f"data.root={root / 'crowded'}", "trainer.max_steps=1", "data.check=header"]
    trainer([*TINY, "trainer.max_steps=1"], root / "small")()
    before = _peak()
    trainer([*small, "data.max_objects_per_image=null"], root / "large")()
    return _peak() - before


def _large(run: Path) -> int:
    import lora_sam

    predictor = lora_sam.load(run)
    predictor.segment(np.zeros((64, 64, 3), np.uint8), boxes=[[3, 4, 40, 30]])
    before = _peak()
    image = np.zeros((LARGE, LARGE, 3), np.uint8)
    found: Any = predictor.segment(image, boxes=[[10, 10, LARGE - 10, LARGE - 10]])
    assert found.masks.shape == (1, LARGE, LARGE)
    return _peak() - before


def _crowded(root: Path) -> None:
    """A COCO data set: one training image with a grid of discs, small ones to validate and test."""
    from PIL import Image

    for split, side, grid in (("train", SIDE, GRID), ("val", 64, 2), ("test", 64, 2)):
        folder = root / "images" / split
        folder.mkdir(parents=True)
        pixels = np.full((side, side, 3), 40, np.uint8)
        step, annotations = side // grid, []
        for place in range(grid * grid):
            top, left = place // grid * step + 2, place % grid * step + 2
            right, bottom = left + step - 4, top + step - 4
            pixels[top:bottom, left:right] = 200
            annotations.append(
                {
                    "id": place + 1, "image_id": 1, "category_id": 1, "iscrowd": 0,
                    "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
                    "bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top),
                }
            )  # fmt: skip
        Image.fromarray(pixels).save(folder / "1.png")
        (root / "annotations").mkdir(exist_ok=True)
        content = {
            "images": [{"id": 1, "file_name": "1.png", "height": side, "width": side}],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "square"}],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
