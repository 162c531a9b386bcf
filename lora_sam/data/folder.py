"""Labels as a folder of images and a folder of masks with the same file names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lora_sam.data.images import SUFFIXES, image_size, read_image
from lora_sam.data.labelled import LabelledImage, LabelledImages, check_mask_memory
from lora_sam.data.mask_files import MaskFile, MaskRules
from lora_sam.data.paths import data_root, inside, within
from lora_sam.data.skipping import Ledger, attempt_all
from lora_sam.data.splits import Splits, read_splits
from lora_sam.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Images and masks paired by file name without its ending.

    A mask with one value beside 0 (0/1, 0/255) is binary, one with more values is a label image. Everything is checked
    when the data is opened. If no split has a folder, but the folders without `{split}` are there, they are the
    training split.

    Attributes:
        root: Directory of the data set; nothing outside it is read.
        images: Directory of a split's images, relative to `root`; `{split}` stands for the split's name.
        masks: Directory of a split's masks, relative to `root`; `{split}` stands for the split's name.
        train: Name of the training split.
        val: Name of the validation split; null, or a name without folder, carves it out of train.
        test: Name of the test split; null, or a name without folder, carves it out of train.
        val_fraction: Share of the training images that becomes an absent val split.
        test_fraction: Share of the training images that becomes an absent test split.
        mask_values: `binary`: any object or none; `labels`: every value but 0 is an object; `auto`: by the number of
            values in the file, and JPEG is binary.
        instances: `whole`: all that is not background is one object; `components`: every connected component (of a
            binary mask, or of each label) is one; `auto`: a binary mask is one object, every label is one object.
        threshold: Foreground of a binary mask with more than two values (JPEG, soft edges) is at or above this.
        on_error: `raise` stops at the first bad image or mask, `skip` leaves the pair out and lists it.
        max_skipped: Share of images or of objects that `skip` may leave out before it stops.
        min_area: Objects with fewer pixels are left out.
        max_objects_per_image: Training uses at most this many objects of an image per step; null for all.
        check: `full` also decodes every image once, which finds truncated files before training; `header` trusts them.
            Masks are always decoded, to know their objects.
    """

    root: str
    images: str
    masks: str
    train: str
    val: str | None
    test: str | None
    val_fraction: Annotated[float, Field(gt=0, lt=1)]
    test_fraction: Annotated[float, Field(gt=0, lt=1)]
    mask_values: Literal["auto", "binary", "labels"]
    instances: Literal["auto", "whole", "components"]
    threshold: Annotated[int, Field(ge=1, le=65535)]
    on_error: Literal["raise", "skip"]
    max_skipped: Annotated[float, Field(ge=0, le=1)]
    min_area: Annotated[int, Field(ge=1)]
    max_objects_per_image: Annotated[int, Field(ge=1)] | None
    check: Literal["full", "header"]

    def open(self, seed: int) -> Splits:
        """Read and check all masks and image headers (and pixels, with `check=full`).

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: anything is missing, damaged or inconsistent; names the file and the remedy.
        """
        root = data_root(self.root)
        ledger = Ledger(self.on_error, self.max_skipped)
        names = [name for name in (self.train, self.val, self.test) if name is not None]
        absent = not any(inside(root, within(self.images, name), "data.images").exists() for name in names)
        if absent and "{split}" in self.images and inside(root, _flat(self.images), "data.images").is_dir():
            images, masks = _flat(self.images), _flat(self.masks)
        else:
            images, masks = self.images, self.masks
        single = "{split}" not in images

        def read(split: str, notes: list[str]) -> LabelledImages | None:
            folder = inside(root, within(images, split), "data.images")
            if not folder.exists():
                return None
            return _read_split(self, root, folder, inside(root, within(masks, split), "data.masks"), ledger, notes)

        return read_splits(
            read,
            ledger,
            train=self.train,
            val=None if single else self.val,
            test=None if single else self.test,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            seed=seed,
            place=lambda split: str(root / within(images, split)),
        )


def _flat(template: str) -> str:
    """The template of a data set without splits: `{split}/images` and `images/{split}` both become `images`."""
    return "/".join(part for part in template.split("/") if part != "{split}")


def _read_split(
    config: Folder, root: Path, images: Path, masks: Path, ledger: Ledger, notes: list[str]
) -> LabelledImages:
    for folder, key in ((images, "images"), (masks, "masks")):
        if not folder.is_dir():
            raise DataError(f"{folder}: is not a folder; put the {key} there, or correct data.{key}.")
    image_files, mask_files = _by_stem(images, notes), _by_stem(masks, notes)
    rules = MaskRules(config.mask_values, config.instances, config.threshold, config.min_area)

    def pair(stem: str) -> tuple[LabelledImage, int]:
        image, mask = (_only(files.get(stem, []), root) for files in (image_files, mask_files))
        if mask is None:
            raise DataError(f"{image}: has no mask {masks / stem}.(png, tif, ...); add it, or remove the image.")
        if image is None:
            raise DataError(f"{mask}: has no image {images / stem}.(png, jpg, ...); add it, or remove the mask.")
        size = image_size(image)
        stored = MaskFile(mask, rules)
        _, names, small = stored.objects(size)
        check_mask_memory(str(mask), len(names), size)
        if config.check == "full":
            read_image(image)
        return LabelledImage(image.relative_to(root).as_posix(), image, size, names, stored), small

    found: list[LabelledImage] = []
    too_small = 0
    for outcome in attempt_all(pair, sorted(image_files.keys() | mask_files.keys())):
        ledger.saw(images=1)
        if isinstance(outcome, DataError):
            ledger.skip_image(outcome)
            continue
        image, small = outcome
        ledger.saw(objects=len(image.object_ids))
        too_small += small
        if image.object_ids:
            found.append(image)
        else:
            notes.append(f"{image.id} was left out: all its objects are smaller than data.min_area={config.min_area}")
    if too_small:
        notes.append(f"{images}: {too_small} objects smaller than data.min_area={config.min_area} pixels were left out")
    return LabelledImages(tuple(found))


def _by_stem(folder: Path, notes: list[str]) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    others = []
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); correct its permissions.") from error
    for path in entries:
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            files.setdefault(path.stem, []).append(path)
        elif not path.name.startswith("."):
            others.append(path.name)
    if others:
        notes.append(f"{folder}: {len(others)} entries that are not images were not read, e.g. {others[0]}")
    return files


def _only(paths: list[Path], root: Path) -> Path | None:
    if not paths:
        return None
    if len(paths) > 1:
        names = " and ".join(path.name for path in paths)
        raise DataError(f"{paths[0].parent}: {names} have the same name but for the ending; keep one of them.")
    return inside(root, paths[0].relative_to(root).as_posix(), str(paths[0]))
