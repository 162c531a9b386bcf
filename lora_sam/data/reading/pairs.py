"""Images and label files in two folders, paired by their names without the ending."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from lora_sam.core.calling import data_words
from lora_sam.core.errors import DataError
from lora_sam.core.wording import plural
from lora_sam.data.noticed import Notes
from lora_sam.data.options import FormatOptions, SliceOptions
from lora_sam.data.reading.file_types import counted_types, unread_types
from lora_sam.data.reading.image_file import ImageFile
from lora_sam.data.reading.images import SUFFIXES, check_pixels, image_size
from lora_sam.data.reading.label_map import LabelMap
from lora_sam.data.reading.labelled import LabelledImage, LabelledImages, StoredMasks, check_mask_memory
from lora_sam.data.reading.nifti import NIFTI
from lora_sam.data.reading.pair_names import (
    by_name,
    names_in,
    pair_by_base_name,
    say_splits_in_names,
    told_apart,
    unread_siblings,
)
from lora_sam.data.reading.pair_slices import offering_slices, only, sliced
from lora_sam.data.reading.paths import data_root, inside, within, without_split
from lora_sam.data.reading.skipping import Ledger, attempt_all, left_out
from lora_sam.data.reading.split_reading import instead_of_split, read_splits
from lora_sam.data.reading.volumes import Slice, Slices
from lora_sam.data.splits import Splits, spellings


class StoredObjects(StoredMasks, Protocol):
    """A file of labels."""

    def label_map(self, size: tuple[int, int]) -> LabelMap:
        """The objects for an image of `size` = (H, W), maybe none. Raises `DataError`."""
        ...


class Reader(Protocol):
    """How a format reads the label files of a split."""

    def __call__(
        self, root: Path, images: Path, files: Sequence[ImageFile], notes: Notes
    ) -> Callable[[ImageFile], StoredObjects]:
        """What a label file is read with.

        Args:
            root: The data root.
            images: Folder of the split's images.
            files: The label files of the split's images; what they mean may be decided for all of them together.
            notes: Says what was decided.

        Raises:
            DataError: they mean two things, or nothing.
        """
        ...


@dataclass(frozen=True)
class Pairing:
    """Where pairs lie and how their labels are read.

    Attributes:
        images: Directory of a split's images, relative to the root; `{split}` stands for the split's name.
        labels: Directory of a split's label files, likewise.
        key: Name of the option that says where the label files are, without `data.`.
        what: What a label file is called in messages.
        suffixes: Lower-case endings of label files.
        suffix: What label files have behind the name of their image; None finds it out.
        slices: Which slices of volumes are used; None where volumes are refused.
    """

    images: str
    labels: str
    key: str
    what: str
    suffixes: frozenset[str] = SUFFIXES
    suffix: str | None = None
    slices: Slices | None = None


def open_pairs(config: FormatOptions, pairing: Pairing, reader: Reader, seed: int) -> Splits:
    """Read and check all pairs of all splits.

    If no split has a folder, but the folders without `{split}` are there, they are the training split.

    Args:
        config: Options of the format.
        pairing: Where the files are.
        reader: What a label file is read with.
        seed: Decides which training images become an absent split.

    Raises:
        DataError: anything is missing, damaged or inconsistent; names the file and the remedy.
    """
    root = data_root(config.root, follow_links=config.follow_links)
    ledger = Ledger(config.on_error, config.max_skipped)
    images, labels = pairing.images, pairing.labels
    given = [name for name in (config.train, config.val, config.test) if name is not None]
    names = [spelling for name in given for spelling in spellings(name)]
    absent = not any(inside(root, within(images, name), "data.images").exists() for name in names)
    if absent and "{split}" in images and inside(root, without_split(images), "data.images").is_dir():
        images, labels = without_split(images), without_split(labels)
    single = "{split}" not in images

    def read(split: str, notes: Notes) -> LabelledImages | None:
        folder = inside(root, within(images, split), "data.images")
        if not folder.exists():
            return None
        parted = [name for name in names if single and (folder / name).is_dir()]
        if len(parted) > 1:
            notes.found(
                "unused_split",
                f"{folder}: its folders {' and '.join(parted)} are read as one set, and parted anew; they are read as "
                f"splits with {data_words(**{'images': images + '/{split}', pairing.key: labels + '/{split}'})}",
            )
        other = inside(root, within(labels, split), f"data.{pairing.key}")
        without = instead_of_split(config, split)
        for place, what, key in ((folder, "images", "images"), (other, f"{pairing.what}s", pairing.key)):
            if not place.is_dir():
                raise DataError(f"{place}: is not a folder; put the {what} there, or correct data.{key}{without}.")
        found = _read_pairs(config, pairing, root, folder, other, reader, ledger, notes, without)
        if single and config.test is not None:
            say_splits_in_names(folder, found.ids, notes)
        return found

    return read_splits(
        read,
        ledger,
        config,
        seed=seed,
        single=single,
        place=lambda split: str(root / within(images, split)),
    )


def gathered(
    outcomes: Iterable[tuple[LabelledImage, int] | DataError],
    ledger: Ledger,
    notes: Notes,
    *,
    place: str,
    min_area: int,
) -> LabelledImages:
    """The images that have objects, out of (image, number of too small objects) or the error of each.

    Args:
        outcomes: In order.
        ledger: Counts images, objects and errors.
        notes: Says what was left out on purpose.
        place: The split or its folder, for the notes.
        min_area: The area below which objects were left out.

    Raises:
        DataError: one of them, where nothing may be skipped.
    """
    found: list[LabelledImage] = []
    too_small = unlabelled = 0
    for outcome in outcomes:
        ledger.saw(images=1)
        if isinstance(outcome, DataError):
            ledger.skip_image(outcome)
            continue
        image, small = outcome
        ledger.saw(objects=len(image.object_ids))
        too_small += small
        if image.object_ids:
            found.append(image)
        elif small:
            notes.found(
                "small_objects", f"{image.id} was left out: all its objects are smaller than data.min_area={min_area}"
            )
        else:
            unlabelled += 1
            left_out(DataError(f"{image.id}: its labels have no object, so it is not used.", "unlabelled_image"))
    if too_small:
        notes.found(
            "small_objects", f"{place}: {too_small} objects smaller than data.min_area={min_area} pixels were left out"
        )
    if unlabelled:  # the check has each
        notes.append(f"{place}: {unlabelled} images without an object were left out")
    return LabelledImages(tuple(found))


def described(
    root: Path, image: ImageFile, stored: StoredObjects, owner: ImageFile, check: Literal["full", "header"]
) -> tuple[LabelledImage, int]:
    """One image with its objects, and how many of them were too small.

    Raises:
        DataError: the image or its labels cannot be read, or do not belong together.
    """
    size = image_size(image)
    objects = stored.label_map(size)
    check_mask_memory(str(owner), len(objects.names), size)
    if check == "full":
        check_pixels(image)
    place = image.path / f"{image.index:04d}" if isinstance(image, Slice) else Path(str(image))
    identifier = place.relative_to(root).as_posix()
    volume = image.path.relative_to(root).as_posix() if isinstance(image, Slice) else None
    labelled = LabelledImage(identifier, image, size, objects.names, stored, objects.classes, volume)
    return labelled, objects.too_small


def _read_pairs(
    config: FormatOptions,
    pairing: Pairing,
    root: Path,
    images: Path,
    labels: Path,
    reader: Reader,
    ledger: Ledger,
    notes: Notes,
    or_none: str,
) -> LabelledImages:
    what = pairing.what
    more = NIFTI if pairing.slices is not None else frozenset()
    image_files = by_name(images, SUFFIXES | more, notes)
    label_files = by_name(labels, pairing.suffixes | more, notes)
    told_apart(
        image_files,
        label_files,
        images,
        labels,
        suffix=pairing.suffix,
        key=pairing.key,
        what=what,
        notes=notes,
    )
    names = [spelled for name in (config.train, config.val, config.test) if name for spelled in spellings(name)]
    places = (root / within(place, name) for place in (pairing.images, pairing.labels) for name in names)
    read = [*places, *(images.parent / name for name in names)]
    if labels.resolve() != root.resolve():  # what lies beside the root is no part of the data
        unread_siblings(images, labels, read, pairing.key, what, notes)
    pair_by_base_name(image_files, label_files)
    unlabelled = sorted(image_files.keys() - label_files.keys())
    unread = [] if image_files else names_in(images)
    if unread:
        raise DataError(
            f"{images}: has no image that can be read; there are {counted_types(unread)}.{unread_types(unread)}"
        )
    if unlabelled and not label_files:
        raise DataError(
            f"{labels}: has no {what}s for the images in {images}; put them there, or correct data.{pairing.key}"
            f"{or_none}."
        )
    if unlabelled and len(unlabelled) == len(image_files):
        one, other = image_files[unlabelled[0]][0], min(label_files.values())[0]
        raise DataError(
            f"{labels}: no {what} has the name of an image of {images}: there are {one.name}, ... and {other.name}, ..."
            f"; give a {what} the name of its image, but for the ending."
        )
    for name in unlabelled:
        for image in image_files.pop(name):
            left_out(
                DataError(
                    f"{image}: has no {what} {labels / name}.(png, tif, ...), so it is not used.", "unlabelled_image"
                )
            )
    if unlabelled:
        were = "was" if len(unlabelled) == 1 else "were"
        count = plural(len(unlabelled), "image")
        notes.append(f"{images}: {count} without a {what} {were} left out, e.g. {unlabelled[0]}")
    images_of: Mapping[str, Sequence[ImageFile]] = image_files
    labels_of: Mapping[str, Sequence[ImageFile]] = label_files
    if pairing.slices is not None:
        images_of, labels_of = sliced(image_files, label_files, pairing.slices, root, what)
    paired = [files[0] for name, files in sorted(labels_of.items()) if name in images_of]
    offered = isinstance(config, SliceOptions) and pairing.slices is None
    with offering_slices(offered):
        try:
            store = reader(root, images, paired, notes)
        except DataError:
            for name in sorted(image_files)[:1] if pairing.slices is None else ():
                image_size(image_files[name][0])  # an image that is no image says more than what its labels seem to be
            raise

    def pair(name: str) -> tuple[LabelledImage, int]:
        image, file = (only(files.get(name, []), root) for files in (images_of, labels_of))
        assert image is not None or file is not None
        if image is None or file is None:
            raise DataError(
                f"{file}: has no image {images / name}.(png, jpg, ...); add it, or remove the {what}.",
                "label_without_image",
            )
        with offering_slices(offered, image):
            return described(root, image, store(file), file, config.check)

    outcomes = attempt_all(pair, sorted(images_of.keys() | labels_of.keys()))
    return gathered(outcomes, ledger, notes, place=str(images), min_area=config.min_area)
