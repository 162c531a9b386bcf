"""Pascal VOC: segmented objects and classes as palette images, split by lists (VOC2012 devkit, section 3)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.annotation_files import read_lines
from lora_sam.data.reading.class_table import (
    VOID,
    VOID_COLOUR,
    ClassTable,
    class_table,
    colour_codes,
    packed,
    read_label_lines,
    voc_colour,
    voc_table,
)
from lora_sam.data.reading.images import SUFFIXES, image_size, is_jpeg, pixel_kind
from lora_sam.data.reading.label_map import LabelMap, numbered
from lora_sam.data.reading.labelled import LabelledImage, LabelledImages, check_size, size_mismatch
from lora_sam.data.reading.mask_values import read_mask
from lora_sam.data.reading.pairs import described, gathered
from lora_sam.data.reading.paths import data_root, inside, shown
from lora_sam.data.reading.skipping import Ledger, attempt_all
from lora_sam.data.reading.voc_xml import declared_size
from lora_sam.data.splits import Splits, read_splits

IMAGES, ANNOTATIONS, LISTS = "JPEGImages", "Annotations", "ImageSets/Segmentation"
OBJECTS, CLASSES, LABEL_MAP = "SegmentationObject", "SegmentationClass", "labelmap.txt"
CLASS_NAMES = "class_names.txt"

_MASK_SUFFIX = ".png"
_ENDINGS = (".jpg", *sorted(SUFFIXES - {".jpg"}))

NEEDS = ("JPEGImages/*.<image>", "SegmentationObject/*.png|SegmentationClass/*.png")
"""What lies in such a directory, for the error where nothing is known; see `lora_sam.data.reading.unknown_layout`."""


@dataclass(frozen=True, kw_only=True)
class Voc(FormatOptions):
    """A directory in the layout of Pascal VOC: `JPEGImages`, `ImageSets/Segmentation`, `SegmentationObject`, ...

    Masks are palette or grey images by their indices, or colour images in VOC's palette; 0 is background, 255 belongs
    to nothing. Classes are those of VOC, or of `labelmap.txt` (CVAT, Datumaro). An annotation of an image in
    `Annotations` must state the size of the image.

    Attributes:
        root: Directory with `JPEGImages`, e.g. `VOCdevkit/VOC2012`; nothing outside it is read.
        train: Name of the training list, without `.txt`. Without any list, all images with a mask train.
        val: Name of the validation list; null, or a name without list, carves it out of train.
        test: Name of the test list; null, or a name without list, carves it out of train.
        instances: `objects`: those of `SegmentationObject`, each of the class that `SegmentationClass` has in most of
            its pixels; `classes`: every class of an image is one object; `components`: every connected component of a
            class is one; `auto`: `objects` if there is a directory `SegmentationObject`, else `classes`.
    """

    instances: Literal["auto", "objects", "classes", "components"]

    def open(self, seed: int) -> Splits:
        """Read and check all masks, annotations and image headers (and pixels, with `check=full`).

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: anything is missing, damaged or inconsistent; names the file and the remedy.
        """
        root = data_root(self.root, follow_links=self.follow_links)
        ledger = Ledger(self.on_error, self.max_skipped)
        devkit = _devkit(self, root)
        lists = inside(root, LISTS, "data.root")
        names = [name for name in (self.train, self.val, self.test) if name is not None]
        present = sorted(lists.glob("*.txt")) if lists.is_dir() else []
        known = any((lists / f"{name}.txt") in present for name in names)
        only = present[0] if len(present) == 1 and not known else None  # CVAT writes default.txt

        def read(split: str, notes: list[str]) -> LabelledImages | None:
            if not present or only is not None:
                if split != self.train:
                    return None
                notes.append(f"{split}: {_everything(devkit, root) if only is None else f'taken from {only.name}'}")
                identifiers = _all_ids(devkit) if only is None else _listed(only)
            else:
                file = inside(root, f"{LISTS}/{split}.txt", "data.root")
                if not file.exists():
                    return None
                identifiers = _listed(file)
            return _read_split(self, root, devkit, split, identifiers, ledger, notes)

        return read_splits(
            read,
            ledger,
            self,
            seed=seed,
            place=lambda split: str(lists / f"{split}.txt"),
        )


@dataclass(frozen=True)
class _Devkit:
    """What a directory has: the folders of masks that are used, and the classes."""

    images: Path
    objects: Path | None
    classes: Path | None
    annotations: Path
    table: ClassTable
    components: bool


@dataclass(frozen=True)
class VocMasks:
    """The masks of one image, and how to read them.

    Attributes:
        objects: Mask in `SegmentationObject`, or None to make objects out of classes.
        classes: Mask in `SegmentationClass`, or None where objects have no class.
        table: What its values or colours mean.
        components: Whether every connected component of a class is an object of its own; without `objects` only.
        min_area: Objects with fewer pixels are left out.
    """

    objects: Path | None
    classes: Path | None
    table: ClassTable = field(repr=False)
    components: bool
    min_area: int

    def read(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Bool [N, H, W] for an image of `size` = (H, W). Raises `DataError` as `label_map` does."""
        return self.mapped(size).masks()

    def mapped(self, size: tuple[int, int]) -> LabelMap:
        """See `lora_sam.data.reading.labelled.StoredAsMap`."""
        objects = self._class_objects(size) if self.objects is None else segmented_objects(self.objects, size)
        return objects.without_small(self.min_area)

    def ignored_pixels(self, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """The void of VOC, between objects and background, and objects that are too small, bool [H, W]."""
        objects = self._class_objects(size) if self.objects is None else segmented_objects(self.objects, size)
        path = self.objects or self.classes
        assert path is not None
        coloured = pixel_kind(path) == "colour"
        void = (colour_codes(path) if coloured else read_mask(path)) == (VOID_COLOUR if coloured else VOID)
        small = (objects.labels != 0) & (objects.without_small(self.min_area).labels == 0)
        neither: NDArray[np.bool_] = (void & (objects.labels == 0)) | small
        return neither if neither.any() else None

    def label_map(self, size: tuple[int, int]) -> LabelMap:
        """The objects with their classes, maybe none.

        Raises:
            DataError: a mask cannot be read, is a JPEG, has another size, an unknown class, or an object without one.
        """
        if self.objects is None:
            return self._class_objects(size).without_small(self.min_area)
        objects = segmented_objects(self.objects, size)
        if self.classes is not None and objects.names:
            objects = LabelMap(objects.labels, objects.names, self._classes_of(objects, self.classes, size))
        return objects.without_small(self.min_area)

    def _class_objects(self, size: tuple[int, int]) -> LabelMap:
        assert self.classes is not None
        objects = self.table.objects(self.classes, size)
        return objects.components() if self.components else objects

    def _classes_of(self, objects: LabelMap, path: Path, size: tuple[int, int]) -> tuple[str, ...]:
        """For each object the class that most of its pixels have, of two as frequent the first of the table."""
        numbers = self.table.read(path, size)
        columns = len(self.table.names) + 1
        counts = np.bincount((objects.labels.astype(np.int64) * columns + numbers).ravel())
        counts = np.resize(np.pad(counts, (0, -len(counts) % columns)), (-(-len(counts) // columns), columns))[1:, 1:]
        for name, row in zip(objects.names, counts, strict=True):
            if not row.any():
                raise DataError(
                    f"{path}: has no class for object {name} of {self.objects}; fill it there, or set "
                    "data.instances=classes."
                )
        return tuple(self.table.names[int(row.argmax())] for row in counts)


def segmented_objects(path: Path, size: tuple[int, int]) -> LabelMap:
    """The objects of a mask in `SegmentationObject`, named by their index in VOC's palette; maybe none.

    Raises:
        DataError: it cannot be read, is a JPEG, or has another size than (H, W) = `size`.
    """
    if is_jpeg(path):
        raise DataError(f"{path}: JPEG blurs the indices of objects; save masks as PNG.", "ambiguous_mask")
    check_size(path, size)
    coloured = pixel_kind(path) == "colour"
    values = colour_codes(path) if coloured else read_mask(path)
    stored = np.unique(values)
    stored = stored[(stored != 0) & (stored != (VOID_COLOUR if coloured else VOID))]
    if not coloured:
        return LabelMap(numbered(values, stored), tuple(str(int(value)) for value in stored))
    palette = {packed(voc_colour(index)): index for index in range(256)}
    indices = [palette.get(int(value)) for value in stored]
    names = [
        f"#{int(value):06x}" if index is None else str(index) for value, index in zip(stored, indices, strict=True)
    ]
    # in the order of the indices, as a palette image would have them
    order = sorted(range(len(names)), key=lambda row: (indices[row] is None, indices[row] or 0, row))
    places = np.zeros(len(names) + 1, np.int32)
    places[np.array(order, dtype=np.intp) + 1] = np.arange(1, len(names) + 1)
    return LabelMap(places[numbered(values, stored)], tuple(names[row] for row in order))


def _table(root: Path, label_map: Path) -> ClassTable:
    """The classes: those of CVAT's label map, of labelme2voc's list of names, or of Pascal VOC."""
    if label_map.exists():
        return read_label_lines(label_map)
    names = inside(root, CLASS_NAMES, "data.root")
    if not names.exists():
        return voc_table()
    entries = [(index, line.strip(), voc_colour(index)) for index, line in enumerate(read_lines(names)) if line.strip()]
    return class_table(entries, {index for index, name, _ in entries if name == "_background_"}, CLASS_NAMES)


def masks_folder(root: Path, name: str) -> str:
    """The folder of masks called `name`, or with `PNG` behind it, as older labelme2voc has it beside arrays."""
    older = root / f"{name}PNG"
    if older.is_dir() and not any((root / name).glob(f"*{_MASK_SUFFIX}")):
        return older.name
    return name


def _devkit(config: Voc, root: Path) -> _Devkit:
    images = inside(root, IMAGES, "data.root")
    if not images.is_dir():
        nested = sorted(path.parent for path in root.glob(f"*/{IMAGES}"))[:1]
        hint = f"set data.root={nested[0]}" if nested else "data.root must be the directory that has it"
        raise DataError(f"{images}: is not a folder, but Pascal VOC has its images there; {hint}.")
    objects, classes = (inside(root, masks_folder(root, name), "data.root") for name in (OBJECTS, CLASSES))
    by_objects = config.instances == "objects" or (config.instances == "auto" and objects.is_dir())
    for folder, needed in ((objects, by_objects), (classes, not by_objects)):
        if needed and not folder.is_dir():
            raise DataError(
                f"{folder}: is not a folder, so there are no masks (boxes alone cannot train them); add it, or "
                f"choose another data.instances than {config.instances}."
            )
    label_map = inside(root, LABEL_MAP, "data.root")
    return _Devkit(
        images,
        objects if by_objects else None,
        classes if classes.is_dir() else None,
        inside(root, ANNOTATIONS, "data.root"),
        _table(root, label_map),
        config.instances == "components",
    )


def _read_split(
    config: Voc, root: Path, devkit: _Devkit, split: str, identifiers: list[str], ledger: Ledger, notes: list[str]
) -> LabelledImages:
    twice = {name for name, count in Counter(identifiers).items() if count > 1}

    def read(identifier: str) -> tuple[LabelledImage, int]:
        if identifier in twice:
            raise DataError(
                f"{LISTS}/{split}.txt: {shown(identifier)} is listed twice; remove one of the lines.", "duplicate_id"
            )
        image = _image(devkit, root, identifier, split)
        objects, classes = (
            None if folder is None else inside(root, f"{identifier}{_MASK_SUFFIX}", _owner(split), base=folder)
            for folder in (devkit.objects, devkit.classes)
        )
        needed = objects or classes
        assert needed is not None
        if not needed.exists():
            raise DataError(
                f"{image}: has no mask {needed}; add it, or remove {shown(identifier)} from the list.",
                "image_without_label",
            )
        if objects is not None and classes is not None and not classes.exists():
            raise DataError(
                f"{image}: has no classes {classes}; add it, or remove the folder {devkit.classes}.",
                "image_without_label",
            )
        annotation = inside(root, f"{identifier}.xml", _owner(split), base=devkit.annotations)
        if annotation.exists():
            stated, size = declared_size(annotation), image_size(image)
            if stated is not None and stated != size:
                raise size_mismatch(str(image), size, f"according to {annotation.name}", stated)
        stored = VocMasks(objects, classes, devkit.table, devkit.components, config.min_area)
        return described(root, image, stored, needed, config.check)

    outcomes = attempt_all(read, identifiers)
    return gathered(outcomes, ledger, notes, place=split, min_area=config.min_area)


def _image(devkit: _Devkit, root: Path, identifier: str, split: str) -> Path:
    for ending in _ENDINGS:
        for written in (ending, ending.upper()):
            path = inside(root, f"{identifier}{written}", _owner(split), base=devkit.images)
            if path.exists():
                return path
    raise DataError(
        f"{devkit.images / identifier}.jpg: does not exist; restore it, or remove it from {_owner(split)}.",
        "missing_file",
    )


def _owner(split: str) -> str:
    return f"{LISTS}/{split}.txt"


def _listed(file: Path) -> list[str]:
    """The names in a list: one per line, maybe in quotation marks."""
    lines = (line.strip() for line in read_lines(file))
    return [line.strip('"') for line in lines if line and not line.startswith("#")]


def _all_ids(devkit: _Devkit) -> list[str]:
    masks = devkit.objects or devkit.classes
    assert masks is not None
    return sorted(path.stem for path in masks.glob(f"*{_MASK_SUFFIX}"))


def _everything(devkit: _Devkit, root: Path) -> str:
    masks = devkit.objects or devkit.classes
    assert masks is not None
    return f"there is no list in {LISTS}, so all images with a mask in {masks.relative_to(root)} are used"
