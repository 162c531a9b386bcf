"""One picture for each object."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from lora_sam.core.files import atomic_directory
from lora_sam.deployment.predicting.found import FoundImage
from lora_sam.deployment.predicting.writers.format import Pixels


def write(output: Path, image: FoundImage, pixels: Pixels, categories: Mapping[int, str]) -> tuple[str, ...]:
    """`masks/<name>/001.png` and so on, of the size of the image: 255 on the object, 0 elsewhere."""
    del pixels, categories
    folder = f"masks/{image.stem}"
    digits = max(3, len(str(len(image.objects))))
    names = [f"{number:0{digits}d}.png" for number in range(1, len(image.objects) + 1)]
    with atomic_directory(output / folder) as temporary:
        for index, name in enumerate(names):
            mask = np.zeros(image.size, np.uint8)
            mask[image.window(index)][image.mask_in_box(index)] = 255
            Image.fromarray(mask).save(temporary / name, format="PNG")
    return tuple(f"{folder}/{name}" for name in names)
