"""Looking at one sample: its picture, its objects, and how its file stores it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lora_sam.core.structures import Sample
from lora_sam.data.check.defects import Finding, of_object
from lora_sam.data.reading.deep_images import has_16_bits
from lora_sam.data.reading.duplicates import Likeness, likeness
from lora_sam.data.reading.mask_areas import separate_parts
from lora_sam.data.reading.mask_survey import MANY_PARTS
from lora_sam.data.sources import SampleSource

TINY_PIXELS, TINY_SHARE = 10, 1e-4
"""A mask with fewer pixels, or a smaller share of its image, is tiny."""

WHOLE_SHARE = 0.95
"""A mask with a larger share of its image covers it all."""

INSIDE_SHARE = 0.9
"""An object with a larger share of its pixels in another one lies inside it."""

DARK, FLAT = 40.0, 20.0
"""Grey levels of 255: an image is dark if 99 % are below `DARK`, and of low contrast if 98 % lie within `FLAT`."""

_ORIENTATION_TAG = 0x0112
_GREY_PIXELS = 2**18  # enough for percentiles


@dataclass(frozen=True)
class Look:
    """What is worth remembering of one sample.

    Attributes:
        split: train, val or test.
        index: Its place in the source.
        id: Id of the sample.
        size: (height, width) in pixels.
        areas: Pixels of each of the N objects, int64 [N].
        boxes: Tight boxes XYXY of the objects, float32 [N, 4].
        object_ids: Their names.
        classes: Their classes, or empty.
        likeness: What tells whether two images are the same, or nearly.
        channels: `grey`, `colour`, `alpha` or `16 bit`, as its file stores it; None where there is no file.
        findings: What is wrong with it.
    """

    split: str
    index: int
    id: str
    size: tuple[int, int]
    areas: NDArray[np.int64]
    boxes: NDArray[np.float32]
    object_ids: tuple[str, ...]
    classes: tuple[str, ...]
    likeness: Likeness
    channels: str | None
    findings: tuple[Finding, ...]


def look_at(source: SampleSource, split: str, index: int, root: Path, max_objects: int | None) -> Look:
    """Decode one sample and look for what can be seen in it alone.

    Args:
        source: The samples of a split.
        split: Name of the split.
        index: Which of them.
        root: The data root; where an id names a file under it, its header is looked at too.
        max_objects: Objects of an image that one training step uses; None for all.

    Raises:
        DataError: it cannot be decoded.
    """
    sample = source[index]
    areas = sample.masks.sum(axis=(1, 2), dtype=np.int64)
    boxes = sample.boxes
    channels, orientation = _stored(root / sample.id)
    findings = [*_of_picture(sample), *_of_objects(sample, areas, boxes)]
    if orientation not in (None, 1):
        findings.append(
            Finding("exif_rotation", sample.id, f"{sample.id}: EXIF orientation {orientation} was applied", sample.id)
        )
    if max_objects is not None and len(areas) > max_objects:
        detail = f"{sample.id}: {len(areas):,} objects, {max_objects} per step (data.max_objects_per_image)"
        findings.append(Finding("many_objects", sample.id, detail, sample.id))
    return Look(
        split,
        index,
        sample.id,
        sample.size,
        areas,
        boxes,
        sample.object_ids,
        sample.classes,
        likeness(sample.image),
        channels,
        tuple(findings),
    )


def _of_picture(sample: Sample) -> Iterator[Finding]:
    step = max(1, int(np.sqrt(sample.size[0] * sample.size[1] / _GREY_PIXELS)))
    grey = sample.image[::step, ::step].mean(axis=2)
    low, high = (float(value) for value in np.percentile(grey, (1, 99)))
    if high < DARK or high - low < FLAT:
        detail = f"{sample.id}: 98 % of the grey levels are {low:.0f} to {high:.0f} of 255"
        yield Finding("low_contrast", sample.id, detail, sample.id)


def _of_objects(sample: Sample, areas: NDArray[np.int64], boxes: NDArray[np.float32]) -> Iterator[Finding]:
    pixels = sample.size[0] * sample.size[1]

    def finding(defect: str, row: int, detail: str, *others: int) -> Finding:
        name = of_object(sample.id, sample.object_ids[row])
        objects = tuple(sample.object_ids[place] for place in (row, *others))
        return Finding(defect, name, f"{name} {detail}", sample.id, objects)

    for row, area in enumerate(areas.tolist()):
        share = area / pixels
        if area < TINY_PIXELS or share < TINY_SHARE:
            yield finding("tiny_mask", row, f"has {area:,} pixels, {share:.3%} of the image")
        elif share > WHOLE_SHARE:
            yield finding("whole_image_mask", row, f"covers {share:.1%} of the image")
        parts = separate_parts(_cut(sample.masks[row], boxes[row]))
        if parts >= MANY_PARTS:
            yield finding("many_parts", row, f"consists of {parts} separate parts")
    for inner, outer, same in _inside(sample.masks, areas, boxes):
        other = sample.object_ids[outer]
        if same:
            yield finding("duplicate_object", inner, f"is nearly the same as object {other}", outer)
        else:
            yield finding("nested_object", inner, f"lies inside object {other}", outer)


def _inside(
    masks: NDArray[np.bool_], areas: NDArray[np.int64], boxes: NDArray[np.float32]
) -> Iterator[tuple[int, int, bool]]:
    """(inner, outer, whether they are nearly the same) for every object inside another one that is not smaller."""
    order = np.argsort(areas, kind="stable")
    for place, inner in enumerate(order.tolist()):
        larger = order[place + 1 :]
        sides = np.minimum(boxes[larger, 2:], boxes[inner, 2:]) - np.maximum(boxes[larger, :2], boxes[inner, :2])
        # what two masks share fits into what their boxes share
        near = larger[np.prod(np.clip(sides, 0, None), axis=1) > INSIDE_SHARE * areas[inner]]
        if not len(near):
            continue
        own = _cut(masks[inner], boxes[inner])
        shared = np.array([np.count_nonzero(own & _cut(masks[other], boxes[inner])) for other in near])
        best = int(shared.argmax())
        if shared[best] > INSIDE_SHARE * areas[inner]:
            union = areas[inner] + areas[near[best]] - shared[best]
            yield inner, int(near[best]), bool(shared[best] > INSIDE_SHARE * union)


def _cut(mask: NDArray[np.bool_], box: NDArray[np.float32]) -> NDArray[np.bool_]:
    left, top, right, bottom = (int(side) for side in box)
    return mask[top:bottom, left:right]


def _stored(path: Path) -> tuple[str | None, int | None]:
    """(kind of channels, EXIF orientation) in the header of an image file that was read before; None for no file."""
    try:
        if not path.is_file():
            return None, None
        with Image.open(path) as image:
            mode, transparent = image.mode, "transparency" in image.info
            # Pillow turns TIFF by itself; PNG's own method would decode the whole picture
            tag = None if image.format == "TIFF" else Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)
            wide = mode.startswith("I") or has_16_bits(image)
    except (OSError, ValueError, SyntaxError):
        return None, None
    if wide:
        kind = "16 bit"
    elif transparent or mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        kind = "alpha"
    else:
        kind = "grey" if mode in ("1", "L") else "colour"
    return kind, tag if isinstance(tag, int) else None


def spread(count: int, most: int | None) -> Sequence[int]:
    """Places of at most `most` of `count` samples, evenly spaced; all of them for None."""
    if most is None or count <= most:
        return range(count)
    return [int(place) for place in np.linspace(0, count - 1, most).round()]


BOX_PIXELS, BOX_SHARE = 2.0, 0.05
"""A side of a box is off by more than so many pixels, and by more than this share of the box's width or height."""

