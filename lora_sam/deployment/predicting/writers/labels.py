"""Label images: 0 for background, n for object n."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lora_sam.core.mask_files import label_image, write_labels
from lora_sam.deployment.predicting.found import FoundImage
from lora_sam.deployment.predicting.writers.format import Pixels


def write(output: Path, image: FoundImage, pixels: Pixels, categories: Mapping[int, str]) -> tuple[str, ...]:
    """`labels/<name>.png`, 16 bits; with more than 65,535 objects `labels/<name>.tif`, 32 bits.

    Where objects overlap, the one with the higher score is seen.
    """
    del pixels, categories
    objects = ((image.window(index), image.mask_in_box(index), one.score) for index, one in enumerate(image.objects))
    labels = label_image(image.size, objects, len(image.objects))
    relative = f"labels/{image.stem}.{'png' if labels.dtype == np.uint16 else 'tif'}"
    write_labels(output / relative, labels)
    return (relative,)
