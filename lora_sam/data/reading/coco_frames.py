"""In which frame the outlines of a COCO file are, found by holding them against the boxes beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.crops import rle_of
from lora_sam.core.errors import DataError
from lora_sam.core.spaced import evenly_spaced
from lora_sam.data.noticed import Notes
from lora_sam.data.reading.coco_dialects import segmentation_of
from lora_sam.data.reading.coco_masks import EncodedMasks, encode
from lora_sam.data.reading.numbers import is_number
from lora_sam.data.reading.pixel_centres import Course, Courses
from lora_sam.data.reading.reach import Reach, are_shares

_MOST = 2000  # annotations that are looked at, evenly spaced
_SHARE = 0.8  # of them must agree
_MOST_WHOLE = 100  # masks without a box that are looked at
_TORN = 2  # times as long an outline
_LEAST_SIDE = 8.0  # smaller boxes tell nothing
_PIXELS, _PART = 3.0, 0.05  # a side may be off by so many pixels, or by this part of the box


@dataclass(frozen=True)
class Frame:
    """How to read the outlines of a file.

    Attributes:
        swapped: Whether polygons are (y, x).
        relative: Whether the coordinates of polygons are fractions of the image's width and height.
        row_major: Whether RLE runs along rows, not down columns.
        courses: Where polygons run.
        reach: What is known of the outlines that were looked at.
    """

    swapped: bool = False
    relative: bool = False
    row_major: bool = False
    courses: Courses | None = None
    reach: Reach | None = None

    def applied(self, segmentation: object, size: tuple[int, int]) -> object:
        """A segmentation as `encode` takes it. Raises `DataError` as `encode` does."""
        if isinstance(segmentation, dict):
            return transposed(segmentation, size) if self.row_major else segmentation
        if not isinstance(segmentation, list) or not (self.swapped or self.relative):
            return segmentation
        rings = [segmentation] if segmentation and not isinstance(segmentation[0], list) else segmentation
        return [self._ring(ring, size) for ring in rings]

    def _ring(self, ring: Any, size: tuple[int, int]) -> Any:
        if not isinstance(ring, list) or len(ring) % 2 or not all(map(is_number, ring)):
            return ring  # its reader says what is wrong
        points = np.array(ring, dtype=np.float64).reshape(-1, 2)
        points = points[:, ::-1] if self.swapped else points
        points = points * (size[1], size[0]) if self.relative else points
        return points.ravel().tolist()

    def tell(self, place: str, notes: Notes) -> None:
        """Say what a user should know of the labels of a place."""
        said = {
            "polygons are read as (y, x), in which order they fit their boxes": self.swapped,
            "polygons are read as fractions of the image, as which they fit their boxes": self.relative,
            "RLE is read along rows, in which order it fits its boxes, or its masks are whole": self.row_major,
        }
        for text, holds in said.items():
            if holds:
                notes.found("other_frame", f"{place}: {text}")
        if self.courses is not None:
            self.courses.tell(place, notes)
        if self.reach is not None:
            self.reach.tell(place, notes)

    @property
    def course(self) -> Course:
        """Where polygons run."""
        return "edges" if self.courses is None else self.courses.found


USUAL = Frame()


def frame_of(entries: Sequence[Any], sizes: dict[str, tuple[int, int]], file: object) -> Frame:
    """The frame in which most outlines of a file fit their boxes; the usual one where they do, or nothing can be known.

    Args:
        entries: The annotations, as parsed from JSON.
        sizes: (height, width) of the images by the id in an annotation, as text.
        file: The file, for messages.

    Raises:
        DataError: polygons fit their boxes at another scale only, so which of the two is right cannot be known; or they
            are fractions of the image, which no box confirms.
    """
    polygons: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    factors: list[float] = []
    reach, courses, boxless = Reach(checked=True), Courses(), Counter[bool]()
    for place in evenly_spaced(len(entries), _MOST):
        entry = entries[place]
        size = sizes.get(str(entry.get("image_id"))) if isinstance(entry, dict) else None
        if size is None:
            continue
        segmentation = segmentation_of(entry)
        rings = _rings(segmentation)
        points = None if rings is None else np.concatenate(rings)
        if rings is not None and points is not None:
            courses.add(rings, entry.get("bbox"), entry.get("area"))
            reach.add(f"image {entry.get('image_id')}", points, size)
        box = _box(entry.get("bbox"))
        if box is None:
            if points is not None:
                boxless[are_shares(points, size)] += 1
            elif isinstance(segmentation, dict) and runs.total() < _MOST_WHOLE:
                runs[_whole_order(segmentation, size)] += 1
            continue
        if isinstance(segmentation, dict):
            runs[_order(segmentation, size, box)] += 1
        elif points is not None:
            tight = np.concatenate((points.min(axis=0), points.max(axis=0)))
            kind = _kind(tight, box, size)
            polygons[kind] += 1
            if kind == "other":
                ratio = (tight[2:] - tight[:2]) / (box[2:] - box[:2])
                place_ratio = tight[2:] / box[2:]
                if abs(ratio[0] - ratio[1]) < 0.1 * ratio.max() and abs(place_ratio - ratio).max() < 0.1 * ratio.max():
                    factors.append(float(ratio.mean()))
    if boxless[True] > 0 == boxless[False] and not polygons:
        raise DataError(
            f"{file}: all polygons lie between 0 and 1, so they are fractions of the image, where pixels are needed; "
            "multiply x by the width and y by the height of the image, or add a bbox in pixels to each annotation.",
            "bad_polygon",
        )
    total = polygons.total()
    if len(factors) >= max(3, _SHARE * total) and np.ptp(factors) < 0.1 * max(factors):
        raise DataError(
            f"{file}: polygons are {np.median(factors):.2g} times as large as their boxes, so one of the two belongs "
            "to another size of the images; export them again at the size of the images, or remove every bbox if the "
            "polygons are right.",
            "bad_polygon",
        )
    most = polygons.most_common(1)[0][0] if polygons else "usual"
    sure = total > 0 and polygons[most] >= _SHARE * total
    found = Frame(
        swapped=sure and most == "swapped",
        relative=sure and most == "relative",
        row_major=runs["rows"] >= max(1, _SHARE * runs.total()),
        courses=courses,
    )
    if not found.relative:
        found = replace(found, reach=reach)
    return USUAL if found == USUAL else found


def transposed(rle: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """The RLE, down columns, of a mask whose runs go along rows. Raises `DataError` as `encode` does."""
    height, width = size
    stored = rle | {"size": [width, height]} if rle.get("size") == [height, width] else rle
    counts, _ = encode(stored, (width, height))
    mask = EncodedMasks((counts,)).read((width, height))[0].T
    return {"size": [height, width], "counts": rle_of(mask)["counts"].decode("ascii")}


def _kind(tight: NDArray[np.float64], box: NDArray[np.float64], size: tuple[int, int]) -> str:
    if _fits(tight, box):
        return "usual"
    if _fits(tight[[1, 0, 3, 2]], box):
        return "swapped"
    if tight.max() <= 1.0 and _fits(tight * np.array([size[1], size[0]] * 2), box):
        return "relative"
    return "other"


def _order(rle: dict[str, Any], size: tuple[int, int], box: NDArray[np.float64]) -> str:
    from faster_coco_eval.core import mask as coco_mask

    try:
        for order, stored in (("columns", rle), ("rows", transposed(rle, size))):
            counts, _ = encode(stored, size)
            left, top, width, height = coco_mask.toBbox({"size": list(size), "counts": counts}).tolist()
            if _fits(np.array([left, top, left + width, top + height]), box):
                return order
    except DataError:
        pass  # its reader says what is wrong
    return "other"


def _whole_order(rle: dict[str, Any], size: tuple[int, int]) -> str:
    """In which order a mask has far the shorter outline: read in the other one it is torn into stripes."""
    outlines = []
    try:
        for stored in (rle, transposed(rle, size)):
            mask = EncodedMasks((encode(stored, size)[0],)).read(size)[0]
            outlines.append(np.count_nonzero(mask[1:] != mask[:-1]) + np.count_nonzero(mask[:, 1:] != mask[:, :-1]))
    except DataError:
        return "other"  # its reader says what is wrong
    columns, rows = outlines
    return "rows" if rows * _TORN < columns else "columns" if columns * _TORN < rows else "other"


def _fits(tight: NDArray[np.float64], box: NDArray[np.float64]) -> bool:
    allowed = np.maximum(_PIXELS, _PART * np.tile(box[2:] - box[:2], 2))
    return bool((np.abs(tight - box) <= allowed).all())


def _box(values: object) -> NDArray[np.float64] | None:
    """XYXY; None for no box, or one that is too small to tell."""
    if not isinstance(values, list) or len(values) != 4 or not all(map(is_number, values)):
        return None
    if max(map(abs, values)) > 1e6:  # compared first: JSON has integers that no float holds
        return None
    left, top, width, height = (float(value) for value in values)
    if min(width, height) < _LEAST_SIDE:
        return None
    return np.array([left, top, left + width, top + height])


def _rings(segmentation: object) -> list[NDArray[np.float64]] | None:
    if not isinstance(segmentation, list) or not segmentation:
        return None
    rings = segmentation if isinstance(segmentation[0], list) else [segmentation]
    if not all(isinstance(ring, list) and ring and len(ring) % 2 == 0 and all(map(is_number, ring)) for ring in rings):
        return None
    if all(len(ring) == 2 for ring in rings):  # points of one
        rings = [[value for ring in rings for value in ring]]
    if max(max(map(abs, ring)) for ring in rings) >= 1e6:
        return None
    return [np.array(ring, dtype=np.float64).reshape(-1, 2) for ring in rings]
