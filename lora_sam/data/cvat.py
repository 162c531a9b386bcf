"""Labels as CVAT writes them: "CVAT for images 1.1" (https://docs.cvat.ai, formats)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lora_sam.core.errors import DataError
from lora_sam.data.noticed import LeftOut
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.annotation_files import MAX_ANNOTATION_BYTES
from lora_sam.data.reading.image_file import MAX_PIXELS
from lora_sam.data.reading.outline import Bitmap, Outline, ellipse
from lora_sam.data.reading.outlined import Picture, open_pictures, split_in
from lora_sam.data.reading.paths import data_root, inside, shown
from lora_sam.data.reading.tool_files import files_below, recognised
from lora_sam.data.splits import Splits

_SAYS = (b"<annotations", b"<image ")
_AREAS = ("polygon", "mask", "ellipse")


@dataclass(frozen=True, kw_only=True)
class Cvat(FormatOptions):
    """`annotations.xml` with images below the root, e.g. in `images/`.

    Polygons, masks and ellipses are objects; those of one label with one group are one object. Boxes, lines, points,
    cuboids, skeletons and tags are no objects; they are counted. The attribute `subset` of an image is its split.
    """

    def open(self, seed: int) -> Splits:
        """Read and check all annotations and image headers (and pixels, with `check=full`).

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: anything is missing, damaged or inconsistent; names the file, the image and the remedy.
        """
        root = data_root(self.root, follow_links=self.follow_links)
        return open_pictures(self, root, _pictures(root), seed=seed, what="CVAT's XML")


LAYOUT = "CVAT for images: annotations.xml"
NEEDS = ("*.<image>", "*.xml with <image")
"""What lies in such a directory, for the error where nothing is known; see `lora_sam.data.reading.unknown_layout`."""


def recognise(root: Path) -> str | None:
    """By what a directory is recognised as this format; None where it is not."""
    file = recognised(root, ".xml", says=_SAYS)
    return None if file is None else f"<image> in {file.relative_to(root)}"


def _pictures(root: Path) -> Iterator[Picture | DataError]:
    from xml.etree.ElementTree import ParseError

    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import parse

    for file in files_below(root, ".xml"):
        try:
            inside(root, file.relative_to(root).as_posix(), str(file))
            if file.stat().st_size > MAX_ANNOTATION_BYTES:
                raise DataError(
                    f"{file}: is larger than {MAX_ANNOTATION_BYTES // 2**30} GiB; split the data set.", "too_large"
                )
            tree = parse(file).getroot()
        except DataError as error:
            yield error
            continue
        except (ParseError, DefusedXmlException, ValueError) as error:
            yield DataError(
                f"{file}: is not valid XML ({shown(str(error))}); export it from CVAT again.", "bad_annotation"
            )
            continue
        except OSError as error:
            yield DataError(f"{file}: cannot be read ({error.strerror}); check its permissions.", "unreadable_file")
            continue
        if tree.tag != "annotations":
            continue
        if tree.find("track") is not None:
            yield DataError(f"{file}: is CVAT for video; export it as CVAT for images, or as COCO.", "bad_annotation")
        for element in tree.iter("image"):
            yield _picture(element, file, root)


def _picture(element: object, file: Path, root: Path) -> Picture | DataError:
    attributes: Mapping[str, str] = element.attrib  # type: ignore[attr-defined]
    name = attributes.get("name", "")
    owner = f"{file}: image {name}"
    left_out: LeftOut = Counter()
    outlines: list[Outline | DataError] = []
    try:
        size = (int(attributes["height"]), int(attributes["width"]))
    except (KeyError, ValueError):
        return DataError(
            f"{owner} has no width and height in whole pixels; export it from CVAT again.", "bad_annotation"
        )
    for shape in element:  # type: ignore[attr-defined]
        if shape.tag not in _AREAS:
            left_out["no_outline", f"shapes of type {shape.tag} outline nothing"] += 1
            continue
        try:
            outlines.append(_outline(shape.tag, shape.attrib))
        except DataError as error:
            outlines.append(error)
        except (KeyError, ValueError, OverflowError) as error:
            outlines.append(
                DataError(
                    f"is a {shape.tag} that cannot be read ({error}); export it from CVAT again", "unreadable_file"
                )
            )
    subset = attributes.get("subset", "")  # also a folder of its images, where a project has several tasks
    split = subset or split_in(Path(root, name.replace("\\", "/").lstrip("/")), root)
    places = file.parent, file.parent / "images"
    return Picture(
        owner=owner,
        image=name,
        folders=tuple(
            place / folder for folder in ([subset, ""] if Path(subset).name == subset else [""]) for place in places
        ),
        size=size,
        outlines=outlines,
        left_out=left_out,
        split=split or split_in(file, root),
        listed_in=file,
    )


def _outline(kind: str, values: Mapping[str, str]) -> Outline:
    group = values.get("group_id", "0")
    label, group_of = values["label"], None if group in ("", "0") else group
    if kind == "polygon":
        corners = [float(number) for point in values["points"].split(";") for number in point.split(",")]
        return Outline(label=label, group=group_of, rings=(corners,))
    if kind == "ellipse":
        x, y, across, down = (float(values[key]) for key in ("cx", "cy", "rx", "ry"))
        return Outline(
            label=label, group=group_of, rings=(ellipse(x, y, across, down, float(values.get("rotation", 0))),)
        )
    left, top, width, height = (int(float(values[key])) for key in ("left", "top", "width", "height"))
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise DataError(f"has a mask of {width}x{height} pixels", "bad_rle")
    # run lengths along rows, background first
    runs = np.array([int(run) for run in values["rle"].split(",")], np.int64)
    if (runs < 0).any() or (runs > width * height).any() or runs.sum() != width * height:
        raise DataError(f"has a mask whose runs are not {width * height} pixels; export it from CVAT again", "bad_rle")
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    return Outline(label=label, group=group_of, bitmap=Bitmap(left, top, pixels))
