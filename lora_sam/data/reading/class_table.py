"""Which class a value or a colour of a class mask stands for, and the files that say so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.data.reading.annotation_files import read_lines, without_repeats
from lora_sam.data.reading.image_file import ImageFile
from lora_sam.data.reading.images import is_jpeg, pixel_kind, read_image
from lora_sam.data.reading.label_map import LabelMap, numbered
from lora_sam.data.reading.labelled import check_size
from lora_sam.data.reading.mask_values import codes_of, read_mask
from lora_sam.data.reading.paths import shown

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Classes of Pascal VOC by their index in class masks (http://host.robots.ox.ac.uk/pascal/VOC/voc2012)."""

VOID = 255
"""Value of pixels that belong to no class and not to the background either, in index masks."""

_BLACK = 0
_NO_OBJECTS = frozenset({"background", "void", "unlabeled", "unlabelled", "ignore"})
_SHOWN = 12

Colour = tuple[int, int, int]


def voc_colour(index: int) -> Colour:
    """R, G, B of entry `index` (0 to 255) in the palette of Pascal VOC: its bits, spread over the channels."""
    red, green, blue = ((sum((index >> 3 * bit + channel & 1) << 7 - bit for bit in range(8))) for channel in range(3))
    return red, green, blue


def packed(colour: Sequence[int]) -> int:
    """R, G, B as one number, 0xRRGGBB."""
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def colour_codes(path: ImageFile) -> NDArray[np.int32]:
    """The colours of a picture as 0xRRGGBB, int32 [H, W]. Raises `DataError` as `read_image` does."""
    return codes_of(read_image(path))


