"""Styles of scenes. Each draws ground and objects on a canvas; sizes are in pixels, numbers grow with the area."""

from __future__ import annotations

from collections.abc import Callable

from lora_sam.data.drawing.canvas import Canvas
from lora_sam.data.drawing.dice import Dice
from lora_sam.data.drawing.scenes.groups import cluster, mosaic, nested
from lora_sam.data.drawing.scenes.lines import thin
from lora_sam.data.drawing.scenes.microscopy import brightfield, fluorescence, stained
from lora_sam.data.drawing.scenes.rings import holed, jewellery, worn
from lora_sam.data.drawing.scenes.terrain import terrain
from lora_sam.data.drawing.scenes.things import natural, subtle

STYLES: dict[str, Callable[[Dice, Canvas], None]] = {
    "natural": natural,
    "fluorescence": fluorescence,
    "stained": stained,
    "brightfield": brightfield,
    "thin": thin,
    "holed": holed,
    "worn": worn,
    "jewellery": jewellery,
    "cluster": cluster,
    "mosaic": mosaic,
    "nested": nested,
    "subtle": subtle,
    "terrain": terrain,
}
