"""Polygons as Ultralytics reads them for segmentation: https://docs.ultralytics.com/datasets/segment."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from lora_sam.core.files import write_text
from lora_sam.core.polygons import polygons_of, single_ring
from lora_sam.deployment.predicting.found import FoundImage
from lora_sam.deployment.predicting.writers.format import Pixels

ALSO = ("yolo/data.yaml",)


def write(output: Path, image: FoundImage, pixels: Pixels, categories: Mapping[int, str]) -> tuple[str, ...]:
    """`yolo/labels/<name>.txt`: a line for each object, its class and its outline in shares of width and height.

    The format has one polygon for an object: parts and holes are joined to the first by lines gone there and back.
    """
    del pixels
    relative = f"yolo/labels/{image.stem}.txt"
    places = {name: place for place, (_, name) in enumerate(sorted(categories.items()))}
    height, width = image.size
    lines = []
    for index, one in enumerate(image.objects):
        left, top, *_ = one.box
        ring = single_ring(polygons_of(image.mask_in_box(index)))
        corners = " ".join(f"{(x + left) / width:.7g} {(y + top) / height:.7g}" for x, y in ring)
        lines.append(f"{places[one.category]} {corners}\n")
    write_text(output / relative, "".join(lines))
    return (relative,)


def finish(output: Path, images: Callable[[], Iterable[FoundImage]], categories: Mapping[int, str]) -> None:
    """`yolo/data.yaml` with the names of the classes."""
    del images
    names = [name for _, name in sorted(categories.items())]
    lines = "".join(f"  {place}: {_quoted(name)}\n" for place, name in enumerate(names))
    about = ("# put the images into images/, beside labels/", "# numbers of labels/ here; other sets may have others")
    write_text(output / ALSO[0], "\n".join((*about, f"names:\n{lines}")))


def _quoted(name: str) -> str:
    """A name as YAML. That is JSON, but for characters that YAML takes for line breaks or does not take at all."""
    text = json.dumps(name, ensure_ascii=False)
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in text)
