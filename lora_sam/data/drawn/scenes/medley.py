"""Many kinds of things in one scene, near and far: people, animals, plants, furniture, vehicles, signs."""

from __future__ import annotations

from lora_sam.data.drawn.canvas import Canvas
from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.scenes.animals import bird, quadruped
from lora_sam.data.drawn.scenes.city import bicycle, boat, car, house, lamp, truck
from lora_sam.data.drawn.scenes.figures import person
from lora_sam.data.drawn.scenes.foliage import conifer, flower, pot_plant, tree
from lora_sam.data.drawn.scenes.print import sign
from lora_sam.data.drawn.scenes.solids import chair, crate, globe, stack, table, turned_body
from lora_sam.data.drawn.staging import Maker, place, populate

_OUTDOORS: tuple[Maker, ...] = (
    person,
    quadruped,
    bird,
    tree,
    conifer,
    flower,
    house,
    car,
    truck,
    bicycle,
    boat,
    lamp,
    sign,
)
_INDOORS: tuple[Maker, ...] = (
    person,
    pot_plant,
    flower,
    crate,
    turned_body,
    turned_body,
    globe,
    stack,
    chair,
    table,
)


def medley(dice: Dice, canvas: Canvas) -> None:
    """A place, indoors or out, with a handful to a crowd of things that belong there."""
    outdoors = dice.chance(0.5)
    stage = place(dice, canvas, outdoors=outdoors)
    populate(dice, canvas, stage, _OUTDOORS if outdoors else _INDOORS, dice.integer(3, 14), tallest=0.9)
