"""Is an image of 12,000 x 12,000 pixels segmented in little memory, and each object found once?"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.processes import run, run_side
from benchmarks.record import Figure, Outcome, figure
from benchmarks.settings import one_step

QUESTION = "an image of 12,000 x 12,000 pixels with predict, nano, tile=auto: memory, and recall against tiles alone"
QUICK = False

MEMORY_GIB, RECALL = 4.0, 0.95
FOUND = 0.5
"""IoU from which on a mask is an object."""


@dataclass(frozen=True)
class Scale:
    """How large all of it is.

    Attributes:
        side: Of the image.
        tile: Side of the training images, which is that of the tiles.
        cell: Each cell of a grid of this side has one object, somewhere in it.
        window: Side of the drawing of an object, which is smaller or as large.
        points: Points along each side of a tile.
        alone: Tiles that are also segmented alone.
        model: Which one.
    """

    side: int
    tile: int
    cell: int
    window: int
    points: int
    alone: int
    model: str


FULL = Scale(side=12_000, tile=1024, cell=400, window=400, points=6, alone=30, model="nano")
SMALL = Scale(side=320, tile=96, cell=80, window=64, points=4, alone=4, model="tiny_random")


@dataclass(frozen=True)
class Drawn:
    """An object: its mask [h, w], whose first pixel is (x, y)."""

    x: int
    y: int
    mask: NDArray[np.bool_]


def measure(*, rehearse: bool) -> Outcome:
    """Draw, train one step so that there is a run, predict in a process that is watched, and compare with tiles."""
    from PIL import Image

    scale = SMALL if rehearse else FULL
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        image, objects = drawn(scale)
        Image.fromarray(image).save(place / "large.png", compress_level=1)
        run(one_step(scale.model, scale.tile, place / "run"), directory=place)
        seen = run_side("watched", ["--directory", str(place), *_prediction(scale, place)], threads=2)
        found = _predicted(place / "out" / "coco.json")
        settings = json.loads((place / "out" / "predictions.json").read_text())
        alone = _alone(scale, place / "run", image, objects, int(settings["settings"]["tiles"]["halo"]))
    matched = {number: _matches(one, found) for number, one in enumerate(objects)}
    kept = [number for number in alone if matched[number]]
    return Outcome(
        settings={
            "image": f"{scale.side:,} x {scale.side:,}", "objects drawn": len(objects), "model": scale.model,
            "tiles": settings["settings"]["tiles"], "points_per_side": scale.points,
            "tiles that were segmented alone as well": scale.alone,
        },
        checks={"failures": str(len(settings["failures"])), "found in predict": f"{len(found):,} masks"},
        figures=_figures(seen["peak_bytes"] / 2**30, seen["seconds"], alone, kept, matched),
        details={"seconds of this machine, which others used as well": round(seen["seconds"], 1)},
    )  # fmt: skip


def _figures(gib: float, seconds: float, alone: list[int], kept: list[int], matched: dict[int, int]) -> list[Figure]:
    recall = len(kept) / len(alone) if alone else 0.0
    twice = sum(count > 1 for count in matched.values())
    share = float(np.mean([count > 0 for count in matched.values()]))
    return [
        figure("memory", "most memory that predict held", gib, unit="GiB", limit=MEMORY_GIB),
        figure(
            "recall", "objects found in tiles alone that predict finds in the whole image", recall, limit=RECALL,
            relation=">=",
        ),
        figure("compared", "objects that were found in tiles alone", len(alone)),
        figure("twice", "objects found more than once", twice, limit=0),
        figure("found", "share of all drawn objects that were found", share),
        figure("time", "time of the command", seconds, unit="s"),
    ]  # fmt: skip


def drawn(scale: Scale, seed: int = 0) -> tuple[NDArray[np.uint8], list[Drawn]]:
    """The image and its objects: ellipses of the package's own set, one anywhere in each cell of a grid."""
    from lora_sam.data.drawn.synthetic import draw_ellipse

    rng = np.random.default_rng(seed)
    image = np.empty((scale.side, scale.side, 3), np.uint8)
    for y in range(0, scale.side, 1000):  # noise in floats would take gigabytes
        rows = image[y : y + 1000]
        rows[:] = rng.normal(70, 20, rows.shape).clip(0, 255)
    objects = []
    for top in range(0, scale.side - scale.cell + 1, scale.cell):
        for left in range(0, scale.side - scale.cell + 1, scale.cell):
            x, y = (int(start + rng.integers(0, scale.cell - scale.window + 1)) for start in (left, top))
            part = image[y : y + scale.window, x : x + scale.window]
            pixels = part.astype(np.float64)
            objects.append(Drawn(x, y, draw_ellipse(rng, pixels)))
            part[:] = pixels.clip(0, 255)
    return image, objects