Box = NDArray[np.floating[Any]]
"""XYXY in pixels of the image, [4]."""


def numbers(values: object) -> NDArray[np.float64] | None:
    """A list of finite numbers from JSON, float64 [K]; None for anything else."""
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        return None
    try:
        found = np.array(values, dtype=np.float64)
    except OverflowError:
        return None
    return found if np.isfinite(found).all() else None


def corners(values: object) -> NDArray[np.float64] | None:
    """[x, y, width, height] from JSON as XYXY, float64 [4]; None for anything else."""
    stated = numbers(values)
    if stated is None or len(stated) != 4:
        return None
    return np.array([*stated[:2], *(stated[:2] + stated[2:])])


def fits(stated: Box, tight: Box, slack: float = 0.0) -> bool:
    """Whether a stated box is that of a mask.

    Args:
        stated: The box in the label file.
        tight: The tight box of the mask.
        slack: So many pixels the mask may be smaller on each side, where its edge belongs to nothing.
    """
    sides = np.tile(tight[2:] - tight[:2], 2)
    inwards = (tight - stated) * np.array([1, 1, -1, -1])
    allowed = np.maximum(BOX_PIXELS, BOX_SHARE * sides)
    return bool((inwards >= -allowed).all() and (inwards <= allowed + slack).all())


def mismatch(look: Look, object_id: str, stated: Box) -> Finding:
    """The finding for a box that does not fit the mask of an object of a sample."""
    tight = look.boxes[look.object_ids.index(object_id)].astype(float)
    name = of_object(look.id, object_id)
    texts = (", ".join(f"{side:g}" for side in sides) for sides in (np.round(stated, 1), tight))
    detail = "{} has the box ({}), its mask ({})".format(name, *texts)
    return Finding("box_mask_mismatch", name, detail, look.id, (object_id,))
