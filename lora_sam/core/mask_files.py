"""Masks of one image as annotations, as a label image, and as files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.crops import rle_of
from lora_sam.core.errors import ConfigError
from lora_sam.core.files import atomic_directory, atomic_path, write_text

MOST_OF_16_BITS = 2**16 - 1
"""So many objects have a label of 16 bits."""

_MADE_BY = ("Software", "lora_sam masks")
"""What a picture of a mask says of itself in its PNG."""

Window = tuple[slice, slice]


def label_image(
    size: tuple[int, int], objects: Iterable[tuple[Window, NDArray[np.bool_], float]], count: int
) -> NDArray[np.uint16] | NDArray[np.uint32]:
    """[H, W]: 0 is background, n the n-th object; where objects overlap, the one with the higher score.

    Of equal scores the earlier object is seen. 16 bits up to 65,535 objects, 32 bits beyond.

    Args:
        size: (height, width).
        objects: Rows and columns of a window, the mask in it, and the score of each object.
        count: How many there are.
    """
    labels = np.zeros(size, np.uint16 if count <= MOST_OF_16_BITS else np.uint32)
    best = np.full(size, -np.inf)
    for number, (window, mask, score) in enumerate(objects, 1):
        seen = mask & (score > best[window])
        labels[window][seen] = number
        best[window][seen] = score
    return labels


def write_labels(path: Path, labels: NDArray[np.uint16] | NDArray[np.uint32]) -> None:
    """Write a label image atomically: 16 bits as PNG or TIFF by the name, 32 bits as TIFF. Raises `TrainingError`."""
    from PIL import Image

    tiff = path.suffix.lower() in (".tif", ".tiff")
    with atomic_path(path) as temporary:
        if tiff:
            import tifffile

            with temporary.open("wb") as file:
                tifffile.imwrite(file, labels, compression="zlib")
        else:
            Image.fromarray(labels).save(temporary, format="PNG")


def labels_of(masks: NDArray[np.bool_], scores: NDArray[np.floating[Any]]) -> NDArray[np.uint16] | NDArray[np.uint32]:
    """`label_image` of masks [N, H, W] with scores [N]."""
    whole = (slice(None), slice(None))
    objects = ((whole, mask, float(score)) for mask, score in zip(masks, scores, strict=True))
    return label_image((masks.shape[1], masks.shape[2]), objects, len(masks))


def coco_of(
    masks: NDArray[np.bool_], scores: NDArray[np.floating[Any]], name: str, classes: Sequence[str] | None
) -> dict[str, Any]:
    """COCO instances of one image (https://cocodataset.org/#format-data): compressed RLE, scores, no empty masks.

    Args:
        masks: bool [N, H, W].
        scores: [N].
        name: File name of the image.
        classes: Name of the class of each of N masks; None calls all of them `object`.

    Raises:
        ConfigError: another number of classes.
    """
    from faster_coco_eval.core import mask as coco_mask

    named = ["object"] * len(masks) if classes is None else list(classes)
    if len(named) != len(masks):
        raise ConfigError(f"classes has {len(named)} names for {len(masks)} masks; give one for each, or leave it out")
    ids = {one: number for number, one in enumerate(dict.fromkeys(named or ["object"]), 1)}
    annotations = []
    for number, (mask, score, category) in enumerate(zip(masks, scores, named, strict=True), 1):
        if not mask.any():
            continue
        rle = rle_of(mask)
        annotations.append(
            {
                "id": number,
                "image_id": 1,
                "category_id": ids[category],
                "iscrowd": 0,
                "segmentation": {"size": list(mask.shape), "counts": bytes(rle["counts"]).decode("ascii")},
                "bbox": coco_mask.toBbox(rle).tolist(),
                "area": int(coco_mask.area(rle)),
                "score": round(float(score), 6),
            }
        )
    return {
        "images": [{"id": 1, "file_name": name, "height": masks.shape[1], "width": masks.shape[2]}],
        "annotations": annotations,
        "categories": [{"id": identifier, "name": one} for one, identifier in ids.items()],
    }


def save_masks(
    path: str | PathLike[str],
    masks: NDArray[np.bool_],
    scores: NDArray[np.floating[Any]],
    name: str,
    classes: Sequence[str] | None,
) -> Path:
    """Write masks [N, H, W] as what the ending says; see `lora_sam.core.structures.Masks.save`."""
    place = Path(path).expanduser()
    ending = place.suffix.lower()
    if ending == ".json":
        write_text(place, json.dumps(coco_of(masks, scores, name, classes)) + "\n")
    elif ending in (".png", ".tif", ".tiff"):
        labels = labels_of(masks, scores)
        if ending == ".png" and labels.dtype != np.uint16:
            raise ConfigError(
                f"{place}: {len(masks):,} objects need labels of 32 bits, which PNG has not; end with .tif"
            )
        write_labels(place, labels)
    elif ending == ".npz":
        with atomic_path(place) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, masks=masks, scores=scores)
    elif not ending:
        _save_pictures(place, masks)
    else:
        raise ConfigError(
            f"{place}: cannot be written as {ending}; end with .json (COCO), .png or .tif (label image), .npz, or "
            "with nothing for a folder with a picture of each mask"
        )
    return place


def _save_pictures(folder: Path, masks: NDArray[np.bool_]) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    other = next((entry for entry in folder.iterdir() if not _is_ours(entry)), None) if folder.is_dir() else None
    if other is not None:
        raise ConfigError(f"{folder}: has other files, such as {other.name}; give a folder that is not there yet")
    digits = max(3, len(str(len(masks))))
    made = PngInfo()
    made.add_text(*_MADE_BY)
    with atomic_directory(folder) as temporary:
        for number, mask in enumerate(masks, 1):
            picture = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
            picture.save(temporary / f"{number:0{digits}d}.png", pnginfo=made)


def _is_ours(entry: Path) -> bool:
    """Whether a file is a picture of a mask that was written here; many name their own images by numbers as well."""
    from PIL import Image

    if entry.suffix != ".png" or not entry.stem.isdigit():
        return False
    try:
        with Image.open(entry) as picture:
            return bool(picture.info.get(_MADE_BY[0]) == _MADE_BY[1])
    except (OSError, ValueError, SyntaxError):
        return False
