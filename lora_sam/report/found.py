"""Pictures of what base and tuned find without a prompt: images of largest, median and smallest gain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lora_sam.core.wording import plural
from lora_sam.report.overlays import found_strip
from lora_sam.report.pictures import ReportPicture, cut_picture

if TYPE_CHECKING:
    from PIL import Image

    from lora_sam.data.sources import SampleSource
    from lora_sam.evaluation.further import Further

PREFIX = "everything_"
"""Before the names of the files in `overlays/`."""


def draw_found(
    further: Further, source: SampleSource, places: Sequence[int]
) -> tuple[dict[str, Image.Image], tuple[ReportPicture, ...]]:
    """Draw the chosen images once, for `overlays/` and for the report; nothing where masks were not looked for.

    Chosen by how much AP at 0.5 of an image changed: most, by the median and least, no image twice.

    Args:
        further: What was measured.
        source: The images of the split.
        places: Places in `source` of the images that were measured, in their order.

    Returns:
        Strips by `best`, `median` and `worst`, for `write_overlays`; pictures for `report_html`.
    """
    measured = further.precision_of_images()
    if not measured:
        return {}, ()
    assert len(measured) == len(places), f"{len(measured)} images measured of {len(places)}"
    gains = np.array([tuned - base for base, tuned in measured])
    ranked = np.argsort(gains, kind="stable").tolist()
    chosen = {"best": ranked[-1], "median": ranked[(len(ranked) - 1) // 2], "worst": ranked[0]}
    titles = {
        "best": "largest gain",
        "median": "median gain",
        "worst": "largest loss" if gains[ranked[0]] < 0 else "smallest gain",
    }
    strips: dict[str, Image.Image] = {}
    pictures: dict[int, ReportPicture] = {}
    for name, place in chosen.items():
        sample = source[places[place]]
        base, tuned = (further.found(key, place, sample.size) for key in ("base", "tuned"))
        told = "AP at 0.5 {:.3f} → {:.3f}".format(*measured[place])
        objects = len(sample.masks)
        strips[name] = found_strip(
            sample, base, tuned, f"{name}: {sample.id}, {plural(objects, 'object')}, without a prompt, {told}"
        )
        pictures.setdefault(
            place,
            cut_picture(
                titles[name], sample, strips[name], objects=objects,
                told=f"found {len(base)} → {len(tuned)}, {told}",
            ),
        )  # fmt: skip
    return strips, tuple(pictures.values())
