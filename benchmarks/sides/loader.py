"""Write a generated COCO set of JPEG photographs, or time how fast it is loaded, or only decoded and scaled."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

SEED = 0
QUALITY = 90  # of JPEG, as cameras and annotation tools write
FINEST = 7.0  # least amplitude of a scale, grey levels: gives the 2 to 3 bits per pixel that photographs have


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Answer of one side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("write", "loader", "decode"))
    parser.add_argument("root", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--objects", type=int, default=0)
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--passes", type=int, default=1)
    given = parser.parse_args(arguments)
    if given.action == "write":
        return write(given.root, given.images, given.objects, (given.size[0], given.size[1]))
    return timed(given.root, given.overrides, passes=given.passes, labelled=given.action == "loader")


def write(root: Path, images: int, objects: int, size: tuple[int, int]) -> dict[str, Any]:
    """A set of `images` of `size` = (height, width) with `objects` each; every second one is RLE, the others polygons.

    The objects of an image together have about a quarter of its area. One split, `train`.
    """
    from pycocotools import mask as coco_mask

    folder = root / "images" / "train"
    folder.mkdir(parents=True)
    (root / "annotations").mkdir()
    draws = np.random.default_rng(SEED)
    height, width = size
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    area = 0
    for index in range(images):
        outlines = [_outline(draws, size, objects) for _ in range(objects)]
        photograph = _photograph(draws, size, outlines)
        Image.fromarray(photograph).save(folder / f"{index}.jpg", quality=QUALITY)
        entries.append({"id": index, "file_name": f"{index}.jpg", "height": height, "width": width})
        for number, outline in enumerate(outlines):
            polygon = outline.ravel().tolist()
            rle = coco_mask.frPyObjects([polygon], height, width)[0]
            area += int(coco_mask.area(rle))
            encoded = {"size": [height, width], "counts": rle["counts"].decode()}
            annotations.append(
                {"id": len(annotations), "image_id": index, "category_id": 1, "iscrowd": 0}
                | {"segmentation": encoded if number % 2 else [polygon], "bbox": coco_mask.toBbox(rle).tolist()}
            )
    content = {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content), encoding="utf-8")
    stored = sum(path.stat().st_size for path in folder.iterdir())
    return {"jpeg_bytes": stored / images, "share": area / (images * height * width)}


def timed(root: Path, overrides: Sequence[str], *, passes: int, labelled: bool) -> dict[str, Any]:
    """Seconds of each pass over the training images, after one that is not counted, and what that one computed.

    Args:
        root: What `write` wrote.
        overrides: Of the configuration.
        passes: How many are timed.
        labelled: Training examples; otherwise only their images are decoded and brought into the input frame.

    Returns:
        `seconds` of each pass, `images` per pass, `objects` per pass and `pixels`, the hash of all image tensors.
    """
    import torch

    from benchmarks.settings import settings_for
    from lora_sam.data.reading.images import read_image
    from lora_sam.data.transforms import preprocess
    from lora_sam.training.examples import TrainingExamples

    torch.set_num_threads(1)
    settings = settings_for("data=coco", f"data.root={root}", "augmentation=none", "data.check=header", *overrides)
    source, frame = settings.data.open(SEED).train, settings.model.frame
    examples = TrainingExamples(
        source, settings.prompt, settings.augmentation, frame=frame, seed=SEED, max_objects=None
    )
    # as the loader reads them, without what that needs for masks
    files = [root / name for name in source.ids]

    def image_only(key: tuple[int, int]) -> torch.Tensor:
        return preprocess(read_image(files[key[1]]), frame)

    def one_pass(epoch: int, make: Callable[[tuple[int, int]], object]) -> float:
        start = time.perf_counter()
        for index in range(len(files)):
            make((epoch, index))
        return time.perf_counter() - start

    digest, objects = hashlib.sha256(), 0
    for index in range(len(files)):
        if labelled:
            example = examples[0, index]
            assert example.targets.any(dim=(1, 2)).all()
            assert len(example.targets) == len(example.object_ids)
            objects += len(example.object_ids)
            assert example.image is not None
            image = example.image
        else:
            image = image_only((0, index))
        digest.update(image.numpy().tobytes())
    make: Callable[[tuple[int, int]], object] = examples.__getitem__ if labelled else image_only
    seconds = [one_pass(epoch, make) for epoch in range(1, passes + 1)]
    return {"seconds": seconds, "images": len(files), "objects": objects, "pixels": digest.hexdigest()}


def _outline(draws: np.random.Generator, size: tuple[int, int], objects: int) -> NDArray[np.float64]:
    """A polygon [V, 2], (x, y): an uneven ellipse inside an image of `size`, of which `objects` fill a quarter."""
    height, width = size
    radius = np.sqrt(0.25 * height * width / objects / np.pi) * draws.uniform(0.6, 1.4)
    radius = float(min(radius, 0.45 * min(size)))
    count = int(draws.integers(12, 48))
    centre = draws.uniform((radius, radius), (width - radius, height - radius))
    angles = 2 * np.pi / count * (np.arange(count) + draws.uniform(-0.25, 0.25, count))
    lengths = radius * draws.uniform(0.8, 1, count)
    outline: NDArray[np.float64] = np.round(
        centre + np.stack((np.cos(angles), np.sin(angles)), axis=1) * lengths[:, None], 2
    )
    return outline


def _photograph(
    draws: np.random.Generator, size: tuple[int, int], outlines: Sequence[NDArray[np.float64]]
) -> NDArray[np.uint8]:
    """RGB, uint8 [H, W, 3]: structures of every scale, as in photographs, and an object of another colour per outline.

    Coarse structures are stronger than fine ones; the finest are as strong as makes files as large as those of cameras.
    """
    from PIL import ImageDraw

    height, width = size
    pixels = np.full((height, width, 3), 110, np.float32)
    scale, amplitude = max(size), 50.0
    while scale >= 1:
        cells = draws.normal(0, amplitude, (-(-height // scale) + 2, -(-width // scale) + 2)).astype(np.float32)
        layer = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
        # mostly grey, as colours of neighbouring things are less different than their brightness
        pixels += np.asarray(layer)[..., None] * draws.uniform(0.8, 1, 3).astype(np.float32)
        scale, amplitude = scale // 2, max(FINEST, amplitude / 2)
    for outline in outlines:
        stencil = Image.new("L", (width, height))
        ImageDraw.Draw(stencil).polygon(list(map(tuple, outline.tolist())), fill=255)
        soft = np.asarray(stencil.filter(ImageFilter.GaussianBlur(1)), np.float32)[..., None] / 255
        pixels += soft * draws.uniform(-60, 60, 3).astype(np.float32)
    return np.clip(pixels, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    import sys

    print(json.dumps(main(sys.argv[1:])))
