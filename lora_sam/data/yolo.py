"""Labels as Ultralytics' YOLO segmentation has them: a text file for each image (https://docs.ultralytics.com/datasets/segment)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lora_sam.core.errors import DataError
from lora_sam.core.files import without_ending
from lora_sam.data.noticed import LeftOut
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.annotation_files import ends_of, read_lines
from lora_sam.data.reading.image_finder import ImageFinder
from lora_sam.data.reading.images import SUFFIXES
from lora_sam.data.reading.outline import Outline
from lora_sam.data.reading.outlined import Picture, open_pictures, split_in
from lora_sam.data.reading.paths import data_root, inside, is_text, shown
from lora_sam.data.reading.tool_files import LOOKED_AT, files_below
from lora_sam.data.reading.yolo_table import read_table, table_in
from lora_sam.data.splits import Splits, spellings

_NAME_LISTS = ("classes.txt", "obj.names")
_BOX = 5  # numbers of a line that is a box
_BOXED, _NEAR = 4 + 6, 0.005  # numbers of a box and three corners; shares by which it may be off
_MAX_LABELS = 2**26  # bytes
_LINE = re.compile(rb"\s*\d+(?:\.0*)?(?:[ \t]+-?[\d.]+(?:[eE]-?\d+)?){4,}\s*$", re.MULTILINE)
_IMAGES, _LABELS = "images", "labels"


@dataclass(frozen=True, kw_only=True)
class Yolo(FormatOptions):
    """`data.yaml`, images, and for each image `labels/<name>.txt` with lines `class x1 y1 x2 y2 ...`, shares of 0 to 1.

    Every line is an object; an image with an empty file or none has no object. A line of five numbers is a box, which
    is no object: boxes are counted, and a set of boxes alone is refused. Where the splits lie says `data.yaml`, or else
    folders called train, val or test.
    """

    def open(self, seed: int) -> Splits:
        """Read and check all labels and image headers (and pixels, with `check=full`).

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: anything is missing, damaged or inconsistent; names the file, the line and the remedy.
        """
        root = data_root(self.root, follow_links=self.follow_links)
        table = read_table(root)
        names = _names(table, root)
        if "kpt_shape" in table:
            raise DataError(
                f"{table['']}: has kpt_shape, so its labels are boxes and key points, which outline nothing; export it "
                "for segmentation, with the corners of outlines.",
                "bad_annotation",
            )
        owners: dict[Path, Path] = {}
        pictures = [
            entry
            for split, images in _places(table, root, self)
            for entry in _split(split, images, names, root, owners)
        ]
        pictures += _without_image(root)
        boxes = sum(entry.left_out["no_outline", _BOXES] for entry in pictures if isinstance(entry, Picture))
        if boxes and not any(entry.outlines for entry in pictures if isinstance(entry, Picture)):
            raise DataError(
                f"{root}: its {boxes} labels are boxes (class x y width height), and boxes alone cannot train masks; "
                "export it for segmentation, with the corners of outlines.",
                "bad_annotation",
            )
        return open_pictures(self, root, pictures, seed=seed, what="YOLO's labels")


_BOXES = "lines of five numbers are boxes, which outline nothing"


LAYOUT = "YOLO segmentation: data.yaml, images and labels/*.txt"
NEEDS = ("images/*.<image>", "labels/*.txt|data.yaml")
"""What lies in such a directory, for the error where nothing is known; see `lora_sam.data.reading.unknown_layout`."""


def recognise(root: Path) -> str | None:
    """By what a directory is recognised as this format; None where it is not."""
    texts = (path for path in files_below(root, ".txt", most=LOOKED_AT) if _is_of_labels(path, root))
    first = next((path for path in islice(texts, 50) if _LINE.match(ends_of(path))), None)
    if first is None:
        return None
    table = table_in(root)
    return f"{'text files' if table is None else table.name} and {first.parent.relative_to(root)}"


def _is_of_labels(file: Path, root: Path) -> bool:
    """Whether a text file lies in a folder of labels, or beside an image of its name that has no masks beside it."""
    if file.with_suffix(".npz").is_file():
        return False
    return _LABELS in file.relative_to(root).parts[:-1] or any(file.with_suffix(end).is_file() for end in SUFFIXES)


def _names(table: dict[str, Any], root: Path) -> dict[int, str]:
    stored = table.get("names")
    if stored is None:
        return _listed_names(root)
    entries = dict(enumerate(stored)) if isinstance(stored, list) else stored
    if not isinstance(entries, dict) or not all(
        str(key).isdecimal() and isinstance(name, str | int) and is_text(str(name)) for key, name in entries.items()
    ):
        raise DataError(
            f"{table['']}: names is {shown(stored)}; it takes a list of names, or a mapping of numbers to names.",
            "bad_annotation",
        )
    return {int(key): str(name) for key, name in entries.items()}


def _listed_names(root: Path) -> dict[int, str]:
    """The classes in a text beside the labels, one a line, as Label Studio and darknet have them; none where it is not
    there."""
    for name in _NAME_LISTS:
        if (root / name).is_file():
            lines = [line.strip() for line in read_lines(root / name)]
            return {number: line for number, line in enumerate(lines) if line}
    return {}


def _places(table: dict[str, Any], root: Path, config: Yolo) -> Iterator[tuple[str | None, list[Path]]]:
    """Names of splits and their images."""
    found = False
    for wanted in dict.fromkeys((config.train, config.val, config.test)):
        for split in spellings(wanted) if wanted else ():
            entry = table.get(split)
            folders = [entry] if isinstance(entry, str) else entry if isinstance(entry, list) else []
            images = [image for folder in folders for image in _images(folder, table, root)]
            if not folders:
                places = [root / _IMAGES / split, root / split / _IMAGES]
                images = [image for place in places if place.is_dir() for image in files_below(place, *SUFFIXES)]
            if images:
                found = True
                yield split, list(dict.fromkeys(images))  # folders may lie in each other
                break
    if not found:
        place = root / _IMAGES if (root / _IMAGES).is_dir() else root
        for image in files_below(place, *SUFFIXES):
            yield split_in(image, root), [image]


def _images(entry: object, table: dict[str, Any], root: Path) -> list[Path]:
    """The images of a folder, or of a list in a text file, that data.yaml names."""
    if not isinstance(entry, str):
        raise DataError(
            f"{table['']}: names the images {shown(entry)}; it takes a folder or a list of folders.", "missing_file"
        )
    relative = "/".join(_below(entry))
    base = table.get("path")
    tries = [relative]
    if isinstance(base, str) and not base.startswith("/"):
        tries.insert(0, "/".join([*_below(base), relative]))
    # exports name folders beside the table, wherever that was: the end of the path is what holds
    parts = relative.split("/")
    tries += ["/".join(parts[start:]) for start in range(1, len(parts))]
    for path in (inside(root, one, f"{table['']}") for one in tries if one):
        if path.is_dir():
            return files_below(path, *SUFFIXES)
        if path.is_file() and path.suffix == ".txt":
            finder = ImageFinder(root)
            lines = [line.strip() for line in read_lines(path, _MAX_LABELS)]
            return [finder.find(line, f"{path}: line {number}") for number, line in enumerate(lines, start=1) if line]
    raise DataError(
        f"{table['']}: names the images {shown(entry)}, which are not under {root}; correct the path.", "missing_file"
    )


def _below(path: str) -> list[str]:
    """The parts of a path of any system, without drives and what leads out."""
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..") and part[-1] != ":"]


def _split(
    split: str | None, images: list[Path], names: dict[int, str], root: Path, owners: dict[Path, Path]
) -> Iterator[Picture | DataError]:
    for image in images:
        try:
            yield _picture(split, image, names, root, owners)
        except DataError as error:
            yield error


def _picture(split: str | None, image: Path, names: dict[int, str], root: Path, owners: dict[Path, Path]) -> Picture:
    file = _labels_of(image, root)
    if file is not None and owners.setdefault(file, image) != image:
        raise DataError(
            f"{file}: belongs to {owners[file]} and {image}, which have the same name but for the ending; keep one.",
            "duplicate_id",
        )
    left_out: LeftOut = Counter()
    outlines: list[Outline | DataError] = []
    for number, line in enumerate(read_lines(file, _MAX_LABELS) if file is not None else (), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) == _BOX:
            left_out["no_outline", _BOXES] += 1
            continue
        try:
            outlines.append(_outline(words, names))
        except DataError as error:
            outlines.append(DataError(f"(line {number} of {file}) {error}", "bad_annotation"))
    return Picture(
        owner=str(image if file is None else file),
        image=image.relative_to(root).as_posix(),
        outlines=outlines,
        left_out=left_out,
        split=split,
        scale=True,
    )


def _labels_of(image: Path, root: Path) -> Path | None:
    """The text file of an image: where its path has `images`, that has `labels`; or else beside it."""
    parts = list(image.relative_to(root).parts)
    places = [place for place, part in enumerate(parts[:-1]) if part.casefold() == _IMAGES]
    tries = [image.with_suffix(".txt")]
    for place in reversed(places):
        tries.insert(0, root.joinpath(*parts[:place], _LABELS, *parts[place + 1 :]).with_suffix(".txt"))
    if not places:
        tries.insert(0, root.joinpath(_LABELS, *parts).with_suffix(".txt"))
    return next((path for path in tries if path.is_file()), None)


def _without_image(root: Path) -> Iterator[DataError]:
    """Text files of labels whose images are gone."""
    for file in files_below(root, ".txt"):
        parts = file.relative_to(root).parts
        place = next((place for place in range(len(parts) - 2, -1, -1) if parts[place].casefold() == _LABELS), None)
        if place is None or (file.stat().st_size and not _LINE.match(ends_of(file))):
            continue  # a list of classes, or a text
        beside = root.joinpath(*parts[:place], _IMAGES, *parts[place + 1 :])
        plain = root.joinpath(*parts[:place], *parts[place + 1 :])
        places = [one.with_suffix(ending) for one in (beside, file, plain) for ending in SUFFIXES]
        if not any(one.is_file() or one.with_suffix(one.suffix.upper()).is_file() for one in places):
            yield DataError(
                f"{file}: has no image {without_ending(beside.as_posix())}.(png, ...); add it, or remove the labels.",
                "label_without_image",
            )


def _outline(words: list[str], names: dict[int, str]) -> Outline:
    try:
        number, corners = int(float(words[0])), [float(word) for word in words[1:]]
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"is {shown(' '.join(words))}; it takes a class and shares of 0 to 1", "bad_annotation"
        ) from error
    if len(corners) >= _BOXED and _is_box(corners[:4], corners[4:]):
        corners = corners[4:]  # some write the box before the corners
    if names and number not in names:
        raise DataError(
            f"has the class {number}, and the list of classes names {', '.join(map(str, sorted(names)))}",
            "bad_annotation",
        )
    return Outline(label=names.get(number, str(number)), rings=(corners,))


def _is_box(box: list[float], corners: list[float]) -> bool:
    """Whether numbers (x, y of the centre, width, height) are the box of the corners behind them."""
    xs, ys = corners[0::2], corners[1::2]
    tight = [(min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(xs) - min(xs), max(ys) - min(ys)]
    return not len(corners) % 2 and all(abs(one - other) <= _NEAR for one, other in zip(box, tight, strict=True))
