"""Any format that the package datumaro imports, by its own importers."""

from __future__ import annotations

import difflib
import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lora_sam.core.calling import typed_here
from lora_sam.core.crops import rle_of
from lora_sam.core.errors import DataError
from lora_sam.data.datumaro_json import DEFAULT_SUBSET
from lora_sam.data.noticed import LeftOut, Notes
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.datumaro_objects import checked, labels_of, read_objects
from lora_sam.data.reading.images import image_size
from lora_sam.data.reading.labelled import LabelledImage, LabelledImages
from lora_sam.data.reading.paths import data_root, inside, shown
from lora_sam.data.reading.skipping import Ledger
from lora_sam.data.reading.split_reading import read_splits
from lora_sam.data.splits import Splits

_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class DatumaroImport(FormatOptions):
    """A directory in a format of the package datumaro: Cityscapes, ADE20K, CamVid, KITTI, CVAT, LabelMe, ...

    Masks, polygons and ellipses of one label with the same group other than 0 are one object. Annotations with
    `is_crowd`, the class `background` and boxes without a mask are no objects; they are counted. The annotation files
    are parsed by datumaro, so take them from a source you trust; images outside the root are refused. Nothing is
    downloaded. Without a subset `train`, the only subset, or the one called `default`, is the training split.

    Attributes:
        root: Directory of the data set; no image outside it is read.
        format: Name of the format in datumaro, e.g. `cityscapes`; `datum detect <directory>` tells it.
        on_error: `raise` stops at the first bad image or annotation, `skip` leaves it out and lists it; what datumaro
            itself refuses always stops.
    """

    format: str

    def open(self, seed: int) -> Splits:
        """Import all annotations, and check them and all image headers (and pixels, with `check=full`).

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: the package is not installed, does not know the format or cannot read the directory, or anything
                is missing, damaged or inconsistent; names the item and the remedy.
        """
        root = data_root(self.root, follow_links=self.follow_links)
        ledger = Ledger(self.on_error, self.max_skipped)
        subsets, warned = _imported(root, self.format)
        training = self.train
        if training not in subsets:
            training = next(iter(subsets)) if len(subsets) == 1 else DEFAULT_SUBSET
        used: set[str] = set()

        def read(split: str, notes: Notes) -> LabelledImages | None:
            name = training if split == self.train else split
            if name not in subsets:
                return None
            if name != split:
                notes.append(f"{split}: taken from the subset {name}")
            used.add(name)
            return _read_subset(self, root, name, subsets[name], ledger, notes)

        # what trains is not held out as well, unless the user says so
        val, test = (None if name == training != self.train else name for name in (self.val, self.test))
        splits = read_splits(
            read,
            ledger,
            replace(self, val=val, test=test),
            seed=seed,
            place=lambda split: f"{root}: the subset {split!r} of {self.format} ({_listed(list(subsets))})",
        )
        more = Notes()
        for name in subsets:
            if name not in used:
                more.found("unused_split", f"the subset {name} is not used")
        return replace(
            splits, notes=(*warned.texts, *splits.notes), noticed=(*warned.noticed, *splits.noticed)
        ).with_more(more)


@dataclass(frozen=True)
class _Item:
    """What is kept of an item of datumaro: its id, its image, and its annotations as in Datumaro's JSON."""

    id: str
    image: str | None
    annotations: list[dict[str, Any]]
    labels: tuple[str, ...]


