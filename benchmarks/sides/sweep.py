"""Write what a sweep starts from: a checkpoint with drawn weights, and a COCO set."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.settings import settings_for
from benchmarks.sides.loader import write


def main(arguments: Sequence[str] | None = None) -> int:
    """Print where both are."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--side", type=int, required=True)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args(arguments)
    checkpoint, data = given.directory / "weights.safetensors", given.directory / "data"
    write_weights(checkpoint, given.overrides)
    write(data, given.images, 1, (given.side, given.side))
    print(json.dumps({"checkpoint": str(checkpoint), "data": str(data)}))
    return 0


def write_weights(path: Path, overrides: Sequence[str]) -> None:
    """Random weights of a model, with the keys of `segment_anything`, so that no trial has to draw them."""
    from safetensors.torch import save_file

    from lora_sam.models.projections import fuse_projections

    sam = fuse_projections(settings_for("model.weights=random", *overrides).model.build().sam)
    save_file({name: value.contiguous().clone() for name, value in sam.state_dict().items()}, path)


if __name__ == "__main__":
    sys.exit(main())
