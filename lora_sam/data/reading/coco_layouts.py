"""Where the tools that write COCO put annotations and images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lora_sam.core.errors import DataError
from lora_sam.data.reading.annotation_files import first_file_name, json_kind
from lora_sam.data.reading.paths import inside, within
from lora_sam.data.splits import SPLIT_WORD, spellings

_ANNOTATIONS = (
    "annotations/instances_{split}.json",
    "annotations/instances_{split}2017.json",
    "annotations/instances_{split}2014.json",
    "{split}/_annotations.coco.json",  # Roboflow
    "annotations/{split}.json",
    "instances_{split}.json",
    "{split}.json",
    "{split}/annotations.json",
    "{split}/labels.json",  # FiftyOne
    "annotations/lvis_v1_{split}.json",
)
_IMAGES = (
    "images/{split}",
    "images/{split}2017",
    "images/{split}2014",
    "{split}/images",
    "{split}/data",  # FiftyOne
    "{split}2017",
    "{split}2014",
    "{split}",
    "images/default",  # CVAT
    "images",
    "data",
    ".",
)


@dataclass(frozen=True)
class CocoLayout:
    """Where a data set has its annotations and images.

    Attributes:
        annotations: Annotation file of a split, relative to the root; `{split}` stands for the split's name.
        images: Directory of a split's images, relative to the root, likewise.
        found: Whether the annotation file of the training split is there.
    """

    annotations: str
    images: str
    found: bool


USUAL = CocoLayout(_ANNOTATIONS[0], _IMAGES[0], found=False)
"""The layout of the documentation."""


def find_layout(root: Path, train: str, annotations: str | None = None) -> CocoLayout:
    """The first known layout that `root` has; the usual one, not `found`, if it has none.

    Args:
        root: As returned by `data_root`.
        train: Name of the training split.
        annotations: Where the annotation files are, if that is known.
    """
    templates = _candidates(root) if annotations is None else iter((annotations,))
    for template in templates:
        for split in spellings(train):
            file = _file(root, within(template, split))
            if file is not None and (annotations is not None or json_kind(file) == "coco"):
                return CocoLayout(template, _images_of(root, file, template, split), found=True)
    return USUAL if annotations is None else CocoLayout(annotations, USUAL.images, found=False)


def _candidates(root: Path) -> Iterator[str]:
    yield from _ANNOTATIONS
    # one file for everything: whatever it is called, if there is but one
    for folder in (root / "annotations", root):
        files = [path for path in sorted(folder.glob("*.json")) if not SPLIT_WORD.search(path.stem)]
        files = [path for path in files if json_kind(path) == "coco"]
        if len(files) > 1:  # others beside them: stuff_default.json, panoptic_default.json, ...
            files = [path for path in files if path.name.startswith("instances")]
        if len(files) == 1:
            yield files[0].relative_to(root).as_posix()


def _images_of(root: Path, file: Path, annotations: str, split: str) -> str:
    """The folder in which the first image that the file names is found, or else the first that exists."""
    beside = annotations.rpartition("/")[0] or "."
    name = first_file_name(file)
    folders = [template for template in (*_IMAGES, beside) if (root / within(template, split)).is_dir()]
    if name is not None:
        for template in folders:
            if _file(root / within(template, split), name) is not None:
                return template
    return folders[0] if folders and folders[0] != "." else USUAL.images


def _file(root: Path, relative: str) -> Path | None:
    try:
        file = inside(root.resolve(), relative, "data.annotations")
        return file if file.is_file() else None
    except (DataError, OSError):
        return None
