"""Masks that a user has accepted, kept as training data: COCO instances in a folder that `data.root=` reads."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lora_sam.app.pictures import Picture
from lora_sam.core.calling import data_words, typed_word
from lora_sam.core.errors import DataError
from lora_sam.core.files import atomic_path, last_part, read_json, write_text
from lora_sam.core.mask_files import coco_of

OURS = "masks accepted in the app of lora_sam"
"""Says in a file of annotations that this module wrote it."""

_NAME_LENGTH = 60
_writing = threading.Lock()


@dataclass(frozen=True)
class Collected:
    """What a folder of accepted masks holds.

    Attributes:
        folder: The folder.
        kept: Objects of this image that were kept now.
        images: Images in the folder.
        objects: Objects in the folder.
    """

    folder: Path
    kept: int
    images: int
    objects: int


def collect(folder: Path, picture: Picture, masks: NDArray[np.bool_], names: Sequence[str]) -> Collected:
    """Add an image and its masks to a folder; what was accepted for this image before is replaced, and put aside.

    The pixels are written as PNG, without loss. A file is written beside the old one, which then lies in `.earlier/`.

    Args:
        folder: Where to; made where it is not there.
        picture: The image.
        masks: bool [N, H, W] at its original size; empty ones are left out.
        names: Class of each.

    Raises:
        DataError: there is no mask, a name is none, or the folder holds annotations of somebody else.
        TrainingError: it cannot be written.
    """
    named = [_checked(name) for name in names]
    if not masks.any():
        raise DataError("there is no mask to keep: click an object, or drag a box around it")
    one = coco_of(masks, np.ones(len(masks)), picture.name, named)
    file_name = f"{_stem(picture.name)}-{picture.digest[:12]}.png"
    place = folder / "annotations" / "instances_train.json"
    with _writing:
        content = _content(folder, place)
        classes = {category["name"]: category["id"] for category in content["categories"]}
        for category in one["categories"]:
            classes.setdefault(category["name"], max(classes.values(), default=0) + 1)
        new_id = {category["id"]: classes[category["name"]] for category in one["categories"]}
        known = {image["file_name"]: image["id"] for image in content["images"]}
        image_id = known.get(file_name, max(known.values(), default=0) + 1)
        height, width = picture.size
        entry = {"id": image_id, "file_name": file_name, "height": height, "width": width, "source": picture.name}
        others = [image for image in content["images"] if image["id"] != image_id]
        annotations = [found for found in content["annotations"] if found["image_id"] != image_id]
        first = max((found["id"] for found in content["annotations"]), default=0) + 1
        for number, found in enumerate(one["annotations"]):
            del found["score"]
            annotations.append(
                {**found, "id": first + number, "image_id": image_id, "category_id": new_id[found["category_id"]]}
            )
        path = folder / "images" / "train" / file_name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path, "free some space") as temporary:
                Image.fromarray(picture.original).save(temporary, format="PNG")
        whole = {
            "info": {"description": OURS},
            "images": [*others, entry],
            "annotations": annotations,
            "categories": [{"id": identifier, "name": name} for name, identifier in classes.items()],
        }
        _put_aside(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, json.dumps(whole) + "\n", "free some space")
    return Collected(folder, len(one["annotations"]), len(whole["images"]), len(annotations))


def names_for(text: str, count: int, told: Sequence[str | None] = ()) -> list[str]:
    """A class for each of `count` masks from what a user wrote: one name for all, or one for each, with commas.

    Args:
        text: What was written; nothing takes the names that were `told`, and `object` where none was.
        count: How many.
        told: What a class head says.

    Raises:
        DataError: another number of names.
    """
    written = [part.strip() for part in text.split(",") if part.strip()]
    if not written:
        known = [name or "object" for name in told]
        return known if len(known) == count else ["object"] * count
    if len(written) == 1:
        return written * count
    if len(written) != count:
        raise DataError(f"{len(written)} names for {count} masks: write one for all, or one for each, with commas")
    return written


def tune_again(program: str, run: Path, folder: Path) -> str:
    """The command that trains on with what was collected."""
    return f"{program} {typed_word('init_from', _shown(run))} {data_words(root=_shown(folder))}"


def _content(folder: Path, place: Path) -> dict[str, Any]:
    if not place.exists():
        if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise DataError(f"{folder} holds other files already; start the app with --collect and another folder")
        return {"images": [], "annotations": [], "categories": []}
    content = read_json(place, "move it away, or start the app with --collect and another folder")
    if content.get("info") != {"description": OURS}:
        raise DataError(f"{place} was not made here; start the app with --collect and another folder")
    return content


def _put_aside(place: Path) -> None:
    if place.is_file():
        earlier = place.parent.parent / ".earlier"
        earlier.mkdir(exist_ok=True)
        number = 1 + max((int(path.stem) for path in earlier.glob("*.json") if path.stem.isdecimal()), default=0)
        write_text(earlier / f"{number:04d}.json", place.read_text(encoding="utf-8"), "free some space")


def _checked(name: str) -> str:
    if not name or len(name) > _NAME_LENGTH or not name.isprintable():
        raise DataError(f"the name {name!r:.80} must have 1 to {_NAME_LENGTH} printable characters")
    return name


def _stem(name: str) -> str:
    last = last_part(name).rpartition(".")[0] or name
    return re.sub(r"[^\w-]+", "_", last, flags=re.ASCII).strip("_")[:60] or "image"


def _shown(path: Path) -> str:
    whole, here = path.resolve(), Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)
