"""Data sets out of what labelling tools say of each image: images found, objects encoded, splits by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from lora_sam.core.errors import DataError
from lora_sam.data.noticed import LeftOut, Notes
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.coco_masks import EncodedMasks
from lora_sam.data.reading.datumaro_objects import BACKGROUND, UNLABELLED, checked, of_background
from lora_sam.data.reading.image_finder import ImageFinder
from lora_sam.data.reading.images import image_size
from lora_sam.data.reading.labelled import LabelledImage, LabelledImages, size_mismatch
from lora_sam.data.reading.numbers import as_float, is_number
from lora_sam.data.reading.outline import Outline, area_of, encode_mask, scaled
from lora_sam.data.reading.paths import is_text, shown
from lora_sam.data.reading.pixel_centres import Course, Courses
from lora_sam.data.reading.reach import Reach, are_shares
from lora_sam.data.reading.skipping import Ledger
from lora_sam.data.reading.split_reading import read_splits
from lora_sam.data.splits import SPLIT_WORD, Splits, spellings

_ROLES = ("train", "val", "test")
_ROUNDED = 0.03  # pixels: shares are written with five digits or six


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
        listed_in: The file that lists it among others; its name may say the split.
        scale: Whether coordinates are shares of width and height (0 to 1) instead of pixels.
        files: Pictures that are its labels, and no images.
    """

    owner: str
    image: object
    outlines: Sequence[Outline | DataError]
    folders: tuple[Path, ...] = ()
    size: tuple[int, int] | None = None
    left_out: LeftOut = field(default_factory=Counter)
    split: str | None = None
    listed_in: Path | None = None
    scale: bool = False
    files: tuple[Path, ...] = ()


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
    if not entries:
        ledger.close()
        raise DataError(
            f"{root}: {what} name no image; label some, export the annotations again, or correct data.root."
        )
    entries = _split_by_file(entries)
    names = {role: getattr(config, role) for role in _ROLES}
    known = {spelling.casefold() for name in names.values() if name for spelling in spellings(name)}
    training = {spelling.casefold() for spelling in spellings(config.train)}
    parted = any((entry.split or "").casefold() in training for entry in entries)
    used: dict[str, dict[Path, str]] = {}

    def read(split: str, notes: Notes) -> LabelledImages | None:
        if parted:
            chosen = [entry for entry in entries if (entry.split or "").casefold() == split.casefold()]
        else:
            chosen = entries if split == config.train else []
        if not chosen:
            return None
        return _read(config, root, chosen, finder, ledger, notes, used.setdefault(split, {}), what, split)

    splits = read_splits(
        read, ledger, config, seed=seed, single=not parted, place=lambda split: f"{root}: {split} of {what}"
    )
    notes = Notes()
    if parted:
        others = Counter(entry.split or "no split" for entry in entries if (entry.split or "").casefold() not in known)
        for name, count in others.items():
            notes.found("unused_split", f"{count} images of {name} are not used")
    labels = [path for entry in entries for path in entry.files]
    unnamed = finder.unnamed([*labels, *(path for paths in used.values() for path in paths)])
    if unnamed and not parted:
        notes.found("unlisted_image", f"{unnamed} images under {root} have no entry in {what} and were left out")
    return splits.with_more(notes)


def _split_by_file(entries: list[Picture]) -> list[Picture]:
    """The images in the splits that names of their files say, as train.xml and test.xml, where nothing else does."""
    words = {entry.listed_in: SPLIT_WORD.findall(entry.listed_in.stem if entry.listed_in else "") for entry in entries}
    if any(entry.split for entry in entries) or len(words) < 2 or any(len(found) != 1 for found in words.values()):
        return entries
    return [replace(entry, split=words[entry.listed_in][0]) for entry in entries]


