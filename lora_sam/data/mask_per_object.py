"""Labels as one mask file for each object: Data Science Bowl 2018, Label Studio's brush, and many scripts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lora_sam.core.errors import DataError
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.annotation_files import read_lines
from lora_sam.data.reading.images import SUFFIXES, image_size
from lora_sam.data.reading.labelled import check_size
from lora_sam.data.reading.mask_values import read_mask
from lora_sam.data.reading.outline import Outline, encode_mask
from lora_sam.data.reading.outlined import Picture, open_pictures, split_in
from lora_sam.data.reading.paths import data_root, inside, shown
from lora_sam.data.reading.tool_files import files_below
from lora_sam.data.splits import Splits

_IMAGES, _MASKS = ("images", "imgs", "image", "img"), ("masks", "mask", "labels", "annotations")
_SEPARATORS = "_-. "
_TASK = re.compile(r"task-(\d+)-annotation-\d+-by-.*?-tag-(.*)-\d+", re.IGNORECASE)
_NUMBER = re.compile(r"(\d+)$")
_TABLE = "instance_mask_annotations.csv"


@dataclass(frozen=True, kw_only=True)
class MaskPerObject(FormatOptions):
    """Every mask file is one object of the image that it is named after.

    Masks lie in `<image>/masks/` beside `<image>/images/`, in `masks/<image>/`, in `masks/<class>/` under the name of
    their image, or in `masks/` under names that begin with it, such as `<image>_1.png`. Label Studio's
    `task-7-annotation-...` belongs to the image whose name ends in 7, where all tasks and all images fit each other so.
    Folders called train, val or test are splits. V7's `instance_mask_annotations.csv` beside `masks/` has the classes.
    """

    def open(self, seed: int) -> Splits:
        """Read and check all masks and image headers (and pixels, with `check=full`).

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: anything is missing, damaged or inconsistent; names the file and the remedy.
        """
        root = data_root(self.root, follow_links=self.follow_links)
        found = _masks_of(root)
        if not found:
            raise DataError(f"{root}: has no masks that are named after images; docs/data.md shows the layouts.")
        return open_pictures(self, root, _pictures(root, found), seed=seed, what="the mask files")


LAYOUT = "one mask file for each object, in masks/ beside images/"
NEEDS = ("images/*.<image>", "masks/*.<image>")
"""What lies in such a directory, for the error where nothing is known; see `lora_sam.data.reading.unknown_layout`."""


def recognise(root: Path) -> str | None:
    """By what a directory is recognised as this format; None where it is not."""
    found = _masks_of(root)
    image = next((image for image, masks in found.items() if len(masks) > 1), None)
    return None if image is None else f"{len(found[image])} masks of {image.relative_to(root)}"


def _masks_of(root: Path) -> dict[Path, list[Path]]:
    """The masks of every image; nothing where files are not named so."""
    found: dict[Path, list[Path]] = defaultdict(list)
    for folder in _folders(root):
        masks = next((folder / name for name in _MASKS if (folder / name).is_dir()), None)
        images = next((folder / name for name in _IMAGES if (folder / name).is_dir()), None)
        if images is None or masks is None:
            continue
        pictures = _files(images)
        if len(pictures) == 1 and folder != root:  # <image>/images, <image>/masks
            found[pictures[0]] += _files(masks)
            continue
        inner = {path.name: _files(path) for path in sorted(masks.iterdir()) if path.is_dir()}
        if inner and inner.keys() <= {path.stem for path in pictures}:
            for picture in pictures:
                found[picture] += inner.get(picture.stem, [])
            continue
        if len(inner) > 1 and not _files(masks):  # masks/<class>/<image>
            found.update(_by_class(pictures, [mask for files in inner.values() for mask in files]))
            continue
        found.update(_by_name(pictures, _files(masks)))
    return dict(found)


def _by_class(images: list[Path], masks: list[Path]) -> dict[Path, list[Path]]:
    """Masks by the image that has their name; nothing where one belongs to none."""
    stems = {path.stem: path for path in images}
    found: dict[Path, list[Path]] = {path: [] for path in images}
    for mask in masks:
        if mask.stem not in stems:
            return {}
        found[stems[mask.stem]].append(mask)
    return found


def _folders(root: Path) -> list[Path]:
    """The root and the folders in it, two levels down: <split>/<image>."""
    folders = [root]
    for level in ("*", "*/*"):
        folders += sorted(path for path in root.glob(level) if path.is_dir() and not path.name.startswith("."))
    return folders


def _files(folder: Path) -> list[Path]:
    return [path for path in files_below(folder, *SUFFIXES) if path.parent == folder]


def _by_name(images: list[Path], masks: list[Path]) -> dict[Path, list[Path]]:
    """Masks by the image whose name theirs begins with; nothing where one belongs to none, or each to its own."""
    stems = {path.stem: path for path in images}
    found: dict[Path, list[Path]] = {path: [] for path in images}
    tasks = [_TASK.fullmatch(mask.stem) for mask in masks]
    if masks and all(tasks):
        numbers = {int(match[1]): path for path in images if (match := _NUMBER.search(path.stem))}
        wanted = {int(match[1]) for match in tasks if match}
        if len(numbers) != len(images) or not wanted <= numbers.keys():
            return {}
        for mask, match in zip(masks, tasks, strict=True):
            assert match is not None
            found[numbers[int(match[1])]].append(mask)
        return found
    for mask in masks:
        fitting = [
            stem
            for stem in stems
            if mask.stem.startswith(stem) and len(mask.stem) > len(stem) and mask.stem[len(stem)] in _SEPARATORS
        ]
        if not fitting:
            return {}
        found[stems[max(fitting, key=len)]].append(mask)
    return found if any(len(own) > 1 for own in found.values()) else {}


def _pictures(root: Path, found: dict[Path, list[Path]]) -> Iterator[Picture | DataError]:
    tables: dict[Path, dict[str, str]] = {}
    for image, masks in found.items():
        outlines: list[Outline | DataError] = []
        try:
            size = image_size(inside(root, image.relative_to(root).as_posix(), str(image)))
        except DataError as error:
            yield error
            continue
        for mask in masks:
            try:
                outlines.append(_outline(mask, size, root, _class_of(mask, image, tables)))
            except DataError as error:
                outlines.append(DataError(f"({mask.name}) {error}", error.kind))
        yield Picture(
            owner=str(image),
            image=image.relative_to(root).as_posix(),
            size=size,
            outlines=outlines,
            split=split_in(image, root),
            files=tuple(masks),
        )


def _class_of(mask: Path, image: Path, tables: dict[Path, dict[str, str]]) -> str | None:
    """What its folder, its own name or the table beside its folder says; None where nothing does."""
    if mask.stem == image.stem:
        return mask.parent.name
    if task := _TASK.fullmatch(mask.stem):
        return task[2]
    file = mask.parent.parent / _TABLE
    if file not in tables:
        tables[file] = _read_table(file) if file.is_file() else {}
    table = tables[file]
    if table and mask.stem not in table:
        raise DataError(f"is not in {file}; add its line, or delete the table to read all masks without classes.")
    return table.get(mask.stem)


def _read_table(file: Path) -> dict[str, str]:
    """The class of every mask: lines `image_id,mask_id,class_name` as darwin-py writes them, which quotes nothing."""
    heading, *lines = read_lines(file) or [""]
    if [cell.strip() for cell in heading.split(",")] != ["image_id", "mask_id", "class_name"]:
        raise DataError(f"{file}: its first line is {shown(heading)}; V7 writes image_id,mask_id,class_name.")
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=2):
        image, mask, name = (*line.split(",", 2), "", "")[:3]
        if not line.strip():
            continue
        if not (mask.startswith(image) and name.strip()):
            raise DataError(f"{file}: line {number} is {shown(line)}; it takes an image, its mask and a class.")
        if found.setdefault(mask, name.strip()) != name.strip():
            raise DataError(f"{file}: line {number} gives {shown(mask)} a second class; keep one of them.")
    return found


def _outline(mask: Path, size: tuple[int, int], root: Path, label: str | None) -> Outline:
    path = inside(root, mask.relative_to(root).as_posix(), str(mask))
    check_size(path, size)
    values = read_mask(path)
    # soft edges are cut at half of what the object has
    counts = encode_mask(values > int(values.max()) // 2)
    return Outline(name=mask.stem, label=label, rle={"size": list(size), "counts": counts.decode("ascii")})
