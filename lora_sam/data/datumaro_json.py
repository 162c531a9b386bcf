"""Labels in Datumaro's own JSON format (https://open-edge-platform.github.io/datumaro, formats, Datumaro)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_sam.core.errors import DataError
from lora_sam.data.noticed import LeftOut, Notes
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.annotation_files import identifier_of, parsed_json, whole, without_collecting
from lora_sam.data.reading.datumaro_objects import checked, labels_of, read_objects
from lora_sam.data.reading.image_file import MAX_PIXELS
from lora_sam.data.reading.images import image_size
from lora_sam.data.reading.labelled import LabelledImage, LabelledImages
from lora_sam.data.reading.paths import data_root, inside, shown
from lora_sam.data.reading.skipping import Ledger
from lora_sam.data.reading.split_reading import read_splits
from lora_sam.data.splits import Splits

IMAGES, ANNOTATIONS = "images", "annotations"
DEFAULT_SUBSET = "default"
"""The split that Datumaro and CVAT write for data without splits."""

_IMAGE_ENDING = ".jpg"  # of an item that names no file

NEEDS = ("*.<image>", 'annotations/*.json with "items"')
"""What lies in such a directory, for the error where nothing is known; see `lora_sam.data.reading.unknown_layout`."""


@dataclass(frozen=True, kw_only=True)
class DatumaroJson(FormatOptions):
    """`annotations/{split}.json` with masks, polygons or ellipses, and images in `images/{split}` or `images`.

    Masks, polygons and ellipses of one label with the same group other than 0 are one object. Annotations with
    `is_crowd`, the class `background` and boxes without a mask are no objects; they are counted, and images without
    objects are left out. Everything is checked when the data is opened. Without a split `train`,
    `annotations/default.json` is the training split.
    """

    def open(self, seed: int) -> Splits:
        """Read and check all annotations and image headers (and pixels, with `check=full`).

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: anything is missing, damaged or inconsistent; names the file, the item and the remedy.
        """
        root = data_root(self.root, follow_links=self.follow_links)
        ledger = Ledger(self.on_error, self.max_skipped)

        def file_of(split: str) -> Path:
            return inside(root, f"{ANNOTATIONS}/{split}.json", "data.train, data.val or data.test")

        def read(split: str, notes: Notes) -> LabelledImages | None:
            file = file_of(split)
            if split == self.train and not file.exists() and file_of(DEFAULT_SUBSET).exists():
                file = file_of(DEFAULT_SUBSET)
                notes.append(f"{split}: taken from {file.name}")
            if not file.exists():
                return None
            with without_collecting():
                return _read_split(self, root, file, ledger, notes)

        return read_splits(
            read,
            ledger,
            self,
            seed=seed,
            place=lambda split: str(file_of(split)),
        )


def _read_split(config: DatumaroJson, root: Path, file: Path, ledger: Ledger, notes: Notes) -> LabelledImages:
    content = parsed_json(file, ("items",), "Datumaro's JSON")
    labels = labels_of(content.get("categories"), str(file))
    left_out: LeftOut = Counter()
    images: list[LabelledImage] = []
    items: set[str] = set()
    names: set[str] = set()
    for position, entry in enumerate(content["items"]):
        name = identifier_of(entry, "id")
        owner = f"{file}: item {name or f'number {position} in the list'}"
        ledger.saw(images=1)
        try:
            if name is None:
                raise DataError(f'{owner} has no "id" that is a string; give it one.', "bad_annotation")
            if name in items:
                raise DataError(f"{owner} is listed twice; ids must be unique: remove one entry.", "duplicate_id")
            items.add(name)
            path, size = _image(entry, name, root, file.stem, owner)
            relative = path.relative_to(root).as_posix()
            if relative in names:
                raise DataError(f"{owner}: {relative} is the image of another item too; merge the two.", "duplicate_id")
            objects = read_objects(
                entry.get("annotations"),
                size,
                labels,
                owner,
                min_area=config.min_area,
                ledger=ledger,
                left_out=left_out,
            )
        except DataError as error:
            ledger.skip_image(error)
            continue
        names.add(relative)
        if objects.ids:
            images.append(LabelledImage(relative, path, size, objects.ids, objects.masks, objects.classes))
        else:
            left_out["unlabelled_image", "images without an object were left out"] += 1
    notes.counted(file.stem, left_out)
    return checked(images, config.check, file.name, ledger)


def _image(entry: dict[str, Any], name: str, root: Path, split: str, owner: str) -> tuple[Path, tuple[int, int]]:
    """The image of an item, and its (height, width) as the item or the file states it."""
    image = entry.get("image")
    if not isinstance(image, dict):
        raise DataError(
            f"{owner} has no image; only items with an image are read (no video, no point cloud).",
            "label_without_image",
        )
    relative = image.get("path") or f"{name}{_IMAGE_ENDING}"
    if not isinstance(relative, str):
        raise DataError(
            f"{owner} has the image {shown(relative)}; it takes a path relative to {IMAGES}/{split}.", "bad_annotation"
        )
    path = inside(root, relative, owner, base=root / IMAGES / split)
    if not path.exists():
        beside = inside(root, relative, owner, base=root / IMAGES)  # as earlier versions of Datumaro wrote it
        path = beside if beside.exists() else path
    if image.get("size") is None:
        return path, image_size(path)
    sides = image["size"]
    numbers = [whole(side) for side in sides] if isinstance(sides, list) and len(sides) == 2 else []
    if len(numbers) != 2 or numbers[0] is None or numbers[1] is None or numbers[0] * numbers[1] > MAX_PIXELS:
        raise DataError(
            f"{owner} has the size {shown(sides)}; it takes [height, width], at most {MAX_PIXELS} in all.",
            "bad_annotation",
        )
    return path, (numbers[0], numbers[1])
