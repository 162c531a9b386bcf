"""Label images: 0 for background, n for object n."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lora_sam.core.files import atomic_path
from lora_sam.deployment.predicting.found import FoundImage
from lora_sam.deployment.predicting.writers.format import Pixels

MOST_OF_16_BITS = 2**16 - 1


def write(output: Path, image: FoundImage, pixels: Pixels, categories: Mapping[int, str]) -> tuple[str, ...]:
    """`labels/<name>.png`, 16 bits; with more than 65,535 objects `labels/<name>.tif`, 32 bits."""
    del pixels, categories
    labels = label_image(image)
    wide = labels.dtype != np.uint16
    relative = f"labels/{image.stem}.{'tif' if wide else 'png'}"
    with atomic_path(output / relative) as temporary:
        if wide:
            import tifffile

            with temporary.open("wb") as file:
                tifffile.imwrite(file, labels, compression="zlib")
        else:
            Image.fromarray(labels).save(temporary, format="PNG")
    return (relative,)


def label_image(image: FoundImage) -> NDArray[np.uint16] | NDArray[np.uint32]:
    """[H, W]: n is the n-th object of the image; where objects overlap, the one with the higher score."""
    labels = np.zeros(image.size, np.uint16 if len(image.objects) <= MOST_OF_16_BITS else np.uint32)
    for index in image.by_score():
        labels[image.window(index)][image.mask_in_box(index)] = index + 1
    return labels
