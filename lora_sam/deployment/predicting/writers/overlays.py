"""The images with the masks painted on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from lora_sam.core.files import atomic_path
from lora_sam.core.painting import COMPRESSION, brighten, paint_one
from lora_sam.deployment.predicting.found import FoundImage
from lora_sam.deployment.predicting.writers.format import Pixels


def write(output: Path, image: FoundImage, pixels: Pixels, categories: Mapping[int, str]) -> tuple[str, ...]:
    """`overlays/<name>.png`, of the size of the image: half-transparent masks with solid contours.

    Large objects are painted first, so that small ones stay visible. Dark images are brightened.
    """
    del categories
    relative = f"overlays/{image.stem}.png"
    canvas = brighten(pixels())[0].astype(np.float32)
    for index in sorted(range(len(image.objects)), key=lambda index: -image.objects[index].area):
        paint_one(canvas[image.window(index)], image.mask_in_box(index), index)
    with atomic_path(output / relative) as temporary:
        Image.fromarray(canvas.round().astype(np.uint8)).save(temporary, format="PNG", compress_level=COMPRESSION)
    return (relative,)
