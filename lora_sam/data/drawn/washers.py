"""The data of the demo: washers on a workbench."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_sam.data.drawn.kept import KeptDrawings


@dataclass(frozen=True, kw_only=True)
class Washers(KeptDrawings):
    """Washers, split washers and bonded seals among nuts, bolts and screws, some partly covering others.

    An object is what is seen of a washer's own metal: without its hole, the cut of a split washer, the rubber lip of a
    bonded seal, and the nut, bolt or smaller washer that lies on it.
    """

    name = "washers"
    version = 1
    category = "washer"

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """One bench; see `washers_scene.draw`."""
        from lora_sam.data.drawn.washers_scene import draw

        return draw(rng, self.side)
