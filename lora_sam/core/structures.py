"""The nouns passed between steps: a labelled sample, its prompts, and predicted masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.mask_windows import MaskWindows
from lora_sam.core.thin_arrays import thin_copy

_LATER: NDArray[np.bool_] = np.zeros((0, 0, 0), np.bool_)  # stands for masks that are not made yet


@dataclass(frozen=True)
class Sample:
    """One labelled image at its original size.

    Attributes:
        id: Stable name, unique within its data set (path of the image relative to the data root, with `/`).
        image: RGB, uint8 [H, W, 3].
        masks: One binary mask per object, bool [N, H, W]; N >= 1 and no mask is empty.
        object_ids: N names of the objects (annotation ids, or label values), for error messages and reports.
        classes: Name of the class of each object; empty where the data has no classes.
        ignored: Pixels that are neither object nor background, such as crowds, void, and objects that were left out
            because they are too small, bool [H, W]; None where there are none.
        group: What it is part of, such as the volume of a slice or the image of a tile; None where it is a whole. What
            is of one group is alike: splits do not part it, and intervals draw it together.
    """

    id: str
    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    object_ids: tuple[str, ...]
    classes: tuple[str, ...] = ()
    ignored: NDArray[np.bool_] | None = None
    group: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[0], self.image.shape[1]

    @cached_property
    def boxes(self) -> NDArray[np.float32]:
        """The smallest boxes that hold the masks (see `tight_boxes`), float32 [N, 4]; read-only."""
        boxes = tight_boxes(self.masks)
        boxes.flags.writeable = False
        return boxes

    @property
    def known_boxes(self) -> NDArray[np.float32] | None:
        """`boxes` where they are known already; None where all pixels would have to be looked at."""
        boxes: NDArray[np.float32] | None = self.__dict__.get("boxes")
        return boxes

    def with_boxes(self, boxes: NDArray[np.float32] | None) -> Sample:
        """The same sample, whose `boxes` whoever read or changed its masks knows; None for not."""
        same = replace(self)
        if boxes is not None:
            boxes.flags.writeable = False
            same.__dict__["boxes"] = boxes
        return same

    @cached_property
    def windows(self) -> MaskWindows:
        """What lies in the boxes of the masks; no more than these where the masks were given so."""
        return MaskWindows.of(self.masks, self.boxes)

    @classmethod
    def of_windows(
        cls,
        id: str,
        image: NDArray[np.uint8],
        windows: MaskWindows,
        object_ids: tuple[str, ...],
        classes: tuple[str, ...] = (),
        ignored: NDArray[np.bool_] | None = None,
        group: str | None = None,
    ) -> Sample:
        """A sample whose `masks` are made when somebody first asks for them; boxes and windows are known."""
        sample = cls(id, image, _LATER, object_ids, classes, ignored, group)
        del sample.__dict__["masks"]
        sample.__dict__.update(boxes=windows.boxes, windows=windows)
        return sample

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            windows = self.__dict__.get("windows")
            if name != "masks" or windows is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            self.__dict__["masks"] = windows.masks()
            return self.__dict__["masks"]

    @property
    def has_masks(self) -> bool:
        """Whether `masks` are there as arrays already."""
        return "masks" in self.__dict__

    def only(self, rows: NDArray[np.integer]) -> Sample:
        """The same image with some of its objects: those at `rows`, in that order."""
        ids = tuple(self.object_ids[row] for row in rows)
        classes = tuple(self.classes[row] for row in rows) if self.classes else ()
        if not self.has_masks:
            return self.of_windows(self.id, self.image, self.windows.only(rows), ids, classes, self.ignored, self.group)
        known = self.known_boxes
        masks = self.masks[rows] if known is None else thin_copy(self.masks, known, rows)
        some = replace(self, masks=masks, object_ids=ids, classes=classes)
        return some.with_boxes(None if known is None else known[rows])


@dataclass(frozen=True)
class Prompts:
    """Prompts for N objects of one image, in pixels of the original image.

    The frame is continuous: pixel column i covers [i, i+1), so a one-pixel mask at (row 3, column 5) has the tight
    box (5, 3, 6, 4). Points are (x, y).

    Objects of one image may be prompted in different ways: see `kinds`.

    Attributes:
        boxes: XYXY, float32 [N, 4], or None; NaN for an object without a box.
        points: (x, y), float32 [N, K, 2], or None.
        labels: int64 [N, K]: 1 foreground, 0 background, -1 padding; None exactly when `points` is None. Padding alone
            beside a box is no point at all.
        mask_inputs: Logits of an earlier prediction (`Masks.low_res_logits`) to be improved, beside boxes or points,
            float32 [N, M, M] in the model's input frame (`lora_sam.core.frame.Frame`), or None; NaN in its first cell
            for an object without. Where M is not S/4 they are scaled to it.
        masks_padded: Whether `mask_inputs` are in a frame with padding whatever the model's is: they are not its own
            predictions, but made from an image whose longer side has M cells.
    """

    boxes: NDArray[np.float32] | None = None
    points: NDArray[np.float32] | None = None
    labels: NDArray[np.int64] | None = None
    mask_inputs: NDArray[np.float32] | None = None
    masks_padded: bool = False

    def __post_init__(self) -> None:
        assert self.boxes is not None or self.points is not None, "prompts without boxes and points"
        assert (self.points is None) == (self.labels is None), "points and labels come together"

    def __len__(self) -> int:
        if self.boxes is not None:
            return len(self.boxes)
        assert self.points is not None
        return len(self.points)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Prompts:
        """The same prompts for some of the objects."""
        return Prompts(
            boxes=None if self.boxes is None else self.boxes[rows],
            points=None if self.points is None else self.points[rows],
            labels=None if self.labels is None else self.labels[rows],
            mask_inputs=None if self.mask_inputs is None else self.mask_inputs[rows],
            masks_padded=self.masks_padded,
        )

    def kinds(self) -> list[tuple[NDArray[np.intp], Prompts]]:
        """The objects parted by what prompts them, as (rows, prompts without what those objects lack).

        SAM's prompt encoder adds padding where there is no box, and the decoder attends to padding: objects can be
        decoded together, with the result of each alone, only if they have the same parts.
        """
        nothing, everything = np.zeros(len(self), np.bool_), np.ones(len(self), np.bool_)
        boxes = nothing if self.boxes is None else ~np.isnan(self.boxes[:, 0])
        points = nothing if self.labels is None else everything
        if self.labels is not None and self.boxes is not None:
            points = (self.labels != -1).any(axis=1) | ~boxes
        masks = nothing if self.mask_inputs is None else ~np.isnan(self.mask_inputs[:, 0, 0])
        codes = 4 * boxes + 2 * points + 1 * masks
        parts = []
        for code in np.unique(codes).tolist():
            rows = np.flatnonzero(codes == code)
            part = self if len(rows) == len(self) else self[rows]
            with_points = bool(code & 2)
            parts.append(
                (
                    rows,
                    Prompts(
                        boxes=part.boxes if code & 4 else None,
                        points=part.points if with_points else None,
                        labels=part.labels if with_points else None,
                        mask_inputs=part.mask_inputs if code & 1 else None,
                        masks_padded=part.masks_padded,
                    ),
                )
            )
        return parts


@dataclass(frozen=True)
class Corrections:
    """How N prompts are corrected in the R rounds after the first, decided before the predictions are known.

    Attributes:
        places: Which pixel of the error gets the next click (`lora_sam.prompts.clicks.random_click`), 0 to 1, float64
            [N, R]; NaN in all rows for a round without a new click.
        masks: Whether the logits of the round before are the mask prompt, bool [N, R].
    """

    places: NDArray[np.float64]
    masks: NDArray[np.bool_]


@dataclass(frozen=True)
class Candidates:
    """SAM's three masks for an ambiguous prompt, of each of N prompts: whole, part, subpart, in no fixed order.

    Attributes:
        masks: bool [N, 3, H, W].
        scores: IoU as predicted by the model, float32 [N, 3].
        low_res_logits: float32 [N, 3, S/4, S/4] in the input frame.
    """

    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]
    low_res_logits: NDArray[np.float32]


@dataclass(frozen=True)
class Masks:
    """Predicted masks for N prompts of one image, at the image's original size.

    Attributes:
        masks: `logits > threshold`, bool [N, H, W].
        scores: IoU as predicted by the model, float32 [N].
        low_res_logits: float32 [N, S/4, S/4] in the input frame.
        class_probabilities: How likely each is of each class, float32 [N, C], where what computed them tells it.
        candidates: All three masks of each prompt, after `segment(..., multimask=True)`; `masks` are the best of them.
    """

    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]
    low_res_logits: NDArray[np.float32]
    class_probabilities: NDArray[np.float32] | None = None
    candidates: Candidates | None = field(default=None, kw_only=True)

    def save(self, path: str | PathLike[str], *, name: str = "image.png", classes: Sequence[str] | None = None) -> Path:
        """Write the masks as what the ending of `path` says, atomically; returns the path.

        `.json` is `to_coco`, `.png` and `.tif` are `to_labels`, `.npz` holds `masks` and `scores`; without an ending it
        is a folder with `001.png` and so on, 255 on the object.

        Args:
            path: Where to.
            name: File name of the image, for COCO.
            classes: Name of the class of each mask, for COCO.

        Raises:
            ConfigError: another ending, another number of classes, or the folder has other files.
            TrainingError: it cannot be written.
        """
        from lora_sam.core.mask_files import save_masks

        return save_masks(path, self.masks, self.scores, name, classes)

    def to_coco(self, *, name: str = "image.png", classes: Sequence[str] | None = None) -> dict[str, Any]:
        """COCO instances of the image, ready for JSON: compressed RLE, boxes, areas and scores; no empty masks.

        Args:
            name: File name of the image.
            classes: Name of the class of each mask; None calls all of them `object`.

        Raises:
            ConfigError: another number of classes.
        """
        from lora_sam.core.mask_files import coco_of

        return coco_of(self.masks, self.scores, name, classes)

    def to_labels(self) -> NDArray[np.uint16] | NDArray[np.uint32]:
        """A label image [H, W]: 0 is background, n mask n; where masks overlap, the one with the higher score."""
        from lora_sam.core.mask_files import labels_of

        return labels_of(self.masks, self.scores)


def tight_boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The smallest boxes that hold the masks, in the frame of `Prompts`.

    Args:
        masks: bool [N, H, W], none empty.

    Returns:
        XYXY, float32 [N, 4]: a single pixel at row 3, column 5 has the box (5, 3, 6, 4).
    """
    rows, columns = _occupied(masks)
    assert np.any(rows, axis=1).all(), "an empty mask has no box"
    sides = (
        columns.argmax(axis=1),
        rows.argmax(axis=1),
        columns.shape[1] - columns[:, ::-1].argmax(axis=1),
        rows.shape[1] - rows[:, ::-1].argmax(axis=1),
    )
    return np.stack(sides, axis=1).astype(np.float32)


def _occupied(masks: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows [N, H] and which columns [N, W] of masks [N, H, W] have a pixel."""
    if masks.shape[2] % 8 or not masks.flags.c_contiguous:
        return np.any(masks, axis=2), np.any(masks, axis=1)
    # eight pixels at a time: bytes of 0 and 1 stay such when words are combined
    words = masks.view(np.uint64)
    rows: NDArray[np.bool_] = np.bitwise_or.reduce(words, axis=2) != 0
    columns = np.ascontiguousarray(np.bitwise_or.reduce(words, axis=1)).view(np.bool_)
    return rows, columns
