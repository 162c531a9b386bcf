"""The objects among the annotations of one image in Datumaro's model: masks, polygons and ellipses, maybe in groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from lora_sam.core.errors import DataError
from lora_sam.data.noticed import LeftOut
from lora_sam.data.reading.annotation_files import check_box, identifier_of
from lora_sam.data.reading.coco_masks import EncodedMasks, encode
from lora_sam.data.reading.images import check_pixels, image_size
from lora_sam.data.reading.labelled import LabelledImage, LabelledImages, check_mask_memory, size_mismatch
from lora_sam.data.reading.numbers import is_number
from lora_sam.data.reading.paths import is_text, shown
from lora_sam.data.reading.skipping import Ledger, attempt_all

UNLABELLED = "unlabelled"
"""Class of an object without label, in a data set with labels."""

_OUTLINES = ("mask", "polygon", "ellipse")
_OTHERS = (
    "label", "points", "polyline", "caption", "cuboid_3d", "cuboid_2d", "rotated_bbox", "super_resolution_annotation",
    "depth_annotation", "hash_key", "feature_vector", "tabular", "unknown",
)  # fmt: skip
BACKGROUND = "background"
"""The class whose masks are no objects, in any case of letters."""
_TRUE = (True, 1, "1", "true", "True")
_ELLIPSE_POINTS = 720  # as Datumaro's `Ellipse.as_polygon`: the last is the first again


@dataclass(frozen=True)
class Objects:
    """The objects of one image.

    Attributes:
        ids: Names of the N objects.
        masks: Their masks.
        classes: Their classes; empty where the data set has no labels.
    """

    ids: tuple[str, ...]
    masks: EncodedMasks
    classes: tuple[str, ...]


@dataclass
class _Object:
    """Annotations that are one object."""

    name: str
    label: int | None
    parts: list[Any] = field(default_factory=list)


def read_objects(
    annotations: object,
    size: tuple[int, int],
    labels: Sequence[str],
    owner: str,
    *,
    min_area: int,
    ledger: Ledger,
    left_out: LeftOut,
) -> Objects:
    """The objects among the annotations of one image, each checked.

    A mask, a polygon or an ellipse is an object; those of one label with the same group other than 0 are one. The class
    `background`, annotations with the attribute `is_crowd`, boxes without a mask in their group and annotations that
    outline nothing are no objects: they are counted in `left_out`.

    Args:
        annotations: As in Datumaro's JSON: a list of {"id", "type", "group", "label_id", "attributes", and "rle",
            "points" or "bbox"}.
        size: (height, width) of the image in pixels.
        labels: Names of the classes, by `label_id`.
        owner: The item, for messages.
        min_area: Objects with fewer pixels are left out.
        ledger: Counts the objects, and those that were skipped.
        left_out: Counts by reason what was left out on purpose.

    Raises:
        DataError: an annotation is damaged or does not fit its image, and nothing may be skipped; or `annotations` is
            no list.
    """
    if not isinstance(annotations, list):
        raise DataError(
            f"{owner} has the annotations {shown(annotations)}; it takes a list: export them again.", "bad_annotation"
        )
    found: dict[tuple[object, ...], _Object] = {}
    bad: set[tuple[object, ...]] = set()
    boxes: list[int] = []
    for position, entry in enumerate(annotations):
        name = identifier_of(entry, "id")
        place = f"{owner}: annotation {name or f'number {position} in the list'}"
        key: tuple[object, ...] = (position,)
        try:
            kind, group, label = _described(entry, labels, place)
            if entry.get("attributes") and entry["attributes"].get("is_crowd") in _TRUE:
                left_out["crowds_left_out", "annotations with is_crowd are not objects"] += 1
            elif kind == "bbox":
                check_box(entry.get("bbox"), size, place)
                boxes.append(group)
            elif kind not in _OUTLINES:
                left_out["no_outline", f"annotations of type {kind} outline nothing"] += 1
            elif label is not None and labels[label].casefold() == BACKGROUND:
                left_out["background_class", of_background(labels[label])] += 1
            else:
                key = (group, label) if group else key
                counts = _encoded(kind, entry, size, place)
                found.setdefault(key, _Object(name or "0", label)).parts.append({"size": size, "counts": counts})
        except DataError as error:
            ledger.saw(objects=1)
            ledger.skip_object(error)
            bad.add(key)
    outlined = {key[0] for key in found if len(key) == 2}
    left_out["no_outline", "boxes without a mask are not objects"] += sum(group not in outlined for group in boxes)
    ledger.saw(objects=len(found.keys() - bad))
    return _merged([value for key, value in found.items() if key not in bad], labels, min_area, left_out)


def of_background(label: str) -> str:
    """What is said of the masks of a class of background."""
    return f"masks of the class {label} are not objects"


def labels_of(categories: object, owner: str) -> tuple[str, ...]:
    """The names of the classes in `categories` of Datumaro's JSON; none where there is no label category.

    Raises:
        DataError: it has another form, or a name is there twice.
    """
    if not isinstance(categories, dict):
        raise DataError(
            f'{owner}: has no mapping "categories"; it must be Datumaro\'s JSON: export it again.', "bad_annotation"
        )
    category = categories.get("label", {})
    entries = category.get("labels", []) if isinstance(category, dict) else None
    if not isinstance(entries, list):
        raise DataError(
            f"{owner}: has the labels {shown(entries)}; they must be a list: export it again.", "bad_annotation"
        )
    names: list[str] = []
    for entry in entries:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name or not is_text(name):
            raise DataError(
                f"{owner}: has a label with the name {shown(name)}; it takes text: export it again.", "bad_annotation"
            )
        names.append(name)
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"{owner}: the label {shown(repeated[0])} is listed twice; merge the two.", "duplicate_id")
    return tuple(names)


def checked(
    images: list[LabelledImage], check: Literal["full", "header"], owner: str, ledger: Ledger
) -> LabelledImages:
    """The images whose files are as they should be.

    Args:
        images: With the size that their annotations are for.
        check: `full` decodes every image, `header` reads its size.
        owner: Where the annotations are from, for messages.
        ledger: Counts the images that were skipped.

    Raises:
        DataError: an image is missing, damaged, or has another size, and nothing may be skipped.
    """

    def attempt(image: LabelledImage) -> None:
        size = image_size(image.path)
        if size != image.size:
            raise size_mismatch(str(image.path), size, f"according to {owner}", image.size)
        check_mask_memory(str(image.path), len(image.object_ids), size)
        if check == "full":
            check_pixels(image.path)

    good = []
    for image, outcome in zip(images, attempt_all(attempt, images), strict=True):
        if isinstance(outcome, DataError):
            ledger.skip_image(outcome, objects=len(image.object_ids))
        else:
            good.append(image)
    return LabelledImages(tuple(good))


def _described(entry: object, labels: Sequence[str], place: str) -> tuple[str, int, int | None]:
    """Type, group and label of an annotation."""
    if not isinstance(entry, dict):
        raise DataError(
            f"{place} is {shown(entry)}; it takes a mapping: export the annotations again.", "bad_annotation"
        )
    kind, group, label = entry.get("type"), entry.get("group"), entry.get("label_id")
    if not isinstance(kind, str) or kind not in (*_OUTLINES, "bbox", *_OTHERS):
        raise DataError(
            f"{place} has the type {shown(kind)}; mask, polygon and ellipse are read: export it again.",
            "bad_annotation",
        )
    if group is not None and (type(group) is not int or group < 0):
        raise DataError(
            f"{place} has the group {shown(group)}; it takes a whole number, and 0 for none.", "bad_annotation"
        )
    if label is not None and (type(label) is not int or not 0 <= label < len(labels)):
        raise DataError(
            f"{place} has the label {shown(label)}; {len(labels)} labels are listed: 0 is the first.", "bad_annotation"
        )
    attributes = entry.get("attributes")
    if attributes is not None and not isinstance(attributes, dict):
        raise DataError(
            f"{place} has the attributes {shown(attributes)}; it takes a mapping, or none.", "bad_annotation"
        )
    return kind, group or 0, label


def _encoded(kind: str, entry: dict[str, Any], size: tuple[int, int], place: str) -> bytes:
    try:
        if kind == "mask":
            rle = entry.get("rle")
            return encode(rle if isinstance(rle, dict) else None, size)[0]
        points = entry.get("points")
        return encode([points if kind == "polygon" else _ellipse(points)], size)[0]
    except DataError as error:
        raise DataError(f"{place} {error}.", error.kind) from error


def _ellipse(points: object) -> list[float]:
    """The outline of the ellipse in the box [x0, y0, x1, y1], as Datumaro draws it."""
    if not isinstance(points, list) or len(points) != 4 or not all(is_number(value) for value in points):
        raise DataError(
            f"has an ellipse in {shown(points)}; it takes four finite numbers [x0, y0, x1, y1]", "bad_polygon"
        )
    x0, y0, x1, y1 = (float(value) for value in points)
    angles = np.linspace(0, 2 * np.pi, _ELLIPSE_POINTS)
    x = 0.5 * (x0 + x1) + 0.5 * (x1 - x0) * np.cos(angles)
    y = 0.5 * (y0 + y1) + 0.5 * (y1 - y0) * np.sin(angles)
    outline: list[float] = np.stack([x, y], axis=1).ravel().tolist()
    return outline


def _merged(objects: list[_Object], labels: Sequence[str], min_area: int, left_out: LeftOut) -> Objects:
    from faster_coco_eval.core import mask as coco_mask

    ids, counts, classes = [], [], []
    for one in objects:
        rle = coco_mask.merge(one.parts) if len(one.parts) > 1 else one.parts[0]
        if int(coco_mask.area(rle)) < min_area:
            left_out["small_objects", f"objects smaller than data.min_area={min_area} pixels were left out"] += 1
            continue
        ids.append(one.name)
        counts.append(rle["counts"])
        classes.append(UNLABELLED if one.label is None else labels[one.label])
    if len(set(ids)) < len(ids) or "0" in ids:  # tools that give no ids write 0 everywhere
        ids = [str(number) for number in range(1, len(ids) + 1)]
    return Objects(tuple(ids), EncodedMasks(tuple(counts)), tuple(classes) if labels else ())
