"""Which formats a directory has, judged by the names of files and the ends of JSON files."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from lora_sam.core.conf_files import conf_directory, conf_places
from lora_sam.core.errors import ConfigError, DataError
from lora_sam.data import mask_per_object, medsam
from lora_sam.data.common_semantic import CLASS_FILES
from lora_sam.data.labels import LABEL_SUFFIXES
from lora_sam.data.reading.affixes import beside_jpegs, suffix_of
from lora_sam.data.reading.annotation_files import json_kind
from lora_sam.data.reading.coco_layouts import find_layout
from lora_sam.data.reading.file_types import ending
from lora_sam.data.reading.images import SUFFIXES
from lora_sam.data.reading.nifti import NIFTI
from lora_sam.data.reading.paths import within
from lora_sam.data.splits import spellings
from lora_sam.data.voc import CLASSES, IMAGES, OBJECTS

_IMAGE_FOLDERS = ("images", "imgs", "image", "img", "img_dir", "imagesTr")
_MASK_FOLDERS = ("masks", "mask", "ann_dir", "annotations", "annotation", "gt", "gts", "ground_truth", "groundtruth")
_LABEL_FOLDERS = ("labels", "label", "labelsTr")
_ARRAYS = frozenset({".npy"})
_SPELLED = (str, str.capitalize, str.upper)
_WHOLE = ("_mask", "-mask", "_gt", "_segmentation", "_seg", "_annotation")
_FORMS = ("{split}/%s", "%s/{split}", "{split}_%s", "%s_{split}", "%s")
_MOST_BELOW = 1000  # entries of a folder in a folder
_PARQUET = ("*.parquet", "*/*.parquet")


@dataclass(frozen=True)
class Found:
    """A format that a directory has.

    Attributes:
        option: Its file in `conf/data`, without the ending.
        why: By what it was recognised.
        changes: Options whose values follow from what is there.
    """

    option: str
    why: str
    changes: Mapping[str, Any] = field(default_factory=dict)


def detected(root: Path, train: str) -> list[Found]:
    """Every format that `root` has, judged by the names of files and the ends of JSON files.

    Args:
        root: As returned by `data_root`.
        train: Name of the training split.

    Raises:
        OSError: a directory cannot be listed.
    """
    matches = (detect(root, train) for detect, _ in _detectors(conf_directory()).values())
    return [match for match in matches if match is not None]


def stored_option(option: str) -> tuple[str, dict[str, Any]]:
    """`_target_` and values of `conf/data/<option>.yaml`; lists become tuples.

    Raises:
        ConfigError: the file is missing, so the installation is incomplete.
    """
    import yaml

    places = [place / "data" / f"{option}.yaml" for place in conf_places()]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise ConfigError(f"no configuration file {places[0]} or {places[1]}; install lora_sam again.")
    stored: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()}
    return str(values.pop("_target_")), values


def _coco(root: Path, train: str) -> Found | None:
    layout = find_layout(root, train)
    changes = {"annotations": layout.annotations, "images": layout.images}
    return Found("coco", f"annotations in {layout.annotations}", changes) if layout.found else None


def _voc(root: Path, train: str) -> Found | None:
    masks = [name for name in (OBJECTS, CLASSES) if (root / name).is_dir()]
    return Found("voc", f"{IMAGES} and {masks[0]}") if masks and (root / IMAGES).is_dir() else None


def _common_semantic(root: Path, train: str) -> Found | None:
    folders = _folders(root, train, _MASK_FOLDERS, SUFFIXES)
    if folders is None:
        return _classes_beside(root, train)
    places = [root, *(root / split for split in spellings(train))]
    lists = [name for place in places for name in CLASS_FILES if (place / name).is_file()]
    if not lists:
        return None
    images, masks = folders
    return Found("common_semantic", f"{images}, {masks} and {lists[0]}", {"images": images, "masks": masks})


def _classes_beside(root: Path, train: str) -> Found | None:
    """Class masks beside their images with a list of classes, as Roboflow has them."""
    for split in spellings(train):
        found = [name for name in CLASS_FILES if (root / split / name).is_file()]
        if found and suffix_of(names := [path.stem for path in (root / split).iterdir()], names):
            return Found("common_semantic", f"{split}/{found[0]}", {"images": "{split}", "masks": "{split}"})
    return None


def _datumaro(root: Path, train: str) -> Found | None:
    for split in (*spellings(train), "default"):
        file = root / "annotations" / f"{split}.json"
        if json_kind(file) == "datumaro":
            return Found("datumaro", f'"items" in {file.relative_to(root)}')
    return None


def _labels(root: Path, train: str) -> Found | None:
    folders = _folders(root, train, _LABEL_FOLDERS, LABEL_SUFFIXES)
    if folders is None and medsam.recognise(root) is None:
        folders = _folders(root, train, _MASK_FOLDERS, _ARRAYS)
    if folders is None:
        return _beside(root, train)
    images, labels = folders
    return Found("labels", f"{images} and {labels}", {"images": images, "labels": labels})


def _folder(root: Path, train: str) -> Found | None:
    folders = _folders(root, train, _MASK_FOLDERS, SUFFIXES)
    if folders is None or _common_semantic(root, train) is not None or mask_per_object.recognise(root) is not None:
        return None
    images, masks = folders
    return Found("folder", f"{images} and {masks}", {"images": images, "masks": masks})


def _beside(root: Path, train: str) -> Found | None:
    """Labels that lie beside their images, told apart by the end of their names, as cellpose has them."""
    if _classes_beside(root, train) is not None:
        return None
    for place in (*spellings(train), "."):
        files = [path for path in (root / place).iterdir() if path.is_file()] if (root / place).is_dir() else []
        names = [path.stem for path in files if path.suffix.lower() in LABEL_SUFFIXES]
        suffix = suffix_of(names, names)
        where = "." if place == "." else "{split}"
        if not suffix and beside_jpegs(path.name for path in files if path.suffix.lower() in SUFFIXES):
            return Found("folder", f"JPEG and masks of the same names in {place}", {"images": where, "masks": where})
        if suffix in ("", "_seg") and any(path.name.endswith("_seg.npy") for path in files):
            raise DataError(
                f"{root / place}: has cellpose's _seg.npy, which hold pickled Python objects and are never loaded; "
                "save masks as images, with `cellpose --save_tif` or `io.save_masks`."
            )
        if suffix:
            # one mask of all that is there, or one label an object
            option, key = ("folder", "masks") if suffix in _WHOLE else ("labels", "labels")
            changes = {"images": where, key: where, "mask_suffix": suffix}
            return Found(option, f"names that end in {suffix} in {place}", changes)
    return None


def _hugging_face(root: Path, train: str) -> Found | None:
    for name in ("dataset_dict.json", "state.json"):
        if (root / name).is_file():
            return Found("hf", name)
    table = next((path for pattern in _PARQUET for path in sorted(root.glob(pattern))), None)
    return None if table is None else Found("hf", str(table.relative_to(root)))


_FORMATS: Mapping[str, tuple[Callable[[Path, str], Found | None], str]] = {
    "coco": (_coco, "COCO instances: annotations/instances_{split}.json, {split}/_annotations.coco.json, one file"),
    "voc": (_voc, f"Pascal VOC: {IMAGES} with {OBJECTS} or {CLASSES}"),
    "common_semantic": (_common_semantic, f"class masks: images, masks and {' or '.join(CLASS_FILES)}"),
    "datumaro": (_datumaro, "Datumaro: annotations/{split}.json"),
    "folder": (_folder, "masks: images and masks, {split}/images and {split}/masks"),
    "labels": (_labels, "label images: images and labels, {split}/images and {split}/labels"),
    "hf": (_hugging_face, "Hugging Face: dataset_dict.json, state.json, *.parquet"),
}
"""Formats whose options follow from what is there; of all others, the module says whether `root` has it."""


def formats() -> dict[str, str]:
    """Every format that reads a directory: its option in `conf/data`, and what it looks for there.

    A module that has a `recognise` is asked by `auto`, and says with `LAYOUT`, or in its first line, what it looks for.

    Raises:
        ConfigError: the files of `conf/` are missing, so the installation is incomplete.
    """
    return {option: what for option, (_, what) in _detectors(conf_directory()).items()}


@cache
def _detectors(conf: Path) -> dict[str, tuple[Callable[[Path, str], Found | None], str]]:
    found = dict(_FORMATS)
    for file in sorted((conf / "data").glob("*.yaml")):
        option = file.stem
        if option in found or option == "auto":
            continue
        target, values = stored_option(option)
        if values.get("root") != "???":  # drawn, not read
            continue
        module = importlib.import_module(target.rpartition(".")[0])
        if hasattr(module, "recognise"):
            what = getattr(module, "LAYOUT", None) or (module.__doc__ or option).partition("\n")[0]
            found[option] = _asking(option, module.recognise), what
    return found


def _asking(option: str, recognise: Callable[[Path], str | None]) -> Callable[[Path, str], Found | None]:
    def detect(root: Path, train: str) -> Found | None:
        why = recognise(root)
        return None if why is None else Found(option, why)

    return detect


def _folders(root: Path, train: str, kinds: Iterable[str], suffixes: frozenset[str]) -> tuple[str, str] | None:
    """Where images and label files of a split are, relative to `root`, with `{split}` for its name."""
    # capitals too: a file system may mind them
    names = [
        (spelled(images), spelled(labels)) for images in _IMAGE_FOLDERS for labels in kinds for spelled in _SPELLED
    ]
    is_there = cache(lambda folder: (root / folder).is_dir())  # the same few folders for hundreds of pairs
    for images, labels in names:
        for form in _FORMS:
            for split in spellings(train):
                if not is_there(within(form % images, split)):
                    continue
                if _has_file(root / within(form % labels, split), suffixes, root / within(form % images, split)):
                    return form % images, form % labels
    return None


def _has_file(folder: Path, suffixes: frozenset[str], images: Path) -> bool:
    """Whether there is a label in a folder, or in one of its folders that the images have too."""
    # NIfTI is read with data.slices, and its remedy is told without it
    known = suffixes | (NIFTI if suffixes != _ARRAYS else frozenset())
    if not folder.is_dir():
        return False
    if any(ending(path.name) in known for path in folder.iterdir()):  # not all are asked what they are
        return True
    both = (path for path in folder.iterdir() if path.is_dir() and path != images and (images / path.name).is_dir())
    return any(ending(path.name) in known for inner in both for path in islice(inner.rglob("*"), _MOST_BELOW))
