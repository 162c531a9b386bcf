"""The prompts of an evaluation as JSON, so that its figures can be made again whatever draws them later."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.files import atomic_path
from lora_sam.core.structures import Prompts, Sample

SCHEMA_VERSION = 1


def stored_prompts(prompts: Prompts) -> dict[str, Any]:
    """`prompts` ready for JSON: numbers as short as float32 allows, read back as the same bits.

    Returns:
        `boxes`: for each object [x1, y1, x2, y2], or null; `points`: for each object a list of [x, y, label], or null;
        `masks`: for each object the SHA-256 of its logits (float32, little-endian), or null. What no object has is
        absent.
    """
    stored: dict[str, list[Any]] = {}
    count = len(prompts)
    for rows, part in prompts.kinds():
        columns: dict[str, list[Any]] = {}
        if part.boxes is not None:
            columns["boxes"] = [_numbers(box) for box in part.boxes]
        if part.points is not None:
            assert part.labels is not None
            columns["points"] = [
                [[*_numbers(point), int(label)] for point, label in zip(points, labels, strict=True)]
                for points, labels in zip(part.points, part.labels, strict=True)
            ]
        if part.mask_inputs is not None:
            columns["masks"] = [hashlib.sha256(mask.astype("<f4").tobytes()).hexdigest() for mask in part.mask_inputs]
        for name, values in columns.items():
            column = stored.setdefault(name, [None] * count)
            for row, value in zip(rows.tolist(), values, strict=True):
                column[row] = value
    return stored


def entry(sample: Sample, prompts: Prompts) -> dict[str, Any]:
    """What is stored of an image: its `id` and size, the names of its `objects`, and their `stored_prompts`."""
    height, width = sample.image.shape[:2]
    about = {"id": sample.id, "height": height, "width": width, "objects": list(sample.object_ids)}
    return {**about, **stored_prompts(prompts)}


def write_prompts(
    path: Path,
    entries: Iterable[Mapping[str, Any]],
    *,
    split: str,
    seed: int,
    settings: Mapping[str, Any],
) -> None:
    """Write the prompts of a split, one image to a line, as an atomic JSON file.

    Args:
        path: The file.
        entries: The `entry` of each image of the split.
        split: Name of the split.
        seed: Seed of the prompts.
        settings: What made the prompts, ready for JSON.

    Raises:
        TrainingError: the disk is full or the directory cannot be written.
    """
    head = {"schema_version": SCHEMA_VERSION, "split": split, "seed": seed, "prompt": dict(settings)}
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head)[:-1] + ', "images": [')
        separator = "\n"
        for line in entries:
            file.write(separator + json.dumps(line, separators=(",", ":")))
            separator = ",\n"
        file.write("\n]}\n")


def _numbers(values: NDArray[np.float32]) -> list[float]:
    """The shortest numbers that are these float32 values: 0.1, where 0.10000000149011612 is the same as a double."""
    return [float(str(value)) for value in values]
