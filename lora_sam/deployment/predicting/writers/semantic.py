"""Class images: 0 for background, the number of a class elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from lora_sam.core.files import atomic_path, write_text
from lora_sam.core.wording import in_one_line
from lora_sam.deployment.predicting.found import FoundImage
from lora_sam.deployment.predicting.writers.format import Pixels

FOLDER = "semantic"
ALSO = (f"{FOLDER}/classes.txt",)


def write(output: Path, image: FoundImage, pixels: Pixels, categories: Mapping[int, str]) -> tuple[str, ...]:
    """`semantic/<name>.png`, 8 bits, 16 with more than 255 classes; where objects overlap the higher score counts."""
    del pixels
    numbers = _numbers(categories)
    classes = np.zeros(image.size, np.uint8 if len(numbers) <= 255 else np.uint16)
    for index in image.by_score():
        classes[image.window(index)][image.mask_in_box(index)] = numbers[image.objects[index].category]
    relative = f"{FOLDER}/{image.stem}.png"
    with atomic_path(output / relative) as temporary:
        Image.fromarray(classes).save(temporary, format="PNG")
    return (relative,)


def finish(output: Path, images: Callable[[], Iterable[FoundImage]], categories: Mapping[int, str]) -> None:
    """`semantic/classes.txt`: number and name of each class; what is no text of one line is there as `\\n`."""
    del images
    lines = ["0 background", *(f"{number} {in_one_line(name)}" for name, number in _numbers(categories).items())]
    write_text(output / ALSO[0], "\n".join(lines) + "\n")


def _numbers(categories: Mapping[int, str]) -> dict[str, int]:
    """From 1 on in the order of their ids, one of which may be 0."""
    return {name: number for number, (_, name) in enumerate(sorted(categories.items()), 1)}