VOID_COLOUR = packed(voc_colour(VOID))
"""Colour of such pixels in colour masks."""


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set.

    Attributes:
        names: The C classes that are objects, without the background.
        indices: For each value of an index mask, 0 where it is no object, or 1 + the place of its class in `names`.
        colours: Likewise for each colour 0xRRGGBB of a colour mask.
        source: Where this was read, for messages.
    """

    names: tuple[str, ...]
    indices: Mapping[int, int]
    colours: Mapping[int, int]
    source: str = field(compare=False)

    def read(self, path: ImageFile, size: tuple[int, int]) -> NDArray[np.int32]:
        """Class numbers of a mask, int32 [H, W]: 0 where there is no object, else 1 + place in `names`.

        A palette image is read by its colours if all of them are listed, else by its indices; a grey one by its values.

        Args:
            path: Mask with one value or colour per class.
            size: (H, W) of the image.

        Raises:
            DataError: it cannot be read, is a JPEG, has another size, or a value or colour that is not listed.
        """
        if is_jpeg(path):
            raise DataError(f"{path}: JPEG blurs the colours of classes; save class masks as PNG.", "ambiguous_mask")
        check_size(path, size)
        kind = pixel_kind(path)
        codes = colour_codes(path) if kind == "colour" or (kind == "palette" and self.colours) else None
        values = read_mask(path) if kind != "colour" else None
        if values is not None and codes is not None and not self._listed_one_to_one(values, codes):
            codes = None
        table, found = (self.indices, values) if codes is None else (self.colours, codes)
        assert found is not None
        stored = np.unique(found)
        unlisted = [int(value) for value in stored if int(value) not in table]
        if unlisted:
            raise self._unlisted(path, unlisted, colours=codes is not None)
        numbers = np.array([0, *(table[int(value)] for value in stored)], dtype=np.int32)
        return numbers[numbered(found, stored)]

    def objects(self, path: ImageFile, size: tuple[int, int]) -> LabelMap:
        """A mask with every class in it as one object, named by its class. Raises `DataError` as `read` does."""
        classes = self.read(path, size)
        present = [int(number) for number in np.unique(classes) if number]
        names = tuple(self.names[number - 1] for number in present)
        return LabelMap(numbered(classes, present), names, names)

    def _listed_one_to_one(self, values: NDArray[Any], codes: NDArray[np.int32]) -> bool:
        """Whether the palette gives every index that is used a listed colour of its own."""
        stored, first = np.unique(values, return_index=True)
        colours = {int(code) for code in codes.ravel()[first]}
        return len(colours) == len(stored) and colours <= self.colours.keys()

    def _unlisted(self, path: ImageFile, values: list[int], *, colours: bool) -> DataError:
        names = [_rgb(value) if colours else str(value) for value in values[:_SHOWN]]
        more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
        what = "colours" if colours else "values"
        return DataError(
            f"{path}: has {what} that {self.source} does not list: {', '.join(names)}{more}; add their classes there, "
            "or correct the mask (edges must not be smoothed).",
            "ambiguous_mask",
        )


def class_table(entries: Iterable[tuple[int, str, Colour | None]], background: set[int], source: str) -> ClassTable:
    """A table out of (index, name, colour or None) of every class.

    Black and index 0 are background where no class has them, and so are `VOID` and its colour.

    Args:
        entries: All classes, each with an index of its own.
        background: Indices that are no objects, beside those called `background`, `void`, `unlabelled` or `ignore`.
        source: Where they are from, for messages.

    Raises:
        DataError: a name or a colour is there twice, or all classes are background.
    """
    names: list[str] = []
    indices: dict[int, int] = {}
    colours: dict[int, int] = {}
    for index, name, colour in entries:
        number = 0
        if index not in background and name.casefold() not in _NO_OBJECTS:
            if name in names:
                raise DataError(
                    f"{source}: the class {shown(name)} is listed twice; remove one of them.", "duplicate_id"
                )
            names.append(name)
            number = len(names)
        indices[index] = number
        if colour is not None and colours.setdefault(packed(colour), number) != number:
            raise DataError(f"{source}: {shown(name)} has the colour {colour} of another class; give it its own.")
    if not names:
        raise DataError(f"{source}: lists no class beside the background; add the classes of your masks.")
    for index in (0, VOID):
        indices.setdefault(index, 0)
    if colours:
        colours.setdefault(_BLACK, 0)
        colours.setdefault(VOID_COLOUR, 0)
    return ClassTable(tuple(names), indices, colours, source)


def voc_table() -> ClassTable:
    """The classes and colours of Pascal VOC."""
    return class_table(
        ((index, name, voc_colour(index)) for index, name in enumerate(VOC_CLASSES)), set(), "Pascal VOC's palette"
    )


def read_label_lines(file: Path) -> ClassTable:
    """A table out of lines `name:r,g,b:parts:actions` (labelmap.txt of CVAT) or `r g b name` (CamVid's label_colors).

    Empty lines and such that begin with `#` are passed over; the index is the place among the others. Without any
    colour they are those of VOC's palette.

    Raises:
        DataError: a line is neither, or as `class_table` does.
    """
    entries: list[tuple[int, str, Colour | None]] = []
    for number, line in enumerate(read_lines(file), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, separator, rest = text.partition(":")
        if separator:
            numbers = rest.split(":")[0].replace(",", " ").split()
        else:
            parts = text.split(None, 3)
            numbers, name = parts[:3], parts[3] if len(parts) == 4 else ""
        colour = colour_of([int(part) if part.isdecimal() and len(part) <= 3 else None for part in numbers])
        if not name.strip() or (numbers and colour is None):
            raise DataError(
                f"{file}: line {number} is {shown(text)}; it takes `name:red,green,blue::` or `red green blue name`.",
                "bad_annotation",
            )
        entries.append((len(entries), name.strip(), colour))
    if not any(colour for _, _, colour in entries):  # then Datumaro paints in the palette of VOC
        entries = [(index, name, voc_colour(index)) for index, name, _ in entries if index <= VOID]
    return class_table(entries, set(), file.name)


def read_dataset_meta(file: Path) -> ClassTable:
    """A table out of `dataset_meta.json` of Common Semantic Segmentation.

    Its keys are `label_map` (index as text to name) or `labels` (names), `segmentation_colors` ([r, g, b] by index) and
    `background_label` (index or name); see OpenVINO's Open Model Zoo and Datumaro.

    Raises:
        DataError: it is no such JSON, or as `class_table` does.
    """
    try:
        content = json.loads("\n".join(read_lines(file)), object_pairs_hook=without_repeats)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: is not valid JSON ({error}); export it again.", "bad_annotation") from error
    names = _names(content, file)
    stored = content.get("segmentation_colors")
    if stored is not None and not isinstance(stored, list):
        raise DataError(
            f"{file}: segmentation_colors is {shown(stored)}; it takes a list of [red, green, blue].", "bad_annotation"
        )
    colours: dict[int, Colour | None] = {}
    for index, value in enumerate(stored or []):
        colours[index] = None if value is None else colour_of(value)
        if value is not None and colours[index] is None:
            raise DataError(
                f"{file}: segmentation_colors has {shown(value)}; it takes three numbers from 0 to 255.",
                "bad_annotation",
            )
    if stored:
        absent = [names[index] for index in sorted(names) if index not in colours]
        if absent:
            raise DataError(f"{file}: segmentation_colors has no colour for {shown(absent[0])}; add it.")
    background = content.get("background_label")
    none = {index for index, name in names.items() if background is not None and str(background) in (str(index), name)}
    return class_table(((index, names[index], colours.get(index)) for index in sorted(names)), none, file.name)


def _names(content: Any, file: Path) -> dict[int, str]:
    """Names by index."""
    found = content.get("label_map") or content.get("labels") if isinstance(content, dict) else None
    if isinstance(found, list):
        found = {str(index): name for index, name in enumerate(found)}
    if not isinstance(found, dict) or not found:
        raise DataError(f'{file}: has neither "label_map" nor "labels"; list the classes of the masks there.')
    for index, name in found.items():
        number = index.isascii() and index.isdecimal() and len(index) <= 5
        if not number or not isinstance(name, str) or not name.strip():
            raise DataError(
                f'{file}: has the class {shown({index: name})}; it takes an index as text and a name: "1".',
                "bad_annotation",
            )
    numbers = [int(index) for index in found]
    twice = next((number for number in numbers if numbers.count(number) > 1), None)
    if twice is not None:
        raise DataError(f"{file}: the index {twice} is listed twice; give every class its own.", "duplicate_id")
    return dict(zip(numbers, found.values(), strict=True))


def colour_of(value: object) -> Colour | None:
    """R, G, B out of a list of three whole numbers from 0 to 255; None for anything else."""
    if (
        not isinstance(value, list)
        or len(value) != 3
        or not all(type(part) is int and 0 <= part <= 255 for part in value)
    ):
        return None
    return value[0], value[1], value[2]


def _rgb(code: int) -> str:
    return f"({code >> 16}, {code >> 8 & 255}, {code & 255})"
