"""Pascal VOC: segmented objects and classes as palette images, split by lists (VOC2012 devkit, section 3)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lora_sam.core.calling import data_words
from lora_sam.core.errors import DataError
from lora_sam.data.noticed import Notes
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.annotation_files import read_lines
from lora_sam.data.reading.class_table import (
    ClassTable,
    class_table,
    read_label_lines,
    voc_colour,
    voc_table,
)
from lora_sam.data.reading.images import SUFFIXES, image_size
from lora_sam.data.reading.labelled import LabelledImage, LabelledImages, size_mismatch
from lora_sam.data.reading.pairs import described, gathered
from lora_sam.data.reading.paths import data_root, files_in, inside, shown
from lora_sam.data.reading.skipping import Ledger, attempt_all
from lora_sam.data.reading.split_reading import read_splits
from lora_sam.data.reading.voc_masks import VocMasks
from lora_sam.data.reading.voc_xml import declared_size
from lora_sam.data.splits import Splits

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
        val: Name of the validation list; a name without list carves it out of train, or takes all of train where images
            are few (`few_images`); null always carves it.
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
        present = files_in(lists, ".txt")
        known = any((lists / f"{name}.txt") in present for name in names)
        only = present[0] if len(present) == 1 and not known else None  # CVAT writes default.txt

        def read(split: str, notes: Notes) -> LabelledImages | None:
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
        hint = f"set {data_words(root=nested[0])}" if nested else "data.root must be the directory that has it"
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
    config: Voc, root: Path, devkit: _Devkit, split: str, identifiers: list[str], ledger: Ledger, notes: Notes
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
    return [path.stem for path in files_in(masks, _MASK_SUFFIX)]


def _everything(devkit: _Devkit, root: Path) -> str:
    masks = devkit.objects or devkit.classes
    assert masks is not None
    return f"there is no list in {LISTS}, so all images with a mask in {masks.relative_to(root)} are used"