def _prediction(scale: Scale, place: Path) -> list[str]:
    options = [
        f"run={place / 'run'}", f"source={place / 'large.png'}", f"output={place / 'out'}", "formats=[coco]",
        "tile=auto", f"points_per_side={scale.points}",
    ]  # fmt: skip
    return [sys.executable, "-m", "lora_sam.predict", *options]


def _predicted(path: Path) -> list[tuple[tuple[int, int, int, int], dict[str, Any]]]:
    """(XYWH, RLE) of each mask."""
    content = json.loads(path.read_text())
    return [(tuple(int(v) for v in one["bbox"]), one["segmentation"]) for one in content["annotations"]]  # type: ignore[misc]


def _matches(one: Drawn, found: list[tuple[tuple[int, int, int, int], dict[str, Any]]]) -> int:
    """How many predicted masks are this object."""
    from lora_sam.data.reading.rle import decompressed, window_of

    height, width = one.mask.shape
    count = 0
    for box, rle in found:
        if box[0] >= one.x + width or box[1] >= one.y + height or box[0] + box[2] <= one.x or box[1] + box[3] <= one.y:
            continue
        mask = window_of(decompressed(str(rle["counts"]).encode("ascii")), int(rle["size"][0]), box)
        count += _iou(one, mask, box[0], box[1]) >= FOUND
    return count


def _iou(one: Drawn, mask: NDArray[np.bool_], x: int, y: int) -> float:
    from lora_sam.core.crops import Crop

    first, second = Crop(one.x, one.y, one.mask), Crop(x, y, mask)
    common = int(np.count_nonzero(first.within(second.box) & second.mask))
    return common / (first.area + second.area - common)


def _alone(scale: Scale, place: Path, image: NDArray[np.uint8], objects: list[Drawn], halo: int) -> list[int]:
    """Numbers of the objects that lie wholly in one of some tiles, and are found in it alone."""
    from lora_sam import AutomaticMasks
    from lora_sam.core.crops import Crop
    from lora_sam.core.tile_grid import tiles_of
    from lora_sam.runs.loading import load

    predictor, automatic = load(place), AutomaticMasks(points_per_side=scale.points)
    tiles = tiles_of((scale.side, scale.side), scale.tile, halo)
    chosen = np.random.default_rng(1).permutation(len(tiles))[: scale.alone]
    found: set[int] = set()
    for x1, y1, x2, y2 in (tiles[number] for number in chosen):
        crops = [Crop.of(mask, x1, y1) for mask in
                 automatic.generate(predictor, np.ascontiguousarray(image[y1:y2, x1:x2])).masks]  # fmt: skip
        for number, one in enumerate(objects):
            tight = Crop.of(one.mask, one.x, one.y)
            assert tight is not None
            left, top, right, bottom = tight.box
            # what touches the edge of the tile is not wholly seen
            if left <= x1 or top <= y1 or right >= x2 or bottom >= y2:
                continue
            if any(crop is not None and _iou(one, crop.mask, crop.x, crop.y) >= FOUND for crop in crops):
                found.add(number)
    return sorted(found)
