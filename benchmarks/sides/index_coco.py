"""Write a generated COCO set, or open one and say how long that took and how much memory it held at most."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZES = ((480, 640), (640, 480), (427, 640), (375, 500))
"""(height, width) of the images, as most of COCO's have."""

_LINKS = 20_000  # names per file: a file system allows some ten thousand
_MEAN_VERTICES = 22
_CATEGORIES = 80


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Answer of one side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("write", "open", "pycocotools"))
    parser.add_argument("root", type=Path)
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--objects", type=int, default=0)
    given = parser.parse_args(arguments)
    if given.action == "write":
        return write(given.root, given.images, given.objects)
    return opened(given.root) if given.action == "open" else opened_by_pycocotools(given.root)


def write(root: Path, images: int, objects: int) -> dict[str, Any]:
    """A set whose polygons have the sizes and numbers of vertices of COCO's; one split, `train`.

    Every image is a name of its own for one of a few JPEG files.
    """
    folder = root / "images" / "train"
    folder.mkdir(parents=True)
    (root / "annotations").mkdir()
    file = root / "annotations" / "instances_train.json"
    draws = np.random.default_rng(0)
    owners = np.sort(draws.integers(0, images, objects))
    vertices = 0
    with file.open("w", encoding="utf-8") as out:
        categories = [{"id": number, "name": f"class {number}"} for number in range(1, _CATEGORIES + 1)]
        out.write(f'{{"info": {{}}, "categories": {json.dumps(categories)}, "images": [')
        for index in range(images):
            height, width = SIZES[index % len(SIZES)]
            _link(folder, index)
            comma = ", " if index else ""
            entry = {"id": index + 1, "file_name": f"{index + 1:012d}.jpg", "height": height, "width": width}
            out.write(comma + json.dumps(entry))
        out.write('], "annotations": [')
        for index, owner in enumerate(owners.tolist()):
            height, width = SIZES[owner % len(SIZES)]
            polygon = _polygon(draws, height, width)
            vertices += len(polygon)
            x, y = polygon.min(axis=0)
            w, h = polygon.max(axis=0) - (x, y)
            numbers = ", ".join(f"{value:.2f}" for value in polygon.ravel().tolist())
            out.write(
                f'{", " if index else ""}{{"segmentation": [[{numbers}]], "area": {w * h:.2f}, "iscrowd": 0, '
                f'"image_id": {owner + 1}, "bbox": [{x:.2f}, {y:.2f}, {w:.2f}, {h:.2f}], '
                f'"category_id": {index % _CATEGORIES + 1}, "id": {index + 1}}}'
            )
        out.write("]}")
    labelled = len(np.unique(owners))
    return {"bytes": file.stat().st_size, "vertices": vertices, "labelled_images": labelled}


def opened(root: Path) -> dict[str, Any]:
    """What `data=coco check=header` makes of the set; val and test are not there and carved out of train."""
    from benchmarks.settings import settings_for
    from lora_sam.data.splits import class_counts

    data = settings_for("data=coco", f"data.root={root}", "data.check=header").data
    start = time.perf_counter()
    splits = data.open(0)
    seconds = time.perf_counter() - start
    sources = (splits.train, splits.val, splits.test)
    sample = splits.train[0]
    assert sample.masks.any(axis=(1, 2)).all()
    return {
        "seconds": seconds,
        "peak_bytes": _peak(),
        "images": sum(len(source) for source in sources),
        "objects": sum(sum(source.object_counts or ()) for source in sources),
        "classes": len({name for source in sources for name in class_counts(source)}),
    }


def opened_by_pycocotools(root: Path) -> dict[str, Any]:
    """What `pycocotools.coco.COCO` makes of the same file: parsed and indexed, without a look at masks or images."""
    from pycocotools.coco import COCO

    start = time.perf_counter()
    found = COCO(str(root / "annotations" / "instances_train.json"))
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_bytes": _peak(), "images": len(found.imgs), "objects": len(found.anns)}


def _link(folder: Path, index: int) -> None:
    """Image number `index`, of the size at that place of `SIZES`."""
    kind = index % len(SIZES)
    first = folder / f"{index - (index // len(SIZES)) % _LINKS * len(SIZES) + 1:012d}.jpg"
    path = folder / f"{index + 1:012d}.jpg"
    if first == path:
        height, width = SIZES[kind]
        Image.new("RGB", (width, height), (90 + 10 * kind, 120, 60)).save(path)
    else:
        os.link(first, path)


def _polygon(draws: np.random.Generator, height: int, width: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """An outline [V, 2] in pixels, (x, y): an uneven ellipse inside the image; sizes are log-normal as in COCO."""
    count = 4 + int(draws.geometric(1 / (_MEAN_VERTICES - 4)))
    radius = min(float(draws.lognormal(3.3, 0.9)), 0.45 * min(height, width)) + 2
    centre = draws.uniform((radius, radius), (width - radius, height - radius))
    # in turn around the centre, so that no part cancels another
    angles = 2 * np.pi / count * (np.arange(count) + draws.uniform(-0.25, 0.25, count))
    lengths = radius * draws.uniform(0.6, 1, count)
    offsets = np.stack((np.cos(angles), np.sin(angles)), axis=1) * lengths[:, None]
    outline: np.ndarray[Any, np.dtype[np.float64]] = np.round(centre + offsets, 2)
    return outline


def _peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
