"""Styles of scenes. Each draws ground and objects on a canvas; sizes are in pixels, numbers grow with the area."""

from __future__ import annotations

from collections.abc import Callable

from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.scenes.aerial import aerial
from lora_sam.data.drawn.scenes.animals import animals
from lora_sam.data.drawn.scenes.city import city
from lora_sam.data.drawn.scenes.electron import electron
from lora_sam.data.drawn.scenes.fabric import fabric
from lora_sam.data.drawn.scenes.figures import figures
from lora_sam.data.drawn.scenes.foliage import foliage
from lora_sam.data.drawn.scenes.glass import glass
from lora_sam.data.drawn.scenes.groups import cluster, mosaic, nested
from lora_sam.data.drawn.scenes.leaves import leaves
from lora_sam.data.drawn.scenes.lines import thin
from lora_sam.data.drawn.scenes.medley import medley
from lora_sam.data.drawn.scenes.microscopy import brightfield, fluorescence, stained
from lora_sam.data.drawn.scenes.print import prints
from lora_sam.data.drawn.scenes.rings import holed, jewellery, worn
from lora_sam.data.drawn.scenes.smear import smear
from lora_sam.data.drawn.scenes.solids import solids
from lora_sam.data.drawn.scenes.terrain import terrain
from lora_sam.data.drawn.scenes.things import natural, subtle
from lora_sam.data.drawn.scenes.tissue import tissue

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
    "figures": figures,
    "animals": animals,
    "foliage": foliage,
    "solids": solids,
    "leaves": leaves,
    "glass": glass,
    "city": city,
    "prints": prints,
    "fabric": fabric,
    "medley": medley,
    "tissue": tissue,
    "electron": electron,
    "aerial": aerial,
    "smear": smear,
}