def _imported(root: Path, name: str) -> tuple[dict[str, list[_Item]], Notes]:
    """The items by subset, and what datumaro warned of."""
    try:
        from datumaro import AnnotationType, Dataset, Environment
    except ImportError as error:
        raise DataError(
            f"data=datumaro_import needs the package datumaro ({error}): {typed_here('pip install datumaro')}, or "
            "poetry install --extras datumaro."
        ) from error
    environment = Environment()
    known = sorted(environment.importers)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
        hint = f"did you mean {_listed(near)}?" if near else f"it knows {_listed(known)}."
        raise DataError(f"data.format: datumaro has no importer {shown(name)}; {hint}")
    subsets: dict[str, list[_Item]] = {}
    with _warnings() as warned:
        try:
            dataset = Dataset.import_from(str(root), name, env=environment)
            categories = dataset.categories().get(AnnotationType.label)
            entries = [{"name": label.name} for label in categories] if categories is not None else []
            labels = labels_of({"label": {"labels": entries}}, f"{root} as {name}")
            for item in dataset:
                path = getattr(item.media, "path", None)
                annotations = [_entry(annotation) for annotation in item.annotations]
                kept = _Item(str(item.id), path or None, annotations, labels)
                subsets.setdefault(str(item.subset), []).append(kept)
        except DataError:
            raise
        except Exception as error:  # an importer of a format raises whatever it runs into
            cause = error.__cause__ or error
            reason = " ".join(str(cause).split()) or type(cause).__name__
            raise DataError(
                f"{root}: datumaro cannot read it as {name} ({shown(reason)}); correct data.format or data.root, or "
                "mend the data set."
            ) from error
    if not subsets:
        raise DataError(f"{root}: datumaro finds nothing there as {name}; correct data.format or data.root.")
    distinct = list(dict.fromkeys(warned))
    notes = Notes()
    for message in distinct[:_SHOWN]:
        notes.found("importer_warning", f"datumaro: {shown(message)}")
    if len(distinct) > _SHOWN:
        notes.found("importer_warning", f"datumaro: {len(distinct) - _SHOWN} more warnings")
    return subsets, notes


def _read_subset(
    config: DatumaroImport, root: Path, subset: str, items: list[_Item], ledger: Ledger, notes: Notes
) -> LabelledImages:
    left_out: LeftOut = Counter()
    images: list[LabelledImage] = []
    names: set[str] = set()
    for item in items:
        owner = f"{root}: {config.format} item {item.id} of {subset}"
        ledger.saw(images=1)
        try:
            if item.image is None:
                raise DataError(
                    f"{owner} has no image file; add the image, or remove its annotations.", "label_without_image"
                )
            path = inside(root, Path(os.path.relpath(item.image, root)).as_posix(), owner)
            name = path.relative_to(root).as_posix()
            if name in names:
                raise DataError(f"{owner}: {name} is the image of another item too; merge the two.", "duplicate_id")
            size = image_size(path)
            objects = read_objects(
                item.annotations,
                size,
                item.labels,
                owner,
                min_area=config.min_area,
                ledger=ledger,
                left_out=left_out,
            )
        except DataError as error:
            ledger.skip_image(error)
            continue
        names.add(name)
        if objects.ids:
            images.append(LabelledImage(name, path, size, objects.ids, objects.masks, objects.classes))
        else:
            left_out["unlabelled_image", "images without an object were left out"] += 1
    notes.counted(subset, left_out)
    return checked(images, config.check, config.format, ledger)


def _entry(annotation: Any) -> dict[str, Any]:
    """An annotation as in Datumaro's JSON, masks as RLE so that no array is kept."""
    kind = annotation.type.name
    entry = {
        "id": int(annotation.id),
        "type": kind,
        "group": int(annotation.group or 0),
        "label_id": None if getattr(annotation, "label", None) is None else int(annotation.label),
        "attributes": {"is_crowd": bool(annotation.attributes.get("is_crowd"))},
    }
    if kind == "mask":
        entry["rle"] = _rle(np.asarray(annotation.image))
    elif kind == "bbox":
        entry["bbox"] = [float(value) for value in annotation.get_bbox()]
    elif kind in ("polygon", "ellipse"):
        entry["points"] = [float(value) for value in annotation.points]
    return entry


def _rle(mask: np.ndarray[Any, Any]) -> dict[str, Any] | None:
    if mask.ndim != 2:
        return None
    return {"size": list(mask.shape), "counts": rle_of(mask.astype(np.bool_))["counts"].decode("ascii")}


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collects what is logged as a warning or worse: datumaro leaves out what it cannot read, and only logs it."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(" ".join(record.getMessage().split()))

    collector = Collector(logging.WARNING)
    logger = logging.getLogger()
    logger.addHandler(collector)
    try:
        yield messages
    finally:
        logger.removeHandler(collector)


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"
