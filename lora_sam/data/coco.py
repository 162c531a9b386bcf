"""Instance labels in COCO's JSON format (https://cocodataset.org/#format-data)."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lora_sam.core.errors import DataError
from lora_sam.core.wording import plural
from lora_sam.data.noticed import LeftOut, Notes
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.annotation_files import check_box, identifier_of, parsed_json, without_collecting
from lora_sam.data.reading.coco_dialects import segmentation_of
from lora_sam.data.reading.coco_frames import USUAL as USUAL_FRAME
from lora_sam.data.reading.coco_frames import Frame, frame_of
from lora_sam.data.reading.coco_images import CocoImage, categories_of, read_images
from lora_sam.data.reading.coco_layouts import USUAL, CocoLayout, find_layout
from lora_sam.data.reading.coco_masks import EncodedMasks, Rings, encode
from lora_sam.data.reading.datumaro_objects import BACKGROUND, of_background
from lora_sam.data.reading.image_finder import ImageFinder
from lora_sam.data.reading.images import check_pixels, image_size
from lora_sam.data.reading.labelled import LabelledImage, LabelledImages, check_mask_memory, size_mismatch
from lora_sam.data.reading.paths import data_root, inside, shown, within
from lora_sam.data.reading.skipping import Ledger, attempt_all
from lora_sam.data.reading.split_reading import read_splits
from lora_sam.data.splits import Splits

_NO_CROWDS = "crowd annotations (iscrowd) are not objects; data.crowd=objects takes them for some"
_IGNORED = "annotations that are marked to be ignored are not objects"
_CROWDS = "masks marked as crowds (iscrowd) are taken for objects; data.crowd=ignore leaves them out"
_MOST_CROWDS = 0.2  # COCO itself has 1.2 %

NEEDS = ("*.<image>", '*.json with "annotations"')
"""What lies in such a directory, for the error where nothing is known; see `lora_sam.data.reading.unknown_layout`."""


@dataclass(frozen=True, kw_only=True)
class Coco(FormatOptions):
    """Images and COCO instance annotations: polygons, uncompressed or compressed RLE.

    Everything is checked when the data is opened; masks and pixels are decoded later, one image at a time. Images
    without objects are left out. Where the file lists categories, their names are the classes of the objects. Outlines
    that fit their boxes in another order or scale of coordinates only are read in that, with a note.

    Attributes:
        images: Directory of a split's images, relative to `root`; `{split}` stands for the split's name. Null looks
            where tools put them: `images/{split}`, `{split}2017`, beside the annotations, ...
        annotations: Annotation file of a split, relative to `root`; `{split}` stands for the split's name. Without
            `{split}` it is one set, out of which val and test are carved. Null looks where tools put it:
            `annotations/instances_{split}.json`, `{split}/_annotations.coco.json`, `{split}.json`, a single file, ...
        crowd: What annotations with `iscrowd` are: `objects`, or `ignore` for none; `auto` takes them for objects where
            a tool sets the mark for every mask that is stored as RLE, as CVAT and Datumaro do.
        rings: What several polygons of an annotation make together: `union`, or `even_odd`, where one inside another is
            a hole; `auto` decides by the stated area.
    """

    images: str | None
    annotations: str | None
    crowd: Literal["auto", "objects", "ignore"]
    rings: Rings

    def open(self, seed: int) -> Splits:
        """Read and check all annotations and image headers (and pixels, with `check=full`).

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: anything is missing, damaged or inconsistent; names the file, the annotation and the remedy.
        """
        root = data_root(self.root, follow_links=self.follow_links)
        ledger = Ledger(self.on_error, self.max_skipped)
        layout = self.layout(root)
        single = "{split}" not in layout.annotations

        def read(split: str, notes: Notes) -> LabelledImages | None:
            file = inside(root, within(layout.annotations, split), "data.annotations")
            if not file.exists():
                return None
            with without_collecting():
                return _read_split(self, layout, root, file, split, ledger, notes)

        splits = read_splits(
            read,
            ledger,
            self,
            seed=seed,
            single=single,
            place=lambda split: str(root / within(layout.annotations, split)),
        )
        elsewhere = [
            f"{what} are read from {found}"
            for what, given, found, usual in (
                ("annotations", self.annotations, layout.annotations, USUAL.annotations),
                ("images", self.images, layout.images, USUAL.images),
            )
            if given is None and found != usual
        ]
        return replace(splits, notes=(*elsewhere, *splits.notes)) if elsewhere else splits

    def layout(self, root: Path) -> CocoLayout:
        """Where annotations and images are: as configured, or found under `root` (as returned by `data_root`)."""
        if self.images is not None and self.annotations is not None:
            return CocoLayout(self.annotations, self.images, found=True)
        layout = find_layout(root, self.train, self.annotations)
        return layout if self.images is None else replace(layout, images=self.images)


def _read_split(
    config: Coco, layout: CocoLayout, root: Path, file: Path, split: str, ledger: Ledger, notes: Notes
) -> LabelledImages:
    folder = inside(root, within(layout.images, split), "data.images")
    if not folder.is_dir():
        raise DataError(f"{folder}: the images of {file.name} are not there; correct data.images or data.root.")
    content = parsed_json(file, ("images", "annotations"), "COCO instances")
    finder = ImageFinder(root)
    images = read_images(content["images"], root, folder, file, ledger, finder)
    if finder.searched:
        notes.append(f"{split}: {finder.searched} images were found by their name alone: {file.name} has other paths")
    entries = content["annotations"]
    if entries and all(isinstance(entry, dict) and "segments_info" in entry for entry in entries):
        raise DataError(
            f"{file}: is COCO panoptic, whose masks are in PNG files, and is not read; make COCO instances of it with "
            "panopticapi: python converters/panoptic2detection_coco_format.py",
            "bad_annotation",
        )
    if content["images"] and not entries:
        raise DataError(
            f"{file}: lists {plural(len(content['images']), 'image')} and no annotation; label some, or export masks: "
            "Label Studio leaves those of a brush out of COCO, and has them in JSON.",
            "bad_annotation",
        )
    categories = categories_of(content.get("categories"), file)
    sizes = {identifier: image.size for identifier, image in images.items() if image is not None}
    frame = frame_of(content["annotations"], sizes, file)
    crowds = _crowds(content["annotations"], config.crowd)
    annotations = content["annotations"]
    left_out = _attach_annotations(annotations, images, categories, file, config, frame, crowds, ledger)
    del content, annotations
    frame.tell(split, notes)
    left = left_out["crowds_left_out", _NO_CROWDS]
    if left and not any(image is not None and image.ids for image in images.values()):
        raise DataError(
            f"{file}: all {left} annotations have iscrowd=1 and are left out; set data.crowd=objects "
            "to take each for an object."
        )
    notes.counted(split, left_out)
    unlabelled = sum(image is not None and not image.ids for image in images.values())
    if unlabelled:  # the check has each
        notes.append(f"{split}: {unlabelled} images without an object were left out")
    labelled = [image for image in images.values() if image is not None and image.ids]

    def check(image: CocoImage) -> None:
        size = image_size(image.path)
        if size != image.size:
            raise size_mismatch(str(image.path), size, f"according to {file.name}", image.size)
        check_mask_memory(str(image.path), len(image.ids), size)
        if config.check == "full":
            check_pixels(image.path)

    good = []
    for image, outcome in zip(labelled, attempt_all(check, labelled), strict=True):
        ledger.saw(images=1)
        if isinstance(outcome, DataError):
            ledger.skip_image(outcome, objects=len(image.ids))
        else:
            masks = EncodedMasks(tuple(image.counts), tuple(image.left_out))
            ids, classes = tuple(image.ids), tuple(image.classes)
            good.append(LabelledImage(image.name, image.path, image.size, ids, masks, classes))
    return LabelledImages(tuple(good))


def _crowds(entries: list[Any], crowd: Literal["auto", "objects", "ignore"]) -> bool:
    """Whether annotations with `iscrowd` are objects: where the user says so, where too many are for crowds, or where
    they have the `attributes` that CVAT and Datumaro write, which set the mark for every mask stored as RLE."""
    if crowd != "auto":
        return crowd == "objects"
    marked = [entry for entry in entries if isinstance(entry, dict) and entry.get("iscrowd") in (1, "1")]
    written = sum(isinstance(entry.get("attributes"), dict) for entry in marked)
    return bool(marked) and (len(marked) > _MOST_CROWDS * len(entries) or written == len(marked))


def _attach_annotations(
    entries: list[Any],
    images: dict[str, CocoImage | None],
    categories: dict[str, str],
    file: Path,
    config: Coco,
    frame: Frame,
    crowds: bool,
    ledger: Ledger,
) -> LeftOut:
    """Give every annotation to its image, and empty the list; returns how many were left out on purpose, by reason."""
    left_out: LeftOut = Counter()
    course = frame.course
    seen: set[tuple[str | None, str]] = set()
    owners: dict[str, str | None] = {}
    for position, entry in enumerate(entries):
        entries[position] = None  # its polygons take many times the memory of the encoded mask
        identifier = identifier_of(entry, "id")
        owner = f"{file}: annotation {identifier or f'number {position} in the list'}"
        if isinstance(entry, dict) and entry.get("iscrowd") in (1, "1"):
            if not crowds:
                left_out["crowds_left_out", _NO_CROWDS] += 1
                _ignore(entry, images, frame, config)
                continue
            left_out["crowds_as_objects", _CROWDS] += 1
        if isinstance(entry, dict) and entry.get("ignore") in (1, "1"):
            left_out["crowds_left_out", _IGNORED] += 1
            _ignore(entry, images, frame, config)
            continue
        category = categories.get(identifier_of(entry, "category_id") or "")
        if category is not None and category.casefold() == BACKGROUND:
            left_out["background_class", of_background(category)] += 1
            continue
        ledger.saw(objects=1)
        try:
            image_id = identifier_of(entry, "image_id")
            if identifier is None:
                if not isinstance(entry, dict) or entry.get("id") is not None:
                    raise DataError(
                        f'{owner} has no "id" that is a whole number or a string; give it one.', "bad_annotation"
                    )
                identifier = f"#{position + 1}"
                left_out["odd_ids", "annotations have no id; they are named by their place in the file"] += 1
            if (image_id, identifier) in seen:
                raise DataError(
                    f"{owner} is listed twice for one image; remove one entry, or number them anew.", "duplicate_id"
                )
            seen.add((image_id, identifier))
            if owners.setdefault(identifier, image_id) != image_id:
                left_out[
                    "odd_ids", "annotations have ids that another image has too; they are told apart by their images"
                ] += 1
            if image_id not in images:
                wanted = shown(entry.get("image_id"))
                raise DataError(
                    f"{owner} belongs to image {wanted}, which is not listed; add the image or remove it.",
                    "label_without_image",
                )
            image = images[image_id]
            if image is None:
                ledger.lost_object()
                continue
            check_box(entry.get("bbox"), image.size, owner)
            try:
                segmentation = segmentation_of(entry)
                if frame is not USUAL_FRAME:
                    segmentation = frame.applied(segmentation, image.size)
                counts, area = encode(segmentation, image.size, config.rings, entry.get("area"), course)
            except DataError as error:
                raise DataError(f"{owner} (image {image.name}) {error}.", error.kind) from error
        except DataError as error:
            ledger.skip_object(error)
            continue
        if area < config.min_area:
            left_out["small_objects", f"objects smaller than data.min_area={config.min_area} pixels were left out"] += 1
            image.left_out.append(counts)
            continue
        image.ids.append(identifier)
        image.counts.append(counts)
        if categories:
            name = category
            if name is None:
                name = f"category {shown(entry.get('category_id'))}"
                left_out[None, "objects are of a category that the file does not list"] += 1
            image.classes.append(name)
    return left_out


def _ignore(entry: dict[str, Any], images: dict[str, CocoImage | None], frame: Frame, config: Coco) -> None:
    """Note where a crowd is: neither object nor background. One that cannot be drawn is nowhere, as before."""
    image = images.get(identifier_of(entry, "image_id") or "")
    if image is None:
        return
    with suppress(DataError):
        segmentation = frame.applied(segmentation_of(entry), image.size)
        counts, _ = encode(segmentation, image.size, config.rings, entry.get("area"), frame.course)
        image.left_out.append(counts)
