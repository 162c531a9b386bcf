"""Draw a folder of JPEG images with label images: smooth colours, and eight discs each."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

OBJECTS = 8


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Answer: how many objects are visible, and the bytes of all images."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--side", type=int, required=True)
    given = parser.parse_args(arguments)
    folders = {name: given.root / "train" / name for name in ("images", "labels")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    draws, size = np.random.default_rng(0), (given.side, given.side)
    rows, columns = np.mgrid[: given.side, : given.side]
    objects = stored = 0
    for index in range(given.images):
        colours = draws.integers(0, 255, (12, 12, 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)).copy()
        labels = np.zeros(size, np.uint8)
        for number in range(1, OBJECTS + 1):
            row, column = draws.integers(0, given.side, 2)
            inside = (rows - row) ** 2 + (columns - column) ** 2 <= (draws.uniform(0.02, 0.08) * given.side) ** 2
            labels[inside], image[inside] = number, draws.integers(0, 255, 3)
        objects += len(np.unique(labels)) - 1
        Image.fromarray(image).save(folders["images"] / f"{index:05d}.jpg", quality=85)
        Image.fromarray(labels).save(folders["labels"] / f"{index:05d}.png")
        stored += (folders["images"] / f"{index:05d}.jpg").stat().st_size
    return {"objects": objects, "bytes": stored}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