def _read(
    config: FormatOptions,
    root: Path,
    entries: Sequence[Picture],
    finder: ImageFinder,
    ledger: Ledger,
    notes: Notes,
    used: dict[Path, str],
    what: str,
    split: str,
) -> LabelledImages:
    left_out: LeftOut = Counter()
    images: list[LabelledImage] = []
    reach, courses = Reach(), Courses()
    found: list[tuple[Picture, Path, tuple[int, int]]] = []
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
            _look_at(entry, size, reach, courses)
        except DataError as error:
            ledger.skip_image(error)
        else:
            found.append((entry, path, size))
    course = courses.found
    for entry, path, size in found:
        name = path.relative_to(root).as_posix()
        try:
            image = _image(entry, path, name, size, course, config.min_area, ledger, left_out)
        except DataError as error:
            ledger.skip_image(error)
            continue
        left_out += entry.left_out
        if image.object_ids:
            images.append(image)
        else:
            left_out["unlabelled_image", "images without an object were left out"] += 1
    notes.counted(split, left_out)
    courses.tell(split, notes)
    reach.tell(split, notes)
    if any(image.classes for image in images):  # classes are of all images or of none
        images = [replace(image, classes=image.classes or (UNLABELLED,) * len(image.object_ids)) for image in images]
    return checked(images, config.check, what, ledger)


def _look_at(entry: Picture, size: tuple[int, int], reach: Reach, courses: Courses) -> None:
    """Raise `DataError` where all corners that should be pixels are shares of the image; else count how far they go,
    and where they run."""
    corners = []
    for outline in entry.outlines:
        for ring in () if isinstance(outline, DataError) else outline.rings:
            if not isinstance(ring, list) or len(ring) < 6 or len(ring) % 2 or not all(map(is_number, ring)):
                return  # its reader says what is wrong
            corners.append(np.array([as_float(value) for value in ring]).reshape(-1, 2))
    if entry.scale:
        corners = [points * (size[1], size[0]) for points in corners]
    elif corners and are_shares(np.concatenate(corners), size):
        raise DataError(
            f"{entry.owner}: all coordinates lie between 0 and 1, so they are shares of the image, where pixels are "
            f"needed; multiply x by its width, {size[1]}, and y by its height, {size[0]}.",
            "bad_polygon",
        )
    for points in corners:
        reach.add(entry.owner, points, size)
        courses.add([points], slip=_ROUNDED if entry.scale else 0.0)
    if entry.scale and corners:
        reach.share = 1.0  # no shares of a smaller image


def _image(
    entry: Picture,
    path: Path,
    name: str,
    size: tuple[int, int],
    course: Course,
    min_area: int,
    ledger: Ledger,
    left_out: LeftOut,
) -> LabelledImage:
    parts: dict[tuple[object, ...], list[bytes]] = {}
    about: dict[tuple[object, ...], Outline] = {}
    bad: dict[tuple[object, ...], DataError] = {}
    for position, outline in enumerate(entry.outlines):
        key: tuple[object, ...] = (position,)
        try:
            if isinstance(outline, DataError):
                raise outline
            if outline.label is not None and outline.label.casefold() == BACKGROUND:
                left_out["background_class", of_background(outline.label)] += 1
                continue
            if outline.group is not None:
                key = (outline.group, outline.label)
            if outline.label is not None and (not outline.label.strip() or not is_text(outline.label)):
                raise DataError(f"has the class {shown(outline.label)}; it takes text", "bad_annotation")
            placed = replace(scaled(outline, size) if entry.scale else outline, course=course)
            parts.setdefault(key, []).append(placed.encoded(size))
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
            left_out["damaged_parts", "damaged parts beside the rest of their object were left out"] += 1
        else:
            ledger.saw(objects=1)
            ledger.skip_object(reason)
    ids, counts, classes, small = [], [], [], []
    for key in found:
        joined = parts[key][0]
        if len(parts[key]) > 1:
            joined = encode_mask(np.any(EncodedMasks(tuple(parts[key])).read(size), axis=0))
        if int(area_of(joined, size)) < min_area:
            left_out["small_objects", f"objects smaller than data.min_area={min_area} pixels were left out"] += 1
            small.append(joined)
            continue
        ids.append(about[key].name)
        counts.append(joined)
        classes.append(about[key].label)
    if len(set(ids)) < len(ids) or "" in ids:
        ids = [str(number) for number in range(1, len(ids) + 1)]
    labelled = tuple(UNLABELLED if label is None else label for label in classes)
    some = any(label is not None for label in classes)
    masks = EncodedMasks(tuple(counts), tuple(small))
    return LabelledImage(name, path, size, tuple(ids), masks, labelled if some else ())


def split_in(path: Path, root: Path) -> str | None:
    """The folder above a file under `root` that is called like a split: train, validation, test, ...; None for none."""
    names = {spelling.casefold() for role in _ROLES for spelling in spellings(role)}
    folders = path.relative_to(root).parts[:-1]
    return next((name for name in reversed(folders) if name.casefold() in names), None)
