"""What was found in one image: the record that is kept of it, out of which every format is written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.crops import Crop
from lora_sam.core.files import MAX_JSON_BYTES, write_text
from lora_sam.data.reading.georeference import Georeference
from lora_sam.data.reading.rle import decompressed, window_of

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True, kw_only=True)
class FoundObject:
    """One object of an image.

    Attributes:
        counts: Its mask as compressed COCO RLE.
        box: Left, top, width and height of the mask in pixels.
        area: Pixels of the mask.
        score: IoU as predicted by the model.
        category: Its class.
        id: What the file of prompts calls it; None without prompts.
        stability: See `AutomaticMasks`; None with prompts.
    """

    counts: str
    box: tuple[int, int, int, int]
    area: int
    score: float
    category: str
    id: str | None = None
    stability: float | None = None


@dataclass(frozen=True, kw_only=True)
class FoundImage:
    """The objects of one image, and what was written of them.

    Attributes:
        name: Path of the image relative to the source's root.
        stem: Path without ending of what is written for it.
        size: (height, width) in pixels.
        objects: Those with at least one pixel, by falling score; in the order of the prompts where there were prompts.
        empty: Prompts that gave an empty mask.
        settings: Digest of the settings and weights.
        content: SHA-256 of the image file.
        prompts: Digest of its prompts; empty without.
        coco: Its `id` and `file_name` in the COCO file that lists it.
        files: Paths that were written, relative to the output and with `/`, by the name of the format.
        numbering: Digest of the names of the classes in the order that numbers them in `files`, by the name of the
            format; formats that do not number them are not there.
        place: Where the image lies on earth; None of what is no GeoTIFF.
        nothing: Where nothing was found without prompts: why, and what to change; see `FoundMasks`.
    """

    name: str
    stem: str
    size: tuple[int, int]
    objects: tuple[FoundObject, ...]
    empty: int
    settings: str
    content: str
    prompts: str
    coco: tuple[int | str, str] | None = None
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    numbering: Mapping[str, str] = field(default_factory=dict)
    place: Georeference | None = None
    nothing: str | None = None

    @property
    def masks(self) -> NDArray[np.bool_]:
        """The masks of all objects, bool [N, H, W]."""
        return self.some_masks(len(self.objects))

    def some_masks(self, most: int, step: int = 1) -> NDArray[np.bool_]:
        """The masks of the `most` largest objects, in their order, of every `step`-th pixel, bool [N, h, w]."""
        largest = sorted(sorted(range(len(self.objects)), key=lambda index: -self.objects[index].area)[:most])
        masks = np.zeros((len(largest), -(-self.size[0] // step), -(-self.size[1] // step)), np.bool_)
        for mask, index in zip(masks, largest, strict=True):
            left, top, *_ = self.objects[index].box
            y, x = -(-top // step), -(-left // step)
            part = self.mask_in_box(index)[y * step - top :: step, x * step - left :: step]
            mask[y : y + part.shape[0], x : x + part.shape[1]] = part
        return masks

    def window(self, index: int) -> tuple[slice, slice]:
        """Rows and columns of the box of an object."""
        left, top, width, height = self.objects[index].box
        return slice(top, top + height), slice(left, left + width)

    def mask_in_box(self, index: int) -> NDArray[np.bool_]:
        """The mask of an object inside its box, bool [height, width]."""
        one = self.objects[index]
        return window_of(decompressed(one.counts.encode("ascii")), self.size[0], one.box)

    def by_score(self) -> list[int]:
        """Indices of the objects by rising score; of equal ones the later come first."""
        return sorted(range(len(self.objects)), key=lambda index: (self.objects[index].score, -index))


def objects_from(
    masks: NDArray[np.bool_],
    scores: Iterable[float],
    categories: Iterable[str],
    ids: Iterable[str | None],
    stability: Iterable[float | None],
) -> list[FoundObject | None]:
    """Objects of masks [N, H, W]; None for those that are empty."""
    from lora_sam.evaluation.average_precision import encode_masks

    return _objects(encode_masks(masks), scores, categories, ids, stability)


def objects_of_crops(
    crops: Iterable[Crop | None],
    size: tuple[int, int],
    scores: Iterable[float],
    categories: Iterable[str],
    ids: Iterable[str | None],
    stability: Iterable[float | None],
) -> list[FoundObject | None]:
    """Objects of masks of an image of `size` = (height, width), each as its crop; None for those that are empty."""
    encoded = (None if crop is None else crop.rle(size) for crop in crops)
    return _objects(encoded, scores, categories, ids, stability)


def _objects(
    encoded: Iterable[Any],
    scores: Iterable[float],
    categories: Iterable[str],
    ids: Iterable[str | None],
    stability: Iterable[float | None],
) -> list[FoundObject | None]:
    """Objects of compressed RLE; None for those that are empty or None."""
    from faster_coco_eval.core import mask as coco_mask

    made: list[FoundObject | None] = []
    for rle, score, category, identifier, stable in zip(encoded, scores, categories, ids, stability, strict=True):
        area = 0 if rle is None else int(coco_mask.area(rle))
        if not area:
            made.append(None)
            continue
        left, top, width, height = (int(side) for side in coco_mask.toBbox(rle).tolist())
        made.append(
            FoundObject(
                counts=bytes(rle["counts"]).decode("ascii"),
                box=(left, top, width, height),
                area=area,
                score=round(float(score), 6),
                category=category,
                id=identifier,
                stability=None if stable is None else round(float(stable), 6),
            )
        )
    return made


def write_found(path: Path, image: FoundImage) -> None:
    """Write a record atomically. Raises `TrainingError` as `write_text` does."""
    write_text(path, json.dumps(asdict(image), separators=(",", ":")) + "\n")


def read_found(path: Path) -> FoundImage | None:
    """A record; None where there is none, or none that can be read, which is then made again."""
    from pydantic import ValidationError

    try:
        if path.stat().st_size > 16 * MAX_JSON_BYTES:
            return None
        return _adapter().validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _adapter() -> TypeAdapter[FoundImage]:
    from pydantic import TypeAdapter

    if not _ADAPTERS:
        _ADAPTERS.append(TypeAdapter(FoundImage))
    return _ADAPTERS[0]


_ADAPTERS: list[TypeAdapter[FoundImage]] = []
