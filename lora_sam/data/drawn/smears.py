"""The data of the demo without prompts: white cells among the red ones of a blood smear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_sam.data.drawn.kept import KeptDrawings

_REFERENCE_SIDE = 384  # lengths below are in pixels of a picture of this side


@dataclass(frozen=True, kw_only=True)
class Smears(KeptDrawings):
    """Smears of blood under a microscope; the white cells are labelled, each as a whole with its nucleus.

    Red cells, platelets and bare nuclei have no label: a model that finds every object finds far too many.
    """

    name = "smears"
    version = 1
    category = "white cell"

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """One smear with at least one white cell; cells may overlap, and a pixel belongs to the one in front."""
        from lora_sam.data.drawn import spectra
        from lora_sam.data.drawn.camera import noisy, soft
        from lora_sam.data.drawn.canvas import Canvas
        from lora_sam.data.drawn.dice import Dice
        from lora_sam.data.drawn.layout import scatter
        from lora_sam.data.drawn.materials import hsv
        from lora_sam.data.drawn.scenes.smear import bare_nucleus, platelets, red_cells, white_cell

        dice, canvas = Dice(rng), Canvas(self.side)
        unit = self.side / _REFERENCE_SIDE
        ground = hsv(dice.uniform(0.07, 0.13), dice.uniform(0.02, 0.1), dice.uniform(0.85, 0.95))
        canvas.picture = spectra.photo(dice, (self.side, self.side), ground, dice.uniform(0.02, 0.06))
        red = hsv(dice.uniform(0.95, 1.02), dice.uniform(0.25, 0.5), dice.uniform(0.7, 0.88))
        violet = hsv(dice.uniform(0.72, 0.8), dice.uniform(0.5, 0.75), dice.uniform(0.35, 0.55))
        radius = unit * dice.uniform(13, 18)
        red_cells(dice, canvas, radius, dice.integer(40, 90), red, ground, label=False)
        platelets(dice, canvas, radius, red, violet, label=False)
        sizes = [radius * dice.uniform(1.3, 2.0) for _ in range(dice.integer(3, 7))]
        bare = dice.integer(1, 3)
        places = scatter(dice, self.side, [*sizes, *[radius] * bare], gap=1.0)
        for index, centre, size in places:
            if index < len(sizes):
                white_cell(dice, canvas, centre, size, red, violet, label_nucleus=False)
            else:
                bare_nucleus(dice, canvas, centre, size * dice.uniform(0.5, 1.1), violet)
        picture = noisy(dice, soft(canvas.picture, unit * dice.uniform(0.4, 0.9)), dice.uniform(1, 4))
        return np.array(picture), canvas.visible(len(sizes), rng)
