"""Objects as labelling tools outline them: polygons with holes and bitmaps, in the pixels of one image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.coco_masks import EncodedMasks, encode, is_number
from lora_sam.data.reading.datumaro_objects import UNLABELLED, checked
from lora_sam.data.reading.image_finder import ImageFinder
from lora_sam.data.reading.images import image_size
from lora_sam.data.reading.labelled import LabelledImage, LabelledImages, size_mismatch
from lora_sam.data.reading.paths import is_text, shown
from lora_sam.data.reading.skipping import Ledger
from lora_sam.data.splits import Splits, read_splits, spellings

ELLIPSE_POINTS = 720
"""Corners of an ellipse or a circle."""

_LINE = 4  # numbers of a ring of two points
_ROLES = ("train", "val", "test")


@dataclass(frozen=True)
class Bitmap:
    """A part of a mask.

    Attributes:
        left: Column of its first pixel in the image.
        top: Row of its first pixel.
        pixels: Bool [h, w].
    """

    left: int
    top: int
    pixels: NDArray[np.bool_]


@dataclass(frozen=True)
class Outline:
    """One object, or a part of one, in pixels of the image as it is shown: x to the right, y down.

    Attributes:
        name: Its id; empty where the tool gives none.
        label: Its class; None for none.
        rings: Outer outlines, each flat [x0, y0, x1, y1, ...]; the object is all that any of them encloses ...
        holes: ... but for what these enclose.
        bitmap: The object as pixels, instead.
        group: Outlines of one label with the same group are one object; None for an object of its own.
        rle: The object as COCO's RLE {"size", "counts"}, instead.
    """

    name: str = ""
    label: str | None = None
    rings: tuple[object, ...] = ()
    holes: tuple[object, ...] = ()
    bitmap: Bitmap | None = None
    group: str | None = None
    rle: Mapping[str, Any] | None = None

    def encoded(self, size: tuple[int, int]) -> bytes:
        """Its mask in an image of `size` (H, W) as compressed RLE. Raises `DataError`, which does not name it."""
        if self.rle is not None:
            return encode(dict(self.rle), size)[0]
        if self.bitmap is not None:
            return _placed(self.bitmap, size)
        # a point or a line encloses nothing: it is no fault beside a ring that does
        rings = [ring for ring in self.rings if not isinstance(ring, list) or len(ring) > _LINE] or list(self.rings)
        counts, _ = encode(rings, size)
        if not self.holes:
            return counts
        mask = EncodedMasks((counts,)).read(size)[0]
        for hole in (hole for hole in self.holes if not isinstance(hole, list) or len(hole) > _LINE):
            try:
                mask &= ~EncodedMasks((encode([hole], size)[0],)).read(size)[0]
            except DataError as error:
                if "empty mask" not in str(error):  # a hole of no pixel changes nothing
                    raise
        return encode_mask(mask)


@dataclass(frozen=True)
class Picture:
    """What an annotation file says of one image.

    Attributes:
        owner: The file and the entry, for messages.
        image: Name of the image, as written there.
        folders: Where the image may lie.
        size: (height, width) that the file says, or None.
        outlines: Its objects; an error stands for one that is damaged.
        left_out: What is no object, counted by reason.
        split: Name of its split, as the tool has it; None where it has none.
        scale: Whether coordinates are shares of width and height (0 to 1) instead of pixels.
    """

    owner: str
    image: object
    outlines: Sequence[Outline | DataError]
    folders: tuple[Path, ...] = ()
    size: tuple[int, int] | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    split: str | None = None
    scale: bool = False


def open_pictures(
    config: FormatOptions, root: Path, pictures: Iterable[Picture | DataError], *, seed: int, what: str
) -> Splits:
    """Splits out of the images that annotation files describe.

    Where no image names the training split, all images are it, and val and test are carved out.

    Args:
        config: Options of the format.
        root: As returned by `data_root`.
        pictures: All images; an error stands for a file or entry that cannot be read.
        seed: Of what is carved.
        what: What the annotation files are, for messages.

    Raises:
        DataError: anything is missing, damaged or inconsistent, and may not be skipped; names file and remedy.
    """
    ledger, finder = Ledger(config.on_error, config.max_skipped), ImageFinder(root)
    entries: list[Picture] = []
    for entry in pictures:
        if isinstance(entry, DataError):
            ledger.saw(images=1)
            ledger.skip_image(entry)
        else:
            entries.append(entry)
    names = {role: getattr(config, role) for role in _ROLES}
    known = {spelling.casefold() for name in names.values() if name for spelling in spellings(name)}
    training = {spelling.casefold() for spelling in spellings(config.train)}
    parted = any((entry.split or "").casefold() in training for entry in entries)
    used: dict[Path, str] = {}

    def read(split: str, notes: list[str]) -> LabelledImages | None:
        if parted:
            chosen = [entry for entry in entries if (entry.split or "").casefold() == split.casefold()]
        else:
            chosen = entries if split == config.train else []
        if not chosen:
            return None
        return _read(config, root, chosen, finder, ledger, notes, used, what, split)

    splits = read_splits(
        read, ledger, config, seed=seed, single=not parted, place=lambda split: f"{root}: {split} of {what}"
    )
    notes = list(splits.notes)
    if parted:
        others = Counter(entry.split or "no split" for entry in entries if (entry.split or "").casefold() not in known)
        notes += [f"{count} images of {name} are not used" for name, count in others.items()]
    unnamed = finder.unnamed(used)
    if unnamed and not parted:
        notes.append(f"{unnamed} images under {root} have no entry in {what} and were left out")
    return replace(splits, notes=tuple(notes))


def _read(
    config: FormatOptions,
    root: Path,
    entries: Sequence[Picture],
    finder: ImageFinder,
    ledger: Ledger,
    notes: list[str],
    used: dict[Path, str],
    what: str,
    split: str,
) -> LabelledImages:
    left_out: Counter[str] = Counter()
    images: list[LabelledImage] = []
    for entry in entries:
        ledger.saw(images=1)
        try:
            path = finder.find(entry.image, entry.owner, *entry.folders)
            if path in used:
                raise DataError(
                    f"{entry.owner}: {path} is the image of {used[path]} too; merge the two.", "duplicate_id"
                )
            used[path] = entry.owner
            size = image_size(path)
            if entry.size is not None and entry.size != size:
                raise size_mismatch(str(path), size, f"according to {entry.owner}", entry.size)
            image = _image(entry, path, path.relative_to(root).as_posix(), size, config.min_area, ledger, left_out)
        except DataError as error:
            ledger.skip_image(error)
            continue
        left_out += entry.left_out
        if image.object_ids:
            images.append(image)
        else:
            left_out["images without an object were left out"] += 1
    notes.extend(f"{split}: {count} {reason}" for reason, count in left_out.items() if count)
    if any(image.classes for image in images):  # classes are of all images or of none
        images = [replace(image, classes=image.classes or (UNLABELLED,) * len(image.object_ids)) for image in images]
    return checked(images, config.check, what, ledger)


def _image(
    entry: Picture,
    path: Path,
    name: str,
    size: tuple[int, int],
    min_area: int,
    ledger: Ledger,
    left_out: Counter[str],
) -> LabelledImage:
    parts: dict[tuple[object, ...], list[bytes]] = {}
    about: dict[tuple[object, ...], Outline] = {}
    bad: dict[tuple[object, ...], DataError] = {}
    for position, outline in enumerate(entry.outlines):
        key: tuple[object, ...] = (position,)
        try:
            if isinstance(outline, DataError):
                raise outline
            if outline.group is not None:
                key = (outline.group, outline.label)
            if outline.label is not None and (not outline.label.strip() or not is_text(outline.label)):
                raise DataError(f"has the class {shown(outline.label)}; it takes text", "bad_annotation")
            parts.setdefault(key, []).append((_scaled(outline, size) if entry.scale else outline).encoded(size))
            about.setdefault(key, outline)
        except DataError as error:
            bad.setdefault(
                key,
                DataError(
                    f"{entry.owner}: object number {position + 1} {str(error).rstrip('.')}.",
                    error.kind or "bad_annotation",
                ),
            )
    found = [key for key, masks in parts.items() if masks]
    ledger.saw(objects=len(found))
    for key, reason in bad.items():
        if key in found:  # what it is grouped with is an object without it
            left_out["damaged parts beside the rest of their object were left out"] += 1
        else:
            ledger.saw(objects=1)
            ledger.skip_object(reason)
    ids, counts, classes = [], [], []
    for key in found:
        joined = parts[key][0]
        if len(parts[key]) > 1:
            joined = encode_mask(np.any(EncodedMasks(tuple(parts[key])).read(size), axis=0))
        if int(area_of(joined, size)) < min_area:
            left_out[f"objects smaller than data.min_area={min_area} pixels were left out"] += 1
            continue
        ids.append(about[key].name)
        counts.append(joined)
        classes.append(about[key].label)
    if len(set(ids)) < len(ids) or "" in ids:
        ids = [str(number) for number in range(1, len(ids) + 1)]
    labelled = tuple(UNLABELLED if label is None else label for label in classes)
    some = any(label is not None for label in classes)
    return LabelledImage(name, path, size, tuple(ids), EncodedMasks(tuple(counts)), labelled if some else ())


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """A mask [H, W] as compressed RLE. Raises `DataError` where it is empty."""
    from faster_coco_eval.core import mask as coco_mask

    if not mask.any():
        raise DataError(
            "has an empty mask (no pixel inside the image); correct it or remove the annotation", "bad_annotation"
        )
    counts: bytes = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    return counts


def area_of(counts: bytes, size: tuple[int, int]) -> int:
    """Pixels of a mask that is compressed RLE."""
    from faster_coco_eval.core import mask as coco_mask

    return int(coco_mask.area({"size": list(size), "counts": counts}))


def flat(points: object) -> list[float]:
    """Corners [[x, y], ...] as [x0, y0, x1, y1, ...]. Raises `DataError`, which does not name the object."""
    if not isinstance(points, list | tuple) or not all(
        isinstance(point, list | tuple) and len(point) >= 2 and is_number(point[0]) and is_number(point[1])
        for point in points
    ):
        raise DataError(f"has the points {shown(points)}; it takes a list of [x, y]", "bad_polygon")
    return [float(value) for point in points for value in point[:2]]


def ellipse(x: float, y: float, across: float, down: float, degrees: float = 0.0) -> list[float]:
    """The outline of an ellipse by its centre, its two radii, and its turn (clockwise as it is seen)."""
    if not all(is_number(value) for value in (x, y, across, down, degrees)) or across <= 0 or down <= 0:
        raise DataError(
            f"has an ellipse at {shown((x, y))} with the radii {shown((across, down))}; it takes numbers > 0",
            "bad_polygon",
        )
    angles = np.linspace(0, 2 * np.pi, ELLIPSE_POINTS, endpoint=False)
    turn = np.deg2rad(degrees)
    u, v = across * np.cos(angles), down * np.sin(angles)
    outline = np.stack([x + u * np.cos(turn) - v * np.sin(turn), y + u * np.sin(turn) + v * np.cos(turn)], axis=1)
    corners: list[float] = outline.ravel().tolist()
    return corners


def _scaled(outline: Outline, size: tuple[int, int]) -> Outline:
    """The outline in pixels, out of shares of width and height."""

    def ring(values: object) -> list[float]:
        if not isinstance(values, list) or not all(is_number(value) for value in values):
            raise DataError(f"has the points {shown(values)}; it takes numbers from 0 to 1", "bad_polygon")
        if min(values, default=0) < -0.01 or max(values, default=0) > 1.01:
            raise DataError(
                f"has coordinates from {min(values):g} to {max(values):g}, where shares of the image from 0 to 1 are "
                "needed; divide x by its width and y by its height",
                "bad_polygon",
            )
        return [value * size[1 - place % 2] for place, value in enumerate(values)]

    return replace(
        outline, rings=tuple(ring(one) for one in outline.rings), holes=tuple(ring(one) for one in outline.holes)
    )


def _placed(bitmap: Bitmap, size: tuple[int, int]) -> bytes:
    height, width = bitmap.pixels.shape
    if bitmap.left < 0 or bitmap.top < 0 or bitmap.left + width > size[1] or bitmap.top + height > size[0]:
        raise DataError(
            f"has a bitmap of {width}x{height} pixels at ({bitmap.left}, {bitmap.top}), which leaves the image of "
            f"{size[1]}x{size[0]}; export the annotations again",
            "bad_rle",
        )
    mask = np.zeros(size, np.bool_)
    mask[bitmap.top : bitmap.top + height, bitmap.left : bitmap.left + width] = bitmap.pixels
    return encode_mask(mask)


def split_in(path: Path, root: Path) -> str | None:
    """The folder above a file under `root` that is called like a split: train, validation, test, ...; None for none."""
    names = {spelling.casefold() for role in _ROLES for spelling in spellings(role)}
    folders = path.relative_to(root).parts[:-1]
    return next((name for name in reversed(folders) if name.casefold() in names), None)
